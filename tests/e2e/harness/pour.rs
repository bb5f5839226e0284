//! Bytes as they are on a stream of HTTP/3, and what the gateway makes of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::client::{Ask, Client};
use super::driver::{Driver, Pending};

/// Bytes to send on one stream, and their pace.
#[derive(Clone)]
pub struct Pour {
    head: Option<Ask>,
    bytes: Vec<u8>,
    times: usize,
    ends: bool,
    on: &'static str,
}

impl Pour {
    /// A request stream, with a HEADERS frame as it should be: of `ask`, whose body is not sent.
    pub fn after(ask: Ask) -> Self {
        Self {
            head: Some(ask),
            ..Self::on_request()
        }
    }

    /// A request stream, from its first byte on.
    pub fn on_request() -> Self {
        Self {
            head: None,
            bytes: Vec::new(),
            times: 0,
            ends: false,
            on: "request",
        }
    }

    /// The control stream that the client has.
    pub fn on_control() -> Self {
        Self {
            on: "control",
            ..Self::on_request()
        }
    }

    /// The client's stream of QPACK for this side of it: `encoder` or `decoder`.
    pub fn on_qpack(side: &'static str) -> Self {
        Self {
            on: side,
            ..Self::on_request()
        }
    }

    /// A stream of one direction, from its first byte on.
    pub fn on_uni() -> Self {
        Self {
            on: "uni",
            ..Self::on_request()
        }
    }

    /// Then the stream ends.
    pub fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    /// Then these bytes; silence after them.
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.repeated(bytes, 1)
    }

    pub fn repeated(mut self, bytes: impl Into<Vec<u8>>, times: usize) -> Self {
        (self.bytes, self.times) = (bytes.into(), times);
        self
    }

    pub fn to(self, client: &Client) -> Poured {
        let Self {
            head,
            bytes,
            times,
            ends,
            on,
        } = self;
        let fields = json!({
            "session": client.session(), "ask": head.map(|ask| ask.to_json()), "bytes": BASE64.encode(bytes),
            "times": times, "ends": ends, "on": on,
        });
        Poured(Driver::get().begin("pour", fields))
    }
}

/// A stream whose end is still to come.
pub struct Poured(Pending);

impl Poured {
    /// Waits until the gateway ends the stream; the test fails if it does not.
    pub fn fate(self) -> Fate {
        Fate::from_json(&self.0.wait().expect("the gateway ends it"))
    }
}

/// End of a stream; codes are those of RFC 9114 section 8.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Of the answer.
    pub status: Option<u64>,
    /// The gateway reads no further: the code of STOP_SENDING.
    pub stopped: Option<u64>,
    /// The answer breaks off: the code of RESET_STREAM.
    pub reset: Option<u64>,
    /// The connection ended first.
    pub closed: Option<String>,
}

impl Fate {
    fn from_json(fate: &Value) -> Self {
        let code = |field: &str| fate[field].as_u64();
        let closed = fate["closed"].as_str().map(str::to_owned);
        Self {
            status: code("status"),
            stopped: code("stopped"),
            reset: code("reset"),
            closed,
        }
    }
}

/// Requests that are given up as soon as they are sent, so many or until the gateway ends the connection: how it does, and how
/// many there were.
pub fn churn(client: &Client, ask: &Ask, times: usize) -> (String, u64) {
    let fields = json!({ "session": client.session(), "ask": ask.to_json(), "times": times });
    let ended = Driver::get()
        .call("churn", fields)
        .expect("the connection ends");
    let how = ended["how"].as_str().expect("how").to_owned();
    (how, ended["begun"].as_u64().expect("how many"))
}

/// A frame's type and length (RFC 9114 section 7.1): of `payload_bytes` that are sent or not.
pub fn frame_header(kind: u64, payload_bytes: u64) -> Vec<u8> {
    [varint(kind), varint(payload_bytes)].concat()
}

/// RFC 9000 section 16, in eight bytes whatever its value.
pub fn varint(value: u64) -> Vec<u8> {
    (value | 0b11 << 62).to_be_bytes().to_vec()
}
