//! The body of a PutRecords call, in the JSON of the service.
//!
//! `call` gives it to the SDK in place of the body that the SDK would write itself, before the
//! request is signed. The SDK makes a buffer and two strings for each record, and looks each field
//! up; here all records are written into one buffer, and their data is encoded in place:
//! <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>.

use std::io::Write;
use std::sync::LazyLock;

use aws_sdk_kinesis::config::http::HttpRequest;
use base64::Engine;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use bytes::Bytes;

use super::entry::Put;

static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));

/// Bytes of names, quotes and an explicit hash key, for each put.
const FRAME_BYTES_MAX: usize = 128;

/// Writes the body. Its names need no escapes: those of streams and devices are letters, digits and
/// a few signs.
pub(super) fn body(stream: &str, puts: &[Put]) -> Bytes {
    debug_assert!(is_plain(stream), "a stream's name is checked");
    let mut out = Vec::with_capacity(bytes_max(puts));
    let _ = write!(out, r#"{{"StreamName":"{stream}","Records":["#);
    for (position, put) in puts.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_put(&mut out, put);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// Puts the body in place of the one that the request has.
pub(super) fn replace_body(request: &mut HttpRequest, body: &Bytes) {
    let bytes = body.len().to_string();
    request.headers_mut().insert("content-length", bytes);
    *request.body_mut() = body.clone().into();
}

fn write_put(out: &mut Vec<u8>, put: &Put) {
    debug_assert!(is_plain(put.key()), "a device id is checked");
    out.extend_from_slice(br#"{"PartitionKey":""#);
    out.extend_from_slice(put.key().as_bytes());
    // A write to a vector cannot fail.
    if let Some(hash_key) = put.explicit_hash_key() {
        let _ = write!(out, r#"","ExplicitHashKey":"{hash_key}"#);
    }
    out.extend_from_slice(br#"","Data":""#);
    write_base64(out, &put.data());
    out.extend_from_slice(br#""}"#);
}

fn write_base64(out: &mut Vec<u8>, data: &[u8]) {
    let begin = out.len();
    out.resize(begin + data.len().div_ceil(3) * 4, 0);
    let written = BASE64.encode_slice(data, &mut out[begin..]);
    debug_assert_eq!(written.ok(), Some(out.len() - begin), "there is room");
}

fn bytes_max(puts: &[Put]) -> usize {
    let data_bytes: usize = puts.iter().map(|put| put.load().bytes).sum();
    data_bytes.div_ceil(3) * 4 + (puts.len() + 1) * FRAME_BYTES_MAX
}

fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::{Duration, Instant};

    use super::super::entry::{Deadlines, Entry};
    use super::super::shards::hash_key;
    use super::super::told::Told;
    use super::*;
    use crate::record::{Record, Timestamp};

    fn put(device: &str, payload: &[u8], packed: bool) -> Put {
        let record = Record::bare(device, payload.to_vec(), Timestamp(0));
        let deadlines = Deadlines::from(Instant::now(), Duration::from_secs(1));
        let entry = Entry::new(&record, deadlines, Told::nothing_of(1).reply(0));
        Put::new(entry, "shard".into(), packed)
    }

    #[test]
    fn a_body_says_of_each_put_what_the_service_asks_for() {
        let device = "urn:plant/7@line-3._";
        let payloads: [&[u8]; 4] = [b"", b"\x00\xff\"\\", &[0xFB; 100], b"{\"a\": 1}"];
        for packed in [false, true] {
            let puts = payloads.map(|payload| put(device, payload, packed));
            let written = body("plant-readings", &puts);
            assert!(written.len() <= bytes_max(&puts), "it is written at once");
            let read: Value = serde_json::from_slice(&written).unwrap();
            let expected = puts.iter().map(|put| {
                let data = BASE64.encode(put.data());
                let mut expected = json!({ "PartitionKey": device, "Data": data });
                if packed {
                    let hash_key = hash_key(device).to_string();
                    expected["ExplicitHashKey"] = hash_key.into();
                }
                expected
            });
            let expected: Vec<_> = expected.collect();
            assert_eq!(
                read,
                json!({ "StreamName": "plant-readings", "Records": expected })
            );
        }
    }
}
