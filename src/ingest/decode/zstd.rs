//! zstd (RFC 8878), by the library that everybody uses.

use bytes::Bytes;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Damaged, Step};

/// The largest window, 8 MiB, as a power of two (RFC 9659).
const WINDOW_LOG_MAX: u32 = 23;

/// The most bytes of a frame's head, its magic number included (RFC 8878 section 3.1.1.1).
const HEAD_BYTES_MAX: usize = 18;

/// A decoder of zstd frames, one after the other.
pub struct Zstd {
    context: DCtx<'static>,
    input: Bytes,
    /// The frame that has begun and not ended.
    frame: Option<Frame>,
}

/// A frame that is being decoded. The library holds some frames to the size that they declare, but
/// none that ends with an empty block, unless it comes whole: what is damaged would depend on the
/// pieces in which it comes.
#[derive(Default)]
struct Frame {
    /// The frame's first bytes: at least its head, once it has ended.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    decoded_bytes: u64,
}

impl Frame {
    fn advance(&mut self, read: &[u8], written_bytes: usize) {
        let missing = &mut self.head[self.head_bytes..];
        let bytes = missing.len().min(read.len());
        missing[..bytes].copy_from_slice(&read[..bytes]);
        self.head_bytes += bytes;
        self.decoded_bytes += written_bytes as u64;
    }

    /// Checks, at its end, that the frame has given what it declared, if it declared anything.
    fn finish(self) -> Result<(), Damaged> {
        match zstd_safe::get_frame_content_size(&self.head[..self.head_bytes]) {
            Ok(declared) if declared.is_none_or(|bytes| bytes == self.decoded_bytes) => Ok(()),
            _ => Err(Damaged),
        }
    }
}

impl Default for Zstd {
    fn default() -> Self {
        let mut context = DCtx::create();
        let set = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        assert!(set.is_ok(), "the library knows larger windows than this");
        Self {
            context,
            input: Bytes::new(),
            frame: None,
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
        if self.is_at_end() {
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
        let read = self.input.split_to(read_bytes);
        let mut frame = self.frame.take().unwrap_or_default();
        frame.advance(&read, written_bytes);
        match left.map_err(|_| Damaged)? {
            0 => frame.finish()?,
            _ => self.frame = Some(frame),
        }
        Ok(Step {
            written_bytes,
            // If there is room left, nothing waits in the decoder.
            is_hungry: self.input.is_empty() && written_bytes < room_bytes,
        })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.frame.is_none() && self.input.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.context.sizeof()
    }
}
