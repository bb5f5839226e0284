//! Bytes as they are on a stream of HTTP/3, and what the gateway makes of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::client::{Ask, Client};
use super::driver::{Driver, Pending};

/// What to send on one stream.
#[derive(Clone, Default)]
pub struct Pour {
    head: Option<Ask>,
    bytes: Vec<u8>,
    times: usize,
    ends: bool,
    one_way: bool,
}

impl Pour {
    /// A request stream, with a HEADERS frame as it should be: of `ask`, whose body is not sent.
    pub fn after(ask: Ask) -> Self {
        Self { head: Some(ask), ..Self::default() }
    }

    /// Then these bytes; silence after them.
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.repeated(bytes, 1)
    }

    pub fn repeated(mut self, bytes: impl Into<Vec<u8>>, times: usize) -> Self {
        (self.bytes, self.times) = (bytes.into(), times);
        self
    }

    pub fn on(self, client: &Client) -> Poured {
        let Self { head, bytes, times, ends, one_way } = self;
        let fields = json!({
            "session": client.session(), "ask": head.map(|ask| ask.to_json()), "bytes": BASE64.encode(bytes),
            "times": times, "ends": ends, "one_way": one_way,
        });
        Poured(Driver::get().begin("pour", fields))
    }
}

/// A stream whose end is still to come.
pub struct Poured(Pending);

impl Poured {
    /// How the gateway ends it: the test fails if it does not.
    pub fn fate(self) -> Fate {
        Fate::from_json(&self.0.wait().expect("the gateway ends it"))
    }
}

/// How a stream ended: codes are those of RFC 9114 section 8.1.
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
        Self { status: code("status"), stopped: code("stopped"), reset: code("reset"), closed }
    }
}

/// A frame's type and length (RFC 9114 section 7.1): of `payload_bytes` that are sent or not.
pub fn frame_header(kind: u64, payload_bytes: u64) -> Vec<u8> {
    [varint(kind), varint(payload_bytes)].concat()
}

/// RFC 9000 section 16, in eight bytes whatever its value.
pub fn varint(value: u64) -> Vec<u8> {
    (value | 0b11 << 62).to_be_bytes().to_vec()
}
