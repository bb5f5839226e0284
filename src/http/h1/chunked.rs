//! The chunked transfer coding (RFC 9112 section 7.1), fed with bytes as they arrive.
//!
//! Strict where readers differ: lines end in CR LF, a size is 1 to 16 hex digits, nothing stands before it. Chunk
//! extensions and trailers are read and ignored, [`IGNORED_BYTES_MAX`] of them in one body.

use std::ops::Range;

/// Bytes of chunk extensions and trailers in one body.
const IGNORED_BYTES_MAX: usize = 4096;

/// The framing is broken: nothing after this can be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct BrokenFraming;

/// What comes next in the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// A digit of the size, when there have been so many.
    #[default]
    Size,
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

/// One body.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    next: Next,
    /// Of the current chunk.
    left: u64,
    ignored_bytes: usize,
}

/// How far the decoder came in its input.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub consumed_bytes: usize,
    /// Where in the input there is data; empty where there was only framing.
    pub data: Range<usize>,
}

impl Chunked {
    pub fn is_ended(&self) -> bool {
        self.next == Next::End
    }

    /// There was more than data, which somebody else may have read in another way.
    pub fn is_odd(&self) -> bool {
        self.ignored_bytes > 0
    }

    /// Reads up to the end of the first piece of data, of the body, or of the input.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BrokenFraming> {
        for (at, byte) in input.iter().enumerate() {
            match self.next {
                Next::End => {
                    return Ok(Step {
                        consumed_bytes: at,
                        data: at..at,
                    });
                }
                Next::Data => return Ok(self.data(at, input.len())),
                _ => self.framing(*byte)?,
            }
        }
        Ok(Step {
            consumed_bytes: input.len(),
            data: 0..0,
        })
    }

    fn data(&mut self, at: usize, end: usize) -> Step {
        let bytes = usize::try_from(self.left).map_or(end - at, |left| left.min(end - at));
        self.left -= bytes as u64;
        if self.left == 0 {
            self.next = Next::DataCr;
        }
        Step {
            consumed_bytes: at + bytes,
            data: at..at + bytes,
        }
    }

    fn framing(&mut self, byte: u8) -> Result<(), BrokenFraming> {
        self.next = match (self.next, byte) {
            (Next::Size, digit) => self.digit(digit, 1)?,
            (Next::MoreSize(_), b'\r') => Next::SizeLf,
            (Next::MoreSize(_), b';') => self.ignore(byte, Next::Extension)?,
            (Next::MoreSize(digits), digit) => self.digit(digit, digits + 1)?,
            (Next::Extension, b'\r') => Next::SizeLf,
            (Next::Extension, byte) => self.ignore(byte, Next::Extension)?,
            (Next::SizeLf, b'\n') if self.left == 0 => Next::Line,
            (Next::SizeLf, b'\n') => Next::Data,
            (Next::DataCr, b'\r') => Next::DataLf,
            (Next::DataLf, b'\n') => Next::Size,
            (Next::Line, b'\r') => Next::LastLf,
            (Next::Line, byte) => self.ignore(byte, Next::Trailer)?,
            (Next::Trailer, b'\r') => Next::TrailerLf,
            (Next::Trailer, byte) => self.ignore(byte, Next::Trailer)?,
            (Next::TrailerLf, b'\n') => Next::Line,
            (Next::LastLf, b'\n') => Next::End,
            _ => return Err(BrokenFraming),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8, digits: u8) -> Result<Next, BrokenFraming> {
        let digit = char::from(byte)
            .to_digit(16)
            .filter(|_| digits <= 16)
            .ok_or(BrokenFraming)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data, and how much of the input was the body; `None` when the input ended before it.
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
