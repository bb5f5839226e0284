//! A device: a certificate, a protocol, and the client that speaks it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::driver::{Driver, Pending};
use super::{Gateway, curl};
use crate::pki::Identity;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Client that speaks: the wire clients say exactly what they are told, the others what they think proper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Wire,
    Httpx,
    CurlCffi,
    Curl,
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Httpx => "httpx",
            Self::CurlCffi => "curl_cffi",
            Self::Curl => "curl",
        }
    }
}

/// A request. The authority is the gateway's, and the length is declared, unless told otherwise.
#[derive(Clone)]
pub struct Ask {
    pub method: String,
    pub path: String,
    pub authority: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The text of `Content-Length`.
    pub length: Option<String>,
}

impl Ask {
    /// A reading for the default stream.
    pub fn post(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = Some(body.len().to_string());
        let (method, path) = ("POST".into(), "/v1/telemetry".into());
        Self {
            method,
            path,
            authority: None,
            headers: Vec::new(),
            body,
            length,
        }
    }

    pub fn to(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    pub fn by(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub fn at(mut self, authority: &str) -> Self {
        self.authority = Some(authority.into());
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Declares another length than the body's.
    pub fn declaring(mut self, length: impl ToString) -> Self {
        self.length = Some(length.to_string());
        self
    }

    /// Chunks on h1, no length on h2 and h3.
    pub fn undeclared(mut self) -> Self {
        self.length = None;
        self
    }

    pub fn to_json(&self) -> Value {
        json!({
            "method": self.method, "path": self.path, "authority": self.authority, "headers": self.headers,
            "body": BASE64.encode(&self.body), "length": self.length,
        })
    }
}

/// Without the body, of which there may be a mebibyte.
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            path,
            authority,
            headers,
            body,
            length,
        } = self;
        write!(
            f,
            "{method} {path} at {authority:?} with {headers:?}, {} of {length:?} bytes",
            body.len()
        )
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// The one field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is repeated in {self:?}");
        value
    }

    pub fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The body of a problem; `null` when it is none.
    pub fn problem(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn from_json(answer: &Value) -> Self {
        let field = |field: &Value| {
            (
                field[0].as_str().expect("a name").to_owned(),
                field[1].as_str().expect("a value").to_owned(),
            )
        };
        Self {
            status: answer["status"]
                .as_u64()
                .and_then(|status| status.try_into().ok())
                .expect("a status"),
            headers: answer["headers"]
                .as_array()
                .expect("headers")
                .iter()
                .map(field)
                .collect(),
            body: BASE64
                .decode(answer["body"].as_str().expect("a body"))
                .expect("base64"),
        }
    }
}

/// One device on one connection, as long as the gateway keeps it. curl makes a new one for each request.
pub struct Client {
    session: u64,
    curl: Option<curl::Target>,
    pub protocol: Protocol,
    /// Its TLS session began on another connection.
    pub is_resumed: bool,
}

/// Differences from the way in which every device connects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// The highest TLS version: `1.2`.
    pub tls_max: Option<&'static str>,
    pub no_alpn: bool,
    /// The name to connect to: `localhost` unless set.
    pub host: Option<&'static str>,
    /// A session of the same protocol, still open, that has had an answer: its TLS session is resumed.
    pub resumes: Option<u64>,
}

impl Client {
    /// A wire client.
    pub fn open(protocol: Protocol, gateway: &Gateway, device: &Identity) -> Self {
        Self::try_open(
            Via::Wire,
            protocol,
            gateway,
            Some(device),
            Quirks::default(),
        )
        .expect("a connection")
    }

    pub fn open_via(via: Via, protocol: Protocol, gateway: &Gateway, device: &Identity) -> Self {
        Self::try_open(via, protocol, gateway, Some(device), Quirks::default())
            .expect("a connection")
    }

    /// The error is what the client says of it. A client may find out only by its first request.
    pub fn try_open(
        via: Via,
        protocol: Protocol,
        gateway: &Gateway,
        device: Option<&Identity>,
        quirks: Quirks,
    ) -> Result<Self, String> {
        if via == Via::Curl {
            let curl = curl::Target::new(
                protocol,
                gateway,
                device.expect("curl always brings a certificate"),
            );
            return Ok(Self {
                session: 0,
                curl: Some(curl),
                protocol,
                is_resumed: false,
            });
        }
        let target = json!({
            "port": gateway.address.port(), "ca": gateway.pki.ca(), "host": quirks.host.unwrap_or("localhost"),
            "cert": device.map(|device| &device.cert), "key": device.map(|device| &device.key),
            "tls_max": quirks.tls_max, "alpn": !quirks.no_alpn,
            "resumes": quirks.resumes,
        });
        let open = json!({ "client": via.name(), "protocol": protocol.name(), "target": target });
        let answer = Driver::get().call("open", open)?;
        let session = answer["session"].as_u64().expect("a session");
        Ok(Self {
            session,
            curl: None,
            protocol,
            is_resumed: answer["resumed"] == true,
        })
    }

    pub fn session(&self) -> u64 {
        self.session
    }

    /// The answer; a connection that breaks fails the test.
    pub fn send(&self, ask: &Ask) -> Reply {
        self.try_send(ask)
            .unwrap_or_else(|error| panic!("{} {ask:?}: {error}", self.protocol))
    }

    /// The answer, or what the client says of the broken connection.
    pub fn try_send(&self, ask: &Ask) -> Result<Reply, String> {
        match &self.curl {
            Some(curl) => curl.send(ask),
            None => self.begin(ask).wait(),
        }
    }

    /// Sends; the answer is waited for later.
    pub fn begin(&self, ask: &Ask) -> Sent {
        let fields = json!({ "session": self.session, "ask": ask.to_json() });
        Sent(Driver::get().begin("request", fields))
    }

    /// Sends the head and the beginning of the body.
    pub fn hold(&self, ask: &Ask) -> Sent {
        let fields = json!({ "session": self.session, "ask": ask.to_json() });
        Sent(Driver::get().begin("hold", fields))
    }

    /// Sends bytes as they are; h1 only.
    pub fn raw(&self, bytes: &[u8]) -> Result<Reply, String> {
        let fields = json!({ "session": self.session, "bytes": BASE64.encode(bytes) });
        Driver::get()
            .call("raw", fields)
            .map(|answer| Reply::from_json(&answer))
    }

    /// From now on, packets come from another port; h3 only.
    pub fn move_away(&self) {
        Driver::get()
            .call("move", json!({ "session": self.session }))
            .expect("another socket");
    }

    /// From now on, no packets come or go; h3 only.
    pub fn vanish(&self) {
        Driver::get()
            .call("vanish", json!({ "session": self.session }))
            .expect("h3");
    }

    /// Asks the gateway to close a stream that must stay open; h3 only.
    pub fn stop_critical(&self, code: u64) {
        let fields = json!({ "session": self.session, "code": code });
        Driver::get().call("stop_critical", fields).expect("h3");
    }

    /// Returns the settings that the gateway has told on this connection (`told` of `tests/clients/wire_h3.py`).
    pub fn told(&self) -> Value {
        Driver::get()
            .call("told", json!({ "session": self.session }))
            .expect("h3")
    }

    /// Waits until the gateway ends the connection, and returns how; the test fails if it does not.
    pub fn closed(&self) -> String {
        let answer = Driver::get().call("closed", json!({ "session": self.session }));
        answer.expect("the connection ends")["how"]
            .as_str()
            .expect("how")
            .to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.curl.is_none() {
            Driver::get().begin("close", json!({ "session": self.session }));
        }
    }
}

/// A request whose answer is still to come.
pub struct Sent(Pending);

impl Sent {
    /// Sends the rest of the body.
    pub fn release(&self, rest: &[u8]) {
        let fields = json!({ "request": self.0.id, "bytes": BASE64.encode(rest) });
        Driver::get()
            .call("release", fields)
            .expect("the request is held");
    }

    pub fn wait(self) -> Result<Reply, String> {
        self.0.wait().map(|answer| Reply::from_json(&answer))
    }
}
