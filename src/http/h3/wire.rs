//! Numbers of the wire: QUIC's variable-length integers, and QPACK's with a prefix.

/// Parses a variable-length integer (RFC 9000 section 16), and counts its bytes; `None` while they
/// are not whole.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    // The first two bits say how many bytes there are.
    let whole = bytes.get(..1 << (first >> 6))?;
    let mut value = u64::from(first & 0b0011_1111);
    for byte in &whole[1..] {
        value = value << 8 | u64::from(*byte);
    }
    Some((value, whole.len()))
}

/// The largest integer that QPACK must be able to carry (RFC 9204 section 4.1.1).
const PREFIXED_MAX: u64 = (1 << 62) - 1;

/// Bytes beyond the prefix of such an integer: with more, it would be larger, or padded without
/// end.
const CONTINUED_BYTES_MAX: usize = 9;

const _: () = assert!(CONTINUED_BYTES_MAX * 7 < u64::BITS as usize);

/// Parses an integer whose first byte has a prefix of so many bits (RFC 7541 section 5.1), and
/// counts its bytes; `None` if it does not end, or is too large to be one.
pub(crate) fn prefixed(bytes: &[u8], prefix_bits: u32) -> Option<(u64, usize)> {
    debug_assert!((1..=8).contains(&prefix_bits));
    let mask = (1_u64 << prefix_bits) - 1;
    let prefix = u64::from(*bytes.first()?) & mask;
    if prefix < mask {
        return Some((prefix, 1));
    }
    let (rest, rest_bytes) = continued(&bytes[1..])?;
    let value = mask + rest;
    (value <= PREFIXED_MAX).then_some((value, 1 + rest_bytes))
}

/// Reads the part of an integer beyond a full prefix, seven bits a byte.
fn continued(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(CONTINUED_BYTES_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 appendix A.1, and RFC 7541 appendix C.1.
    #[test]
    fn the_examples_of_the_standards() {
        assert_eq!(varint(&[0x25]), Some((37, 1)));
        assert_eq!(varint(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(
            varint(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            Some((151_288_809_941_952_652, 8))
        );
        assert_eq!(varint(&[0x7b]), None);
        assert_eq!(prefixed(&[0b1110_1010], 5), Some((10, 1)));
        assert_eq!(prefixed(&[0b0001_1111, 0x9a, 0x0a], 5), Some((1337, 3)));
        assert_eq!(prefixed(&[42], 8), Some((42, 1)));
    }

    #[test]
    fn what_does_not_end_or_fit_is_no_integer() {
        assert_eq!(prefixed(&[], 8), None);
        assert_eq!(prefixed(&[0xff, 0x80], 8), None);
        assert_eq!(prefixed(&[0xff; 20], 8), None);
        let padded = [&[0xff][..], &[0x80; 9], &[0]].concat();
        assert_eq!(prefixed(&padded, 8), None);
        assert_eq!(prefixed(&[0xff, 0x80, 0], 8), Some((255, 3)));
    }
}
