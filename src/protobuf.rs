//! Fields of protobuf messages, as the wire has them
//! (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! For the few messages that are written by hand: aggregates of Kinesis, and refusals of OTLP. Field
//! numbers are below 16, so that the head of a field is a byte and its length. Nothing here decodes.

/// A field of wire type 0: a number.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u8, number: usize) {
    out.push(field << 3);
    put_varint(out, number);
}

/// A field of wire type 2: bytes, text or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// The head of a field of wire type 2 whose content has so many bytes.
pub(crate) fn put_head(out: &mut Vec<u8>, field: u8, bytes: usize) {
    debug_assert!(field < 16, "its number and type are one byte");
    out.push(field << 3 | 2);
    put_varint(out, bytes);
}

/// Seven bits a byte, the lowest first; all bytes but the last have the highest bit set.
fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
