//! HTTP/3 (RFC 9114) over quinn, as much of it as a device needs: one request a stream, the status
//! of the answer.
//!
//! Written by hand so that a hundred thousand connections fit on a core: the head of a request is
//! the same bytes every time, sent with the body in one write. The QPACK dynamic table (RFC 9204)
//! is not offered, so an answer's status, its first field, comes from the static table or as text.
//! The server's control streams are left unread: its GOAWAY is met as a refused stream or a closed
//! connection.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::upload::Pace;
use super::{ANSWER_BYTES_MAX, Answer};
use crate::target::Target;

const FRAME_DATA: u64 = 0x00;
const FRAME_HEADERS: u64 = 0x01;
const STREAM_CONTROL: u64 = 0x00;
const FRAME_SETTINGS: u64 = 0x04;

/// RFC 9114 section 8.1: H3_NO_ERROR.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// An HTTP/3 connection; clones are the same.
#[derive(Clone)]
pub(crate) struct Connection(Arc<QuicConnection>);

struct QuicConnection {
    quic: quinn::Connection,
    /// The control stream is open as long as the connection: its end would be an error.
    _control: quinn::SendStream,
    target: Arc<Target>,
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        self.quic.close(NO_ERROR, b"");
    }
}

impl Connection {
    pub(crate) async fn open(quic: quinn::Connection, target: &Arc<Target>) -> Result<Self> {
        let mut control = quic.open_uni().await?;
        let mut settings = BytesMut::new();
        put_varint(&mut settings, STREAM_CONTROL);
        put_varint(&mut settings, FRAME_SETTINGS);
        put_varint(&mut settings, 0);
        control.write_chunk(settings.freeze()).await?;
        let connection = QuicConnection {
            quic,
            _control: control,
            target: target.clone(),
        };
        Ok(Self(Arc::new(connection)))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.quic.close_reason().is_none()
    }

    pub(crate) async fn send(&mut self, body: Bytes, pace: Option<Pace>) -> Result<Answer> {
        let (mut send, mut receive) = self.0.quic.open_bi().await?;
        let head = head(&self.0.target, body.len());
        match pace {
            None => send.write_all_chunks(&mut [head, body]).await?,
            Some(pace) => send_slowly(&mut send, head, body, pace).await?,
        }
        // Fails where the server has refused the rest, which is no error: the answer says why.
        let _ = send.finish();
        read_answer(&mut receive).await
    }
}

async fn send_slowly(
    send: &mut quinn::SendStream,
    head: Bytes,
    mut body: Bytes,
    pace: Pace,
) -> Result<()> {
    send.write_chunk(head).await?;
    while !body.is_empty() {
        let piece = body.split_to(pace.piece_bytes.min(body.len()));
        send.write_chunk(piece).await?;
        tokio::time::sleep(pace.pause).await;
    }
    Ok(())
}

/// A HEADERS frame, and the head of the DATA frame that the body belongs in.
fn head(target: &Target, body_bytes: usize) -> Bytes {
    let fields = fields(target, body_bytes);
    let mut head = BytesMut::with_capacity(fields.len() + 16);
    put_varint(&mut head, FRAME_HEADERS);
    put_varint(&mut head, fields.len() as u64);
    head.put_slice(&fields);
    put_varint(&mut head, FRAME_DATA);
    put_varint(&mut head, body_bytes as u64);
    head.freeze()
}

fn fields(target: &Target, body_bytes: usize) -> BytesMut {
    let mut fields = BytesMut::with_capacity(256);
    fields.put_slice(&[0, 0]); // no dynamic table
    put_literal(&mut fields, 15, target.method.as_str()); // :method
    fields.put_u8(0xC0 | 23); // :scheme https
    put_literal(&mut fields, 0, &target.authority); // :authority
    put_literal(&mut fields, 1, &target.path); // :path
    put_literal(&mut fields, 44, target.envelope.content_type()); // content-type
    if let Some(encoding) = target.envelope.encoding {
        put_literal(&mut fields, 42, encoding.name()); // content-encoding br, by its name alone
    }
    put_literal(&mut fields, 4, &body_bytes.to_string()); // content-length
    fields
}

/// A literal field with a name from the static table (RFC 9204 section 4.5.4), not Huffman-coded.
fn put_literal(fields: &mut BytesMut, name: u64, value: &str) {
    put_prefixed(fields, 0x50, 4, name);
    put_prefixed(fields, 0, 7, value.len() as u64);
    fields.put_slice(value.as_bytes());
}

/// An integer in the low bits of a byte and what follows it (RFC 7541 section 5.1).
fn put_prefixed(fields: &mut BytesMut, pattern: u8, bits: u32, mut value: u64) {
    let all_ones = (1 << bits) - 1;
    if value < all_ones {
        return fields.put_u8(pattern | value as u8);
    }
    fields.put_u8(pattern | all_ones as u8);
    value -= all_ones;
    while value >= 0x80 {
        fields.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    fields.put_u8(value as u8);
}

/// Writes a variable-length integer (RFC 9000 section 16).
fn put_varint(buffer: &mut BytesMut, value: u64) {
    debug_assert!(value < 1 << 62, "nothing here comes near the 62 bits");
    match value {
        0..0x40 => buffer.put_u8(value as u8),
        0x40..0x4000 => buffer.put_u16(value as u16 | 0x4000),
        0x4000..0x4000_0000 => buffer.put_u32(value as u32 | 0x8000_0000),
        _ => buffer.put_u64(value | 0xC000_0000_0000_0000),
    }
}

/// Reads the answer to its end.
async fn read_answer(receive: &mut quinn::RecvStream) -> Result<Answer> {
    let mut answer = BytesMut::new();
    while let Some(chunk) = receive.read_chunk(ANSWER_BYTES_MAX, true).await? {
        ensure!(
            answer.len() + chunk.bytes.len() <= ANSWER_BYTES_MAX,
            "the answer is too long"
        );
        answer.extend_from_slice(&chunk.bytes);
    }
    parse_answer(answer.freeze())
}

/// The status of the last HEADERS frame but trailers, and the data after it: interim answers come
/// first.
fn parse_answer(mut frames: Bytes) -> Result<Answer> {
    let (mut status, mut body) = (None, BytesMut::new());
    while let Some((kind, mut payload)) = take_frame(&mut frames) {
        if kind == FRAME_DATA {
            body.extend_from_slice(&payload);
        }
        if kind == FRAME_HEADERS && status.is_none() {
            let head = decode_status(&mut payload)
                .context("the answer's head has no status that can be read")?;
            status = (head >= 200).then_some(head);
        }
    }
    let status = status.context("the answer has no head")?;
    let body = body.freeze();
    Ok(Answer { status, body })
}

fn take_frame(answer: &mut Bytes) -> Option<(u64, Bytes)> {
    let kind = take_varint(answer)?;
    let bytes = take_varint(answer)?.try_into().ok()?;
    (answer.len() >= bytes).then(|| (kind, answer.split_to(bytes)))
}

fn take_varint(buffer: &mut Bytes) -> Option<u64> {
    let bytes = 1 << (buffer.first()? >> 6);
    if buffer.len() < bytes {
        return None;
    }
    Some(buffer.get_uint(bytes) & ((1 << (8 * bytes - 2)) - 1))
}

/// Decodes the first field of a field section, which is `:status` in every answer (RFC 9114 section
/// 4.3).
fn decode_status(fields: &mut Bytes) -> Option<u16> {
    take_prefixed(fields, 8)?;
    take_prefixed(fields, 7)?;
    match fields.first()? {
        0xC0.. => return static_status(take_prefixed(fields, 6)?),
        // A literal with a name from the static table.
        0x50..=0x5F | 0x70..=0x7F => drop(take_prefixed(fields, 4)?),
        // A literal with a name in text.
        0x20..=0x3F => drop(take_text(fields, 3)?),
        _ => return None,
    }
    let is_huffman = fields.first()? & 0x80 != 0;
    let value = take_text(fields, 7)?;
    if is_huffman {
        huffman_digits(&value)
    } else {
        std::str::from_utf8(&value).ok()?.parse().ok()
    }
}

/// Takes a text off the fields, whose length stands in the low bits of the first byte.
fn take_text(fields: &mut Bytes, bits: u32) -> Option<Bytes> {
    let bytes = take_prefixed(fields, bits)?;
    (fields.len() >= bytes).then(|| fields.split_to(bytes))
}

/// Takes an integer off the fields (RFC 7541 section 5.1).
fn take_prefixed(fields: &mut Bytes, bits: u32) -> Option<usize> {
    let all_ones = (1_usize << bits) - 1;
    let mut value = usize::from(fields.try_get_u8().ok()?) & all_ones;
    let mut shift = 0;
    while value >= all_ones && shift < 28 {
        let byte = fields.try_get_u8().ok()?;
        value += usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

/// The status at a place of the static table (RFC 9204 appendix A).
fn static_status(index: usize) -> Option<u16> {
    const FROM_24: [u16; 5] = [103, 200, 304, 404, 503];
    const FROM_63: [u16; 9] = [100, 204, 206, 302, 400, 403, 421, 425, 500];
    let first = FROM_24.get(index.wrapping_sub(24));
    let status = first.or_else(|| FROM_63.get(index.wrapping_sub(63)));
    status.copied()
}

/// Three digits in the code of RFC 7541 appendix B: `0` to `2` have five bits, the others six.
fn huffman_digits(value: &[u8]) -> Option<u16> {
    let value = &value[..value.len().min(4)];
    let bits = value
        .iter()
        .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * value.len() as u32;
    let mut number = 0;
    for _ in 0..3 {
        let (digit, used) = huffman_digit(bits, left)?;
        number = number * 10 + digit as u16;
        left -= used;
    }
    (number < 1000).then_some(number)
}

/// The digit that the first of the `left` low bits are, and how many it has.
fn huffman_digit(bits: u32, left: u32) -> Option<(u32, u32)> {
    let five = bits >> left.checked_sub(5)? & 0x1f;
    if five <= 2 {
        return Some((five, 5));
    }
    let six = bits >> left.checked_sub(6)? & 0x3f;
    Some((six.checked_sub(0x16)?, 6))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(fields: &[u8]) -> Bytes {
        let mut answer = BytesMut::new();
        put_varint(&mut answer, FRAME_HEADERS);
        put_varint(&mut answer, fields.len() as u64 + 2);
        answer.put_slice(&[0, 0]);
        answer.put_slice(fields);
        answer.freeze()
    }

    #[test]
    fn a_status_is_read_in_every_form() {
        for (fields, status) in [
            (&[0xC0 | 25][..], 200),
            (&[0xFF, 64 - 63], 204),
            (b"\x5f\x09\x03429", 429),
            (b"\x27\x00:status\x03502", 502),
            (&[0x5f, 0x09, 0x83, 0x68, 0x4f, 0xff][..], 429), // Huffman: 011010 00010 011111
        ] {
            assert_eq!(
                parse_answer(answer(fields))
                    .ok()
                    .map(|answer| answer.status),
                Some(status),
                "{fields:x?}"
            );
        }
        let interim = [answer(&[0xFF, 63 - 63]), answer(&[0xC0 | 25])].concat();
        let answer = parse_answer(interim.into()).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in 0_u64..0x4000_0000, prefixed in 0_u64..1_000_000, bits in 3_u32..8) {
            let mut buffer = BytesMut::new();
            put_varint(&mut buffer, value);
            put_prefixed(&mut buffer, 0, bits, prefixed);
            let mut buffer = buffer.freeze();
            prop_assert_eq!(take_varint(&mut buffer), Some(value));
            prop_assert_eq!(take_prefixed(&mut buffer, bits), Some(prefixed as usize));
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn nonsense_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(answer) = parse_answer(bytes.into()) {
                prop_assert!(answer.status >= 200);
            }
        }
    }
}
