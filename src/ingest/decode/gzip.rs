//! gzip (RFC 1952), by flate2, which reads heads, checksums and the data between them.

use std::io::{self, BufRead, ErrorKind, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::GzDecoder;

use super::{Damaged, Step};

/// Bytes that a decoder counts for: its window of 32 KiB, its tables and its state.
pub(crate) const BYTES: usize = 64 * 1024;

/// A decoder of gzip members, one after the other.
pub struct Gzip {
    member: GzDecoder<Input>,
    /// A member has begun and not ended.
    is_within: bool,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            member: GzDecoder::new(Input::default()),
            is_within: false,
        }
    }
}

impl Gzip {
    pub(super) fn feed(&mut self, input: Bytes) {
        let left = &mut self.member.get_mut().0;
        debug_assert!(left.is_empty(), "it is fed when it is hungry");
        *left = input;
    }

    pub(super) fn step(&mut self, room: &mut [u8]) -> Result<Step, Damaged> {
        if !self.begin_member() {
            return Ok(HUNGRY);
        }
        match self.member.read(room) {
            Ok(0) => self.is_within = false,
            Ok(written_bytes) => {
                return Ok(Step {
                    written_bytes,
                    is_hungry: false,
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(HUNGRY),
            Err(_) => return Err(Damaged),
        }
        Ok(Step {
            written_bytes: 0,
            is_hungry: self.member.get_ref().0.is_empty(),
        })
    }

    /// Begins the next member where the last one has ended; `false` where nothing has come of it.
    fn begin_member(&mut self) -> bool {
        if !self.is_within {
            let input = std::mem::take(&mut self.member.get_mut().0);
            self.is_within = !input.is_empty();
            if self.is_within {
                self.member.reset(Input(input));
            }
        }
        self.is_within
    }

    pub(super) fn is_at_end(&self) -> bool {
        !self.is_within && self.member.get_ref().0.is_empty()
    }
}

const HUNGRY: Step = Step {
    written_bytes: 0,
    is_hungry: true,
};

/// Input that has come and was not read. There is never an end to it: the next piece may be on its
/// way.
#[derive(Debug, Default)]
struct Input(Bytes);

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(&self.0)
    }

    fn consume(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.len().min(into.len());
        self.0.copy_to_slice(&mut into[..bytes]);
        Ok(bytes)
    }
}
