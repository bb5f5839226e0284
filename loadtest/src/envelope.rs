//! The envelope of readings in a request: one as it is, or many as lines, encoded where that is asked
//! for; and the verdict of an answer on each.
//!
//! Devices of a fleet and the closed loops of `burn` use it. A body of many is NDJSON, for the path below that of one
//! reading. Failure: an answer that has no verdicts is the same for all readings.

use std::io::Write;

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use serde::Deserialize;

use crate::client::Answer;
use crate::ledger::Status;

/// Records that a gateway takes in one request at most.
pub(crate) const RECORDS_MAX: u32 = 10_000;

/// The level of zstd that everybody uses.
const ZSTD_LEVEL: i32 = 3;

/// Content coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Envelope around the readings of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    /// Readings in a request; `None` is one, as it is.
    pub records: Option<u32>,
    pub encoding: Option<Encoding>,
}

impl Envelope {
    /// Readings in a request.
    pub(crate) fn count(&self) -> u32 {
        self.records.unwrap_or(1)
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self.records {
            None => "application/json",
            Some(_) => "application/x-ndjson",
        }
    }

    /// The body of a request with these readings.
    pub(crate) fn wrap(&self, readings: &[Bytes]) -> Result<Bytes> {
        ensure!(
            readings.len() == self.count() as usize,
            "readings of one request"
        );
        let body = match (self.records, readings) {
            (None, [reading]) => reading.clone(),
            _ => readings.join(&b'\n').into(),
        };
        match self.encoding {
            None => Ok(body),
            Some(Encoding::Gzip) => gzip(&body),
            Some(Encoding::Zstd) => zstd(&body),
        }
    }

    /// The size of a body with these readings, once it is decoded.
    pub(crate) fn body_bytes(&self, readings: &[Bytes]) -> u64 {
        let separators = readings.len().saturating_sub(1);
        let bytes: usize = readings.iter().map(Bytes::len).sum();
        (bytes + separators) as u64
    }

    /// Returns the outcome of each reading.
    pub(crate) fn statuses(&self, answer: &Answer) -> Vec<Status> {
        let count = self.count() as usize;
        let whole = Status(answer.status);
        let Ok(Problem { records: verdicts }) = serde_json::from_slice(&answer.body) else {
            return vec![whole; count];
        };
        let mut statuses = vec![Status::SAFE; count];
        for index in verdicts.retry {
            if let Some(status) = statuses.get_mut(index) {
                *status = whole;
            }
        }
        for Rejected { index, code } in verdicts.rejected {
            if let Some(status) = statuses.get_mut(index) {
                *status = rejected(&code);
            }
        }
        statuses
    }
}

/// The status that a reading with this code would have had alone.
fn rejected(code: &str) -> Status {
    let status = match code {
        "sink-refused" => StatusCode::BAD_GATEWAY,
        "record-too-large" => StatusCode::PAYLOAD_TOO_LARGE,
        "device-mismatch" => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    Status(status.as_u16())
}

/// A problem that tells of each reading.
#[derive(Deserialize)]
struct Problem {
    records: Verdicts,
}

#[derive(Deserialize)]
struct Verdicts {
    retry: Vec<usize>,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    index: usize,
    code: String,
}

fn gzip(body: &[u8]) -> Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

fn zstd(body: &[u8]) -> Result<Bytes> {
    let mut encoded = vec![0; zstd_safe::compress_bound(body.len())];
    let bytes = zstd_safe::compress(&mut encoded[..], body, ZSTD_LEVEL);
    encoded.truncate(bytes.map_err(|_| anyhow::anyhow!("zstd cannot encode a body"))?);
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Envelope = Envelope {
        records: Some(4),
        encoding: None,
    };

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status,
            body: body.into(),
        }
    }

    #[test]
    fn an_answer_tells_of_each_reading() {
        let statuses = |status, body| {
            let statuses = MANY.statuses(&answer(status, body));
            statuses.iter().map(|status| status.0).collect::<Vec<_>>()
        };
        assert_eq!(statuses(204, ""), [204; 4]);
        assert_eq!(statuses(503, "{\"code\":\"overloaded\"}"), [503; 4]);
        let mixed = "{\"records\":{\"accepted\":1,\"retry\":[0,3],\"rejected\":[{\"index\":2,\"code\":\"sink-refused\"}]}}";
        assert_eq!(statuses(504, mixed), [504, 204, 502, 504]);
        let rejected = "{\"records\":{\"accepted\":3,\"retry\":[],\"rejected\":[{\"index\":1,\"code\":\"record-too-large\"}]}}";
        assert_eq!(statuses(413, rejected), [204, 413, 204, 204]);
    }

    #[test]
    fn readings_are_lines() {
        let readings = ["1", "2", "3", "4"].map(Bytes::from);
        assert_eq!(MANY.wrap(&readings).unwrap(), "1\n2\n3\n4");
        let one = Envelope {
            records: None,
            ..MANY
        };
        assert_eq!(one.wrap(&readings[..1]).unwrap(), "1");
        assert!(MANY.wrap(&readings[..1]).is_err());
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let encoded = Envelope {
                encoding: Some(encoding),
                ..MANY
            };
            assert_ne!(encoded.wrap(&readings).unwrap(), "1\n2\n3\n4");
        }
    }
}
