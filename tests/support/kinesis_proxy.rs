//! Something between the gateway and the Kinesis emulator that goes wrong as it is told, and hands out credentials.
//!
//! HTTP/1.1 in blocking threads. What is no PutRecords passes. A PutRecords call gets the next fault of the script, which
//! starts over at its end. `/credentials` is what a container's credentials endpoint is to the AWS SDK; a call that is
//! signed with another key than the one it gave last is answered that its token has expired.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

const SHARD_IS_FULL: &str = "ProvisionedThroughputExceededException";

/// Fate of a PutRecords call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every other entry is refused for the shard's rate, the first one for a start; the others are written.
    Throttled,
    /// 500, nothing written.
    InternalFailure,
    /// 503, nothing written.
    Unavailable,
    /// The connection breaks before the emulator has the call.
    Reset,
    /// It breaks after the emulator has answered: written, and nobody is told.
    ResetAnswer,
    /// The answer takes this long.
    Slow(Duration),
}

#[derive(Default)]
struct State {
    script: Vec<Fault>,
    /// PutRecords calls.
    calls: usize,
    /// Entries that the emulator itself refused for a shard's rate.
    refused: usize,
    expired: usize,
    /// ListShards is denied.
    hides_shards: bool,
    /// PutRecords is refused so, whatever the script says.
    puts_refused: Option<&'static str>,
    /// The number in the access key that is good; 0 takes every key.
    key: usize,
}

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct Message {
    head: String,
    body: Vec<u8>,
}

impl Proxy {
    /// In front of `upstream`; ends with the process.
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let proxy = Self {
            address,
            upstream,
            state: Arc::default(),
        };
        let of_connections = proxy.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let proxy = of_connections.clone();
                // A connection that breaks is what this is for.
                std::thread::spawn(move || proxy.serve(connection).ok());
            }
        });
        proxy
    }

    pub fn script(&self, script: &[Fault]) {
        self.state.lock().expect("no panic").script = script.to_vec();
    }

    /// From now on nobody may list the shards.
    pub fn hide_shards(&self) {
        self.state.lock().expect("no panic").hides_shards = true;
    }

    /// From now on every PutRecords call is refused with this error, or none is.
    pub fn refuse_puts(&self, error: Option<&'static str>) {
        self.state.lock().expect("no panic").puts_refused = error;
    }

    /// From now on only credentials that are asked for anew are good.
    pub fn expire_credentials(&self) {
        self.state.lock().expect("no panic").key += 1;
    }

    pub fn calls(&self) -> usize {
        self.state.lock().expect("no panic").calls
    }

    pub fn refused(&self) -> usize {
        self.state.lock().expect("no panic").refused
    }

    pub fn expired(&self) -> usize {
        self.state.lock().expect("no panic").expired
    }

    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut upstream = BufReader::new(TcpStream::connect(self.upstream)?);
        let mut client = BufReader::new(connection);
        while let Some(request) = Message::read(&mut client)? {
            let Some(answer) = self.answer(&request, &mut upstream)? else {
                return Ok(());
            };
            answer.write(client.get_mut())?;
        }
        Ok(())
    }

    /// `None` breaks the connection.
    fn answer(
        &self,
        request: &Message,
        upstream: &mut BufReader<TcpStream>,
    ) -> std::io::Result<Option<Message>> {
        if request.head.starts_with("GET /credentials") {
            return Ok(Some(self.credentials()));
        }
        if !self.takes_key_of(request) {
            return Ok(Some(Message::error(
                "400 Bad Request",
                "ExpiredTokenException",
            )));
        }
        if request.head.contains("Kinesis_20131202.ListShards")
            && self.state.lock().expect("no panic").hides_shards
        {
            return Ok(Some(Message::error(
                "400 Bad Request",
                "AccessDeniedException",
            )));
        }
        if !request.head.contains("Kinesis_20131202.PutRecords") {
            return request.forward(upstream).map(Some);
        }
        if let Some(error) = self.puts_refused() {
            return Ok(Some(Message::error("400 Bad Request", error)));
        }
        match self.next_fault() {
            Fault::None => {
                let answer = request.forward(upstream)?;
                let refused = String::from_utf8_lossy(&answer.body)
                    .matches(SHARD_IS_FULL)
                    .count();
                self.state.lock().expect("no panic").refused += refused;
                Ok(Some(answer))
            }
            Fault::Throttled => throttled(request, upstream).map(Some),
            Fault::InternalFailure => Ok(Some(Message::error(
                "500 Internal Server Error",
                "InternalFailure",
            ))),
            Fault::Unavailable => Ok(Some(Message::error(
                "503 Service Unavailable",
                "ServiceUnavailable",
            ))),
            Fault::Reset => Ok(None),
            Fault::ResetAnswer => request.forward(upstream).map(|_| None),
            Fault::Slow(time) => {
                let answer = request.forward(upstream);
                #[allow(clippy::disallowed_methods, reason = "to be slow is what it is for")]
                std::thread::sleep(time);
                answer.map(Some)
            }
        }
    }

    fn puts_refused(&self) -> Option<&'static str> {
        self.state.lock().expect("no panic").puts_refused
    }

    fn next_fault(&self) -> Fault {
        let mut state = self.state.lock().expect("no panic");
        let fault = state
            .script
            .get(state.calls % state.script.len().max(1))
            .copied()
            .unwrap_or(Fault::None);
        state.calls += 1;
        fault
    }

    fn credentials(&self) -> Message {
        let key = self.state.lock().expect("no panic").key;
        let (access_key, expiration) = (format!("KEY{key}."), "2100-01-01T00:00:00Z");
        Message::json(
            "200 OK",
            &json!({ "AccessKeyId": access_key, "SecretAccessKey": "x", "Token": "x", "Expiration": expiration }),
        )
    }

    fn takes_key_of(&self, request: &Message) -> bool {
        let mut state = self.state.lock().expect("no panic");
        let is_good = state.key == 0
            || request
                .head
                .contains(&format!("Credential=KEY{}.", state.key));
        state.expired += usize::from(!is_good);
        is_good
    }
}

/// As the emulator would answer whose shard has room for every other entry only.
fn throttled(request: &Message, upstream: &mut BufReader<TcpStream>) -> std::io::Result<Message> {
    let mut call: Value = serde_json::from_slice(&request.body)?;
    let entries = call["Records"].as_array().expect("entries").clone();
    let written: Vec<_> = entries.iter().skip(1).step_by(2).cloned().collect();
    let mut results = Vec::new();
    if !written.is_empty() {
        call["Records"] = written.into();
        let answer = Message {
            head: request.head.clone(),
            body: call.to_string().into(),
        }
        .forward(upstream)?;
        let answer: Value = serde_json::from_slice(&answer.body)?;
        results.extend(answer["Records"].as_array().expect("results").clone());
    }
    let mut results = results.into_iter();
    let result = |at| {
        if at % 2 == 0 {
            json!({ "ErrorCode": SHARD_IS_FULL })
        } else {
            results.next().expect("one each")
        }
    };
    let results: Vec<_> = (0..entries.len()).map(result).collect();
    Ok(Message::json("200 OK", &json!({ "Records": results })))
}

impl Message {
    /// `None` at the end of the connection.
    fn read(from: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        from.read_exact(&mut body)?;
        Ok(Some(Self { head, body }))
    }

    /// A head without its length.
    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        let head: String = self
            .head
            .split_inclusive("\r\n")
            .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"))
            .collect();
        write!(to, "{head}content-length: {}\r\n\r\n", self.body.len())?;
        to.write_all(&self.body)
    }

    fn forward(&self, upstream: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        self.write(upstream.get_mut())?;
        Self::read(upstream)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    fn error(status: &str, code: &str) -> Self {
        Self::json(status, &json!({ "__type": code }))
    }

    fn json(status: &str, body: &Value) -> Self {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\n");
        Self {
            head,
            body: body.to_string().into(),
        }
    }
}
