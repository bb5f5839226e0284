//! The instructions that a client may send on its QPACK streams to a server without a dynamic
//! table.
//!
//! The gateway offers no table and uses none, so most instructions are errors of the connection
//! (RFC 9204 section 6): on the encoder's stream only the capacity of 0 may be set, on the
//! decoder's only a stream may be given up. h3 reads neither stream; `quic::uni` hands their bytes
//! to [`Instructions`], which keeps no more than one number's length.

use h3::error::Code;

/// Bytes that continue an integer: more would be beyond 62 bits.
const CONTINUED_MAX: u8 = 9;

/// Set Dynamic Table Capacity, to 0 (RFC 9204 section 4.3.1).
const NO_CAPACITY: u8 = 0b0010_0000;

/// Stream Cancellation, and the bits of it that begin the stream's number (RFC 9204 section 4.4.2).
const STREAM_CANCELLATION: u8 = 0b0100_0000;
const STREAM_ID: u8 = 0b0011_1111;

const _: () = assert!(STREAM_CANCELLATION & STREAM_ID == 0);

/// The two streams of QPACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Encoder,
    Decoder,
}

/// An instruction that has no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced(Side);

impl Misplaced {
    pub(crate) fn code(self) -> Code {
        match self.0 {
            Side::Encoder => Code::QPACK_ENCODER_STREAM_ERROR,
            Side::Decoder => Code::QPACK_DECODER_STREAM_ERROR,
        }
    }
}

/// The instructions of one stream, up to the last byte that has come.
#[derive(Debug)]
pub struct Instructions {
    side: Side,
    /// Bytes that the integer under way may still have; 0 between two instructions.
    continued_left: u8,
}

impl Instructions {
    pub fn of(side: Side) -> Self {
        Self {
            side,
            continued_left: 0,
        }
    }

    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Misplaced> {
        for byte in bytes {
            self.take_byte(*byte)?;
        }
        Ok(())
    }

    fn take_byte(&mut self, byte: u8) -> Result<(), Misplaced> {
        if self.continued_left > 0 {
            return self.go_on(byte);
        }
        match self.side {
            Side::Encoder if byte == NO_CAPACITY => Ok(()),
            Side::Decoder if byte & !STREAM_ID == STREAM_CANCELLATION => {
                if byte & STREAM_ID == STREAM_ID {
                    self.continued_left = CONTINUED_MAX;
                }
                Ok(())
            }
            Side::Encoder | Side::Decoder => Err(Misplaced(self.side)),
        }
    }

    /// Takes a byte of the integer that is under way.
    fn go_on(&mut self, byte: u8) -> Result<(), Misplaced> {
        let goes_on = byte & 0x80 != 0;
        self.continued_left = if goes_on { self.continued_left - 1 } else { 0 };
        if goes_on && self.continued_left == 0 {
            return Err(Misplaced(self.side));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(side: Side, bytes: &[u8]) -> Result<(), Misplaced> {
        Instructions::of(side).take(bytes)
    }

    #[test]
    fn a_client_without_a_table_says_this() {
        assert_eq!(take(Side::Encoder, &[0x20, 0x20]), Ok(()));
        assert_eq!(
            take(Side::Decoder, &[0x40, 0x7e, 0x7f, 0x80, 0x01, 0x44]),
            Ok(())
        );
    }

    /// A capacity, an insertion by either name, a duplicate; an acknowledgement, an increment, a
    /// number without end.
    #[test]
    fn everything_else_has_no_place() {
        for byte in [0x21, 0x3f, 0xc0, 0x80, 0x40, 0x00] {
            let misplaced = take(Side::Encoder, &[0x20, byte]).unwrap_err();
            assert_eq!(misplaced.code(), Code::QPACK_ENCODER_STREAM_ERROR);
        }
        for bytes in [
            &[0x80][..],
            &[0x01],
            &[0x00],
            &[&[0x7f][..], &[0x80; 10]].concat(),
        ] {
            let misplaced = take(Side::Decoder, bytes).unwrap_err();
            assert_eq!(misplaced.code(), Code::QPACK_DECODER_STREAM_ERROR);
        }
    }
}
