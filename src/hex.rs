//! Hexadecimal digits, as keys and fingerprints are written.

/// The value of a hex digit, in either case; `None` for anything else.
pub(crate) fn digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    Some(value as u8)
}

/// The bytes that a text of exactly two digits each has; `None` for anything else.
pub(crate) fn bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
