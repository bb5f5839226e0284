//! The chunked transfer coding (RFC 9112 section 7.1), fed with bytes as they arrive.
//!
//! Strict where readers differ: lines end in CR LF, a size is 1 to 16 hex digits, nothing stands
//! before it. Chunk extensions and trailers are read and ignored, [`IGNORED_BYTES_MAX`] of them in
//! one body.

use std::ops::Range;

/// Bytes of chunk extensions and trailers in one body.
const IGNORED_BYTES_MAX: usize = 4096;

/// Most hex digits of a chunk's size: 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

const _: () = assert!(SIZE_DIGITS_MAX as u32 * 4 == u64::BITS);

/// The framing is broken: nothing after this can be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct BrokenFraming;

/// Kind of the body's next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// The first digit of a size.
    #[default]
    Size,
    /// Another digit of a size, or its end, after so many digits.
    MoreSize(u8),
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The beginning of a trailer or of the last line.
    Line,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

/// A body that is being decoded.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    next: Next,
    /// Bytes of the current chunk that are to come.
    left: u64,
    ignored_bytes: usize,
}

/// Progress of the decoder in its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub consumed_bytes: usize,
    /// The data in the input; empty if there was only framing.
    pub data: Range<usize>,
}

impl Step {
    /// Returns a step that has read everything up to the end of the data.
    fn of(data: Range<usize>) -> Self {
        Self {
            consumed_bytes: data.end,
            data,
        }
    }
}

impl Chunked {
    pub fn is_ended(&self) -> bool {
        self.next == Next::End
    }

    /// Whether there was more than data, which another reader may have read in another way.
    pub fn is_odd(&self) -> bool {
        self.ignored_bytes > 0
    }

    /// Reads up to the end of the first piece of data, of the body, or of the input.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BrokenFraming> {
        for (at, byte) in input.iter().enumerate() {
            match self.next {
                Next::End => return Ok(Step::of(at..at)),
                Next::Data => return Ok(self.data(at, input.len())),
                _ => self.framing(*byte)?,
            }
        }
        Ok(Step::of(input.len()..input.len()))
    }

    /// Takes the data that begins at `at`, to the end of the chunk or of the input.
    fn data(&mut self, at: usize, end: usize) -> Step {
        debug_assert!(self.left > 0, "a chunk of no bytes has no data");
        let bytes = usize::try_from(self.left).map_or(end - at, |left| left.min(end - at));
        self.left -= bytes as u64;
        if self.left == 0 {
            self.next = Next::DataCr;
        }
        Step::of(at..at + bytes)
    }

    /// Reads a byte of framing, and notes the kind of the next.
    fn framing(&mut self, byte: u8) -> Result<(), BrokenFraming> {
        self.next = match self.next {
            Next::Size => self.digit(byte, 1)?,
            Next::MoreSize(digits) => self.size(byte, digits)?,
            Next::Extension => self.line(byte, Next::Extension, Next::SizeLf)?,
            Next::SizeLf => only(b'\n', byte, self.after_size())?,
            Next::DataCr => only(b'\r', byte, Next::DataLf)?,
            Next::DataLf => only(b'\n', byte, Next::Size)?,
            Next::Line => self.line(byte, Next::Trailer, Next::LastLf)?,
            Next::Trailer => self.line(byte, Next::Trailer, Next::TrailerLf)?,
            Next::TrailerLf => only(b'\n', byte, Next::Line)?,
            Next::LastLf => only(b'\n', byte, Next::End)?,
            Next::Data | Next::End => return Err(BrokenFraming),
        };
        Ok(())
    }

    /// Reads the rest of a size, after so many digits.
    fn size(&mut self, byte: u8, digits: u8) -> Result<Next, BrokenFraming> {
        match byte {
            b'\r' => Ok(Next::SizeLf),
            b';' => self.ignore(byte, Next::Extension),
            digit => self.digit(digit, digits + 1),
        }
    }

    /// Returns the kind of the byte behind a size. A chunk of no bytes is the last one.
    fn after_size(&self) -> Next {
        if self.left == 0 {
            Next::Line
        } else {
            Next::Data
        }
    }

    /// Reads a byte of text that is ignored, or the CR that ends it.
    fn line(&mut self, byte: u8, next: Next, at_cr: Next) -> Result<Next, BrokenFraming> {
        if byte == b'\r' {
            Ok(at_cr)
        } else {
            self.ignore(byte, next)
        }
    }

    fn digit(&mut self, byte: u8, digits: u8) -> Result<Next, BrokenFraming> {
        let digit = char::from(byte).to_digit(16).ok_or(BrokenFraming)?;
        if digits > SIZE_DIGITS_MAX {
            return Err(BrokenFraming);
        }
        debug_assert!(self.left >> 60 == 0, "16 digits are 64 bits");
        self.left = self.left << 4 | u64::from(digit);
        Ok(Next::MoreSize(digits))
    }

    fn ignore(&mut self, byte: u8, next: Next) -> Result<Next, BrokenFraming> {
        self.ignored_bytes += 1;
        let is_text = byte == b'\t' || !byte.is_ascii_control();
        if is_text && self.ignored_bytes <= IGNORED_BYTES_MAX {
            Ok(next)
        } else {
            Err(BrokenFraming)
        }
    }
}

/// Returns `next` if the byte is the only one that may stand here.
fn only(wanted: u8, byte: u8, next: Next) -> Result<Next, BrokenFraming> {
    if byte == wanted {
        Ok(next)
    } else {
        Err(BrokenFraming)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the data, and how much of the input was the body; `None` if the input ended before
    /// it.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), BrokenFraming> {
        let (mut decoder, mut data, mut consumed) = (Chunked::default(), Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !decoder.is_ended() {
                let step = decoder.decode(rest)?;
                data.extend_from_slice(&rest[step.data]);
                rest = &rest[step.consumed_bytes..];
                consumed += step.consumed_bytes;
            }
        }
        Ok((data, decoder.is_ended().then_some(consumed)))
    }

    #[test]
    fn odd_framing_is_refused() {
        let too_much = format!("0;{}\r\n\r\n", "x".repeat(IGNORED_BYTES_MAX + 1));
        for body in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            ";x\r\nabc\r\n0\r\n\r\n",
            "00000000000000003\r\nabc\r\n0\r\n\r\n",
            "3;x\ny\r\nabc\r\n0\r\n\r\n",
            "0\r\n\n",
            "0\r\nx: 1\n\r\n",
            &too_much,
        ] {
            assert_eq!(decode(&[body.as_bytes()]), Err(BrokenFraming), "{body:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_ignored() {
        let body = b"3;a=\"b\"\r\nabc\r\n0\r\nx: 1\r\ny: 2\r\n\r\nPOST";
        assert_eq!(decode(&[body]), Ok((b"abc".to_vec(), Some(body.len() - 4))));
    }

    #[test]
    fn more_than_data_is_odd() {
        let is_odd = |body: &[u8]| {
            let (mut decoder, mut read) = (Chunked::default(), 0);
            while read < body.len() {
                read += decoder.decode(&body[read..]).unwrap().consumed_bytes;
            }
            assert!(decoder.is_ended());
            decoder.is_odd()
        };
        assert!(!is_odd(b"003\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n"));
        for odd in ["1;\r\na\r\n0\r\n\r\n", "0;x\r\n\r\n", "0\r\nx: 1\r\n\r\n"] {
            assert!(is_odd(odd.as_bytes()), "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in_wherever_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            rest in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend_from_slice(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let body_bytes = body.len();
            body.extend(rest);
            let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            places.extend([0, body.len()]);
            places.sort_unstable();
            let pieces: Vec<_> = places.windows(2).map(|ends| &body[ends[0]..ends[1]]).collect();
            prop_assert_eq!(decode(&pieces), Ok((chunks.concat(), Some(body_bytes))));
        }

        #[test]
        fn no_input_is_too_odd(input in prop::collection::vec(prop::sample::select(&b"0123aF;\r\n \tx"[..]), 0..60)) {
            let _ = decode(&[&input]);
        }
    }
}
