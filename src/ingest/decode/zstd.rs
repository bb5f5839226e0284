//! zstd (RFC 8878), by the library that everybody uses.

use bytes::{Buf, Bytes};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Damaged, Step};

/// The largest window, 8 MiB, as a power of two (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;

/// A decoder of zstd frames, one after the other.
pub struct Zstd {
    context: DCtx<'static>,
    input: Bytes,
    /// A frame has begun and not ended.
    is_within: bool,
}

impl Default for Zstd {
    fn default() -> Self {
        let mut context = DCtx::create();
        let set = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        assert!(set.is_ok(), "the library knows larger windows than this");
        Self {
            context,
            input: Bytes::new(),
            is_within: false,
        }
    }
}

impl Zstd {
    pub(super) fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty(), "it is fed when it is hungry");
        self.input = input;
    }

    /// Decodes to the end of a frame at most.
    pub(super) fn step(&mut self, room: &mut [u8]) -> Result<Step, Damaged> {
        if self.input.is_empty() && !self.is_within {
            return Ok(Step {
                written_bytes: 0,
                is_hungry: true,
            });
        }
        let room_bytes = room.len();
        let mut output = OutBuffer::around(room);
        let mut input = InBuffer::around(&self.input);
        let left = self.context.decompress_stream(&mut output, &mut input);
        let (written_bytes, read_bytes) = (output.pos(), input.pos());
        self.input.advance(read_bytes);
        self.is_within = left.map_err(|_| Damaged)? > 0;
        Ok(Step {
            written_bytes,
            // If there is room left, nothing waits in the decoder.
            is_hungry: self.input.is_empty() && written_bytes < room_bytes,
        })
    }

    pub(super) fn is_at_end(&self) -> bool {
        !self.is_within && self.input.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.context.sizeof()
    }
}
