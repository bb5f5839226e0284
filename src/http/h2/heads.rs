//! The beginning and the end of each head on an h2 connection, seen as their frames pass.
//!
//! A head goes on in CONTINUATION frames, and the library bounds neither its time nor, without
//! ending the connection by a COMPRESSION_ERROR, its bytes. So [`super::metered`] shows each byte
//! to [`Frames`] before the library reads it. Only frame headers (RFC 9113 section 4.1) are
//! understood; the content of a head is the library's affair.

use tokio::time::Instant;

/// Most bytes of one head on the wire, its padding included. A frame of it that is larger than
/// [`super::HEAD_LIST_BYTES`] with the rest of the one before would be a COMPRESSION_ERROR to the
/// library.
pub(crate) const HEAD_BLOCK_BYTES_MAX: usize = super::HEAD_LIST_BYTES as usize - FRAME_HEADER_BYTES;

const FRAME_HEADER_BYTES: usize = 9;

/// `PRI * HTTP/2.0` and its empty lines (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

const _: () = assert!(HEAD_BLOCK_BYTES_MAX > 0);

/// Types and a flag of frames that make up heads (RFC 9113 sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A head that is arriving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    /// There is none.
    #[default]
    Whole,
    Open {
        /// Bytes that its frames so far announce.
        block_bytes: usize,
        /// Whether the frame that is arriving ends it.
        is_last: bool,
        /// Time at which it was first found incomplete.
        since: Option<Instant>,
    },
    /// More is announced than is read: the connection is at its end.
    TooLarge,
}

/// The frames of one connection, up to the last byte that has arrived.
pub(crate) struct Frames {
    header: [u8; FRAME_HEADER_BYTES],
    header_bytes: usize,
    /// Bytes that are to come of the frame's payload, or of the preface.
    payload_bytes: usize,
    head: Head,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            header: [0; FRAME_HEADER_BYTES],
            header_bytes: 0,
            payload_bytes: PREFACE_BYTES,
            head: Head::Whole,
        }
    }
}

impl Frames {
    /// Passes the bytes that have arrived, and returns the head that is arriving then.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Head {
        while !bytes.is_empty() {
            let count = if self.payload_bytes > 0 {
                self.pass_payload(bytes)
            } else {
                self.pass_header(bytes)
            };
            bytes = &bytes[count..];
        }
        // The clock is read only here: most heads arrive whole.
        if let Head::Open {
            since: since @ None,
            ..
        } = &mut self.head
        {
            *since = Some(Instant::now());
        }
        self.head
    }

    /// Passes bytes of a payload, or of the preface; gives how many.
    fn pass_payload(&mut self, bytes: &[u8]) -> usize {
        let count = self.payload_bytes.min(bytes.len());
        self.payload_bytes -= count;
        if self.payload_bytes == 0 {
            self.end_frame();
        }
        count
    }

    /// Gathers bytes of a frame's header; gives how many.
    fn pass_header(&mut self, bytes: &[u8]) -> usize {
        debug_assert!(self.header_bytes < FRAME_HEADER_BYTES);
        let rest = &mut self.header[self.header_bytes..];
        let count = rest.len().min(bytes.len());
        rest[..count].copy_from_slice(&bytes[..count]);
        self.header_bytes += count;
        if self.header_bytes == FRAME_HEADER_BYTES {
            self.header_bytes = 0;
            self.begin_frame();
        }
        count
    }

    fn begin_frame(&mut self) {
        debug_assert_eq!(self.payload_bytes, 0, "the last frame has ended");
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.head = self.head.and(self.payload_bytes, flags & END_HEADERS != 0);
        }
        if self.payload_bytes == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        debug_assert_eq!(self.payload_bytes, 0, "its last byte has passed");
        if matches!(self.head, Head::Open { is_last: true, .. }) {
            self.head = Head::Whole;
        }
    }
}

impl Head {
    /// Returns the time at which a head that goes on was first found incomplete.
    pub(crate) fn open_since(self) -> Option<Instant> {
        match self {
            Self::Open { since, .. } => since,
            Self::Whole | Self::TooLarge => None,
        }
    }

    /// Returns the head with one more frame.
    fn and(self, bytes: usize, is_last: bool) -> Self {
        let (block_bytes, since) = match self {
            Self::Whole => (bytes, None),
            Self::Open {
                block_bytes, since, ..
            } => (block_bytes + bytes, since),
            Self::TooLarge => return Self::TooLarge,
        };
        if block_bytes > HEAD_BLOCK_BYTES_MAX {
            return Self::TooLarge;
        }
        Self::Open {
            block_bytes,
            is_last,
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, payload_bytes: usize) -> Vec<u8> {
        let length = u32::try_from(payload_bytes).unwrap().to_be_bytes();
        let header = [&length[1..], &[kind, flags], &[0, 0, 0, 1]].concat();
        [header, vec![b'x'; payload_bytes]].concat()
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [vec![b'P'; PREFACE_BYTES], frames.concat()].concat()
    }

    fn block_bytes(head: Head) -> Option<usize> {
        match head {
            Head::Open { block_bytes, .. } => Some(block_bytes),
            Head::Whole | Head::TooLarge => None,
        }
    }

    proptest! {
        /// A head is open from its first frame's header to its last byte, wherever the bytes that
        /// arrive are cut.
        #[test]
        fn a_head_is_open_until_it_has_ended(cut in 0_usize..1000) {
            let frames = [
                frame(DATA, 0, 30),
                frame(HEADERS, 0, 20),
                frame(CONTINUATION, 0, 0),
                frame(CONTINUATION, END_HEADERS, 10),
                frame(HEADERS, END_HEADERS, 0),
                frame(DATA, END_HEADERS, 7),
            ];
            let begins = PREFACE_BYTES + 39 + FRAME_HEADER_BYTES;
            let ends = PREFACE_BYTES + 39 + 29 + 9 + 19;
            let bytes = connection(&frames);
            let cut = cut % bytes.len();
            let mut passed = Frames::default();
            let head = passed.pass(&bytes[..cut]);
            prop_assert_eq!(block_bytes(head).is_some(), (begins..ends).contains(&cut));
            prop_assert_eq!(passed.pass(&bytes[cut..]), Head::Whole);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_head_is_its_own() {
        let mut frames = Frames::default();
        let head = frame(HEADERS, END_HEADERS, 2);
        let began_at = Instant::now();
        let since = |head| match head {
            Head::Open { since, .. } => since,
            _ => None,
        };
        let first = frames.pass(&connection(&[head[..10].to_vec()]));
        assert_eq!(since(first), Some(began_at));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let second = frames.pass(&[&head[10..], &head[..10]].concat());
        assert_eq!(since(second), Some(Instant::now()));
        assert_eq!(since(frames.pass(b"")), since(second));
    }

    #[test]
    fn a_head_has_so_many_bytes() {
        let rest = HEAD_BLOCK_BYTES_MAX - 16_384;
        let head = |more| connection(&[frame(HEADERS, 0, 16_384), frame(CONTINUATION, 0, more)]);
        let passed = |bytes: &[u8]| Frames::default().pass(bytes);
        assert_eq!(block_bytes(passed(&head(rest))), Some(HEAD_BLOCK_BYTES_MAX));
        assert_eq!(passed(&head(rest + 1)), Head::TooLarge);
    }
}
