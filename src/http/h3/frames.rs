//! What a peer may have h3 keep: frames pass whole or not at all.
//!
//! h3 collects a frame to its declared end before it looks at it, however long it is, also one that it then ignores; and
//! it takes an empty DATA frame for the end of a body. [`Frames`] stands before it, in the streams of `quic`: DATA goes
//! through as it comes, never copied; the payload of another frame is kept until it is whole; frames without a meaning are
//! left out. A frame longer than [`FRAME_BYTES_MAX`], or a request with more than [`MEANINGLESS_MAX`] frames without a
//! meaning, is an [`Excess`], which the declared length tells before the frame has come. So nobody keeps more of a stream
//! than one such frame and one piece of the connection's window.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::http::HEAD_BYTES_MAX;

/// Payload of a frame other than DATA. A head may be too large by as much again, and get an answer that says so.
pub const FRAME_BYTES_MAX: u64 = 2 * HEAD_BYTES_MAX as u64;

/// Empty and unknown frames in one request: a few are sent to keep receivers tolerant (RFC 9114 section 7.2.8).
pub const MEANINGLESS_MAX: u32 = 32;

/// Frame types of RFC 9114 section 11.2.1, those that it reserves because of HTTP/2, and WebTransport's: h3 knows them,
/// and what becomes of them is its business.
const KNOWN: [u64; 12] = [
    DATA, HEADERS, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd, 0x41,
];
const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// The type of a control stream (RFC 9114 section 6.2.1).
const CONTROL: u64 = 0x0;

/// A frame that the stream's end has cut off, for h3 to find: the first byte of a number of two.
const CUT_OFF: &[u8] = &[0x40];

/// More than a peer has reason to send.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Excess {
    #[error("a frame is too long")]
    Frame,
    #[error("too many frames without a meaning")]
    Meaningless,
}

/// What the next byte of a stream is, and how many like it are left.
#[derive(Debug)]
enum Place {
    StreamType,
    Header,
    Data(u64),
    /// Payload that is kept until it is whole.
    Kept(u64),
    /// Payload that is left out.
    Ignored(u64),
    /// A stream without frames.
    Unframed,
}

/// The frames of one stream.
#[derive(Debug)]
pub struct Frames {
    place: Place,
    /// What has come of a header or a payload that is not whole.
    kept: BytesMut,
    meaningless_left: u32,
    /// Before it, DATA of any length is an error, which h3 finds.
    has_head: bool,
}

impl Frames {
    pub fn of_request() -> Self {
        Self {
            place: Place::Header,
            kept: BytesMut::new(),
            meaningless_left: MEANINGLESS_MAX,
            has_head: false,
        }
    }

    /// Of a stream in one direction. A control stream lives as long as its connection: frames without a meaning may
    /// always come on it.
    pub fn of_uni_stream() -> Self {
        Self {
            place: Place::StreamType,
            kept: BytesMut::new(),
            meaningless_left: u32::MAX,
            has_head: false,
        }
    }

    /// Takes from `input` until there is a piece for h3. When there is none, `input` is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Excess> {
        while input.has_remaining() {
            let piece = match self.place {
                Place::StreamType => self.take_stream_type(input),
                Place::Header => self.take_header(input)?,
                Place::Data(left) => self.take_data(left, input),
                Place::Kept(left) => self.take_kept(left, input),
                Place::Ignored(left) => self.ignore(left, input),
                Place::Unframed => Some(input.split_to(input.len())),
            };
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// To be given to h3 when the stream ends here: something, if the end is in the middle of what h3 has not seen.
    pub fn at_end(&mut self) -> Option<Bytes> {
        let is_cut_off = !self.kept.is_empty() || matches!(self.place, Place::Ignored(_));
        self.kept.clear();
        self.place = Place::Unframed;
        is_cut_off.then_some(Bytes::from_static(CUT_OFF))
    }

    fn take_stream_type(&mut self, input: &mut Bytes) -> Option<Bytes> {
        let (kind, bytes) = self.gather(input, varint)?;
        self.place = if kind == CONTROL {
            Place::Header
        } else {
            Place::Unframed
        };
        Some(bytes)
    }

    fn take_header(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Excess> {
        let Some(((kind, payload_bytes), header)) = self.gather(input, frame_header) else {
            return Ok(None);
        };
        let is_meaningless =
            !KNOWN.contains(&kind) || (kind == DATA && payload_bytes == 0 && self.has_head);
        if kind != DATA && payload_bytes > FRAME_BYTES_MAX {
            return Err(Excess::Frame);
        }
        if is_meaningless && self.meaningless_left == 0 {
            return Err(Excess::Meaningless);
        }
        self.place = match payload_bytes {
            0 => Place::Header,
            left if is_meaningless => Place::Ignored(left),
            left if kind == DATA => Place::Data(left),
            left => Place::Kept(left),
        };
        self.meaningless_left -= u32::from(is_meaningless);
        self.has_head |= kind == HEADERS;
        Ok((!is_meaningless).then_some(header))
    }

    fn take_data(&mut self, left: u64, input: &mut Bytes) -> Option<Bytes> {
        let piece = input.split_to(within(left, input));
        self.place = payload(left - piece.len() as u64, Place::Data);
        Some(piece)
    }

    /// Copies only what comes in several pieces.
    fn take_kept(&mut self, left: u64, input: &mut Bytes) -> Option<Bytes> {
        let piece = input.split_to(within(left, input));
        let left = left - piece.len() as u64;
        self.place = payload(left, Place::Kept);
        if left == 0 && self.kept.is_empty() {
            return Some(piece);
        }
        self.kept.extend_from_slice(&piece);
        (left == 0).then(|| std::mem::take(&mut self.kept).freeze())
    }

    fn ignore(&mut self, left: u64, input: &mut Bytes) -> Option<Bytes> {
        let ignored = within(left, input);
        input.advance(ignored);
        self.place = payload(left - ignored as u64, Place::Ignored);
        None
    }

    /// What `parse` finds at the start, and its bytes: at most sixteen, which are kept while they are not whole.
    fn gather<T>(
        &mut self,
        input: &mut Bytes,
        parse: impl Fn(&[u8]) -> Option<(T, usize)>,
    ) -> Option<(T, Bytes)> {
        if self.kept.is_empty()
            && let Some((value, bytes)) = parse(input)
        {
            return Some((value, input.split_to(bytes)));
        }
        while input.has_remaining() {
            self.kept.extend_from_slice(&[input.get_u8()]);
            if let Some((value, _)) = parse(&self.kept) {
                return Some((value, std::mem::take(&mut self.kept).freeze()));
            }
        }
        None
    }
}

/// How much of a payload's rest is at hand.
fn within(left: u64, input: &Bytes) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(input.len())
}

fn payload(left: u64, place: fn(u64) -> Place) -> Place {
    if left == 0 {
        Place::Header
    } else {
        place(left)
    }
}

/// Type and length of a frame (RFC 9114 section 7.1), and the bytes that say so; nothing while they are not whole.
fn frame_header(bytes: &[u8]) -> Option<((u64, u64), usize)> {
    let (kind, kind_bytes) = varint(bytes)?;
    let (payload_bytes, length_bytes) = varint(&bytes[kind_bytes..])?;
    Some(((kind, payload_bytes), kind_bytes + length_bytes))
}

/// RFC 9000 section 16, and its bytes: the first two bits say how many.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let whole = bytes.get(..1 << (first >> 6))?;
    let start = u64::from(first & 0b0011_1111);
    Some((
        whole[1..]
            .iter()
            .fold(start, |value, byte| value << 8 | u64::from(*byte)),
        whole.len(),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    const UNKNOWN: u64 = 0x21;

    #[derive(Clone, Debug)]
    struct Frame {
        kind: u64,
        payload: Vec<u8>,
        /// Its header, in any of the forms that it may have.
        header: Vec<u8>,
    }

    impl Frame {
        fn is_meaningless(&self) -> bool {
            self.kind == UNKNOWN || (self.kind == DATA && self.payload.is_empty())
        }

        fn bytes(&self) -> Vec<u8> {
            [&self.header[..], &self.payload].concat()
        }
    }

    /// A number in one, two, four or eight bytes, or more when it does not fit.
    fn encode(value: u64, log_bytes: u32) -> Vec<u8> {
        let log_bytes = (log_bytes..3)
            .find(|log_bytes| value >> ((8 << log_bytes) - 2) == 0)
            .unwrap_or(3);
        let bytes = 1 << log_bytes;
        let value = value | u64::from(log_bytes) << (8 * bytes - 2);
        value.to_be_bytes()[8 - bytes..].to_vec()
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let kinds = select(vec![DATA, HEADERS, 0x4, 0x5, UNKNOWN]);
        let payload = prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..200)];
        (kinds, payload, 0..4u32, 0..4u32).prop_map(|(kind, payload, kind_form, length_form)| {
            let header = [
                encode(kind, kind_form),
                encode(payload.len() as u64, length_form),
            ]
            .concat();
            Frame {
                kind,
                payload,
                header,
            }
        })
    }

    /// A request whose head has passed.
    fn after_head() -> Frames {
        let mut frames = Frames::of_request();
        assert_eq!(
            pass(&mut frames, &[HEADERS as u8, 0], &[]),
            Ok(vec![Bytes::from_static(&[HEADERS as u8, 0])])
        );
        frames
    }

    /// What comes out when these bytes come in, cut anywhere.
    fn pass(frames: &mut Frames, bytes: &[u8], cuts: &[Index]) -> Result<Vec<Bytes>, Excess> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        for cut in cuts.windows(2) {
            let mut input = Bytes::copy_from_slice(&bytes[cut[0]..cut[1]]);
            while let Some(piece) = frames.next(&mut input)? {
                pieces.push(piece);
            }
            assert!(input.is_empty());
        }
        Ok(pieces)
    }

    proptest! {
        #[test]
        fn what_has_a_meaning_passes_however_it_is_cut(
            sent in prop::collection::vec(frame(), 0..20),
            cuts in prop::collection::vec(any::<Index>(), 0..40),
        ) {
            let meant: Vec<&Frame> = sent.iter().filter(|frame| !frame.is_meaningless()).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::bytes).collect();
            let mut frames = after_head();
            let pieces = pass(&mut frames, &bytes, &cuts).expect("in bounds");
            prop_assert_eq!(pieces.concat(), meant.iter().flat_map(|frame| frame.bytes()).collect::<Vec<_>>());
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            for frame in meant.iter().filter(|frame| frame.kind != DATA && !frame.payload.is_empty()) {
                prop_assert!(pieces.contains(&Bytes::copy_from_slice(&frame.payload)), "a payload came in parts");
            }
            prop_assert_eq!(frames.at_end(), None);
        }

        /// h3 finds each end that is in the middle of a frame: by what it has been given, or by what it is given then.
        #[test]
        fn a_frame_that_is_cut_off_does_not_pass_for_a_whole_one(
            sent in prop::collection::vec(frame(), 1..8),
            end in any::<Index>(),
            cuts in prop::collection::vec(any::<Index>(), 0..10),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::bytes).collect();
            let end = end.index(bytes.len());
            let mut frames = after_head();
            let mut seen = pass(&mut frames, &bytes[..end], &cuts).expect("in bounds").concat();
            seen.extend(frames.at_end().unwrap_or_default());
            let ends = sent.iter().scan(0, |at, frame| { *at += frame.bytes().len(); Some(*at) });
            let is_cut_off = end > 0 && !ends.into_iter().any(|at| at == end);
            prop_assert_eq!(ends_in_the_middle(&seen), is_cut_off);
        }

        #[test]
        fn a_long_frame_is_refused_by_its_header(
            before in prop::collection::vec(frame(), 0..8),
            kind in select(vec![HEADERS, 0x4, 0x5, UNKNOWN]),
            over in 1..1u64 << 60,
            cuts in prop::collection::vec(any::<Index>(), 0..10),
        ) {
            let mut bytes: Vec<u8> = before.iter().flat_map(Frame::bytes).collect();
            bytes.extend([encode(kind, 0), encode(FRAME_BYTES_MAX + over, 0)].concat());
            prop_assert_eq!(pass(&mut after_head(), &bytes, &cuts), Err(Excess::Frame));
        }
    }

    /// As h3 sees it.
    fn ends_in_the_middle(mut seen: &[u8]) -> bool {
        while let Some(((_, payload_bytes), header_bytes)) = frame_header(seen) {
            match seen.get(header_bytes + payload_bytes as usize..) {
                Some(rest) => seen = rest,
                None => return true,
            }
        }
        !seen.is_empty()
    }

    #[test]
    fn frames_without_a_meaning_have_a_bound_in_a_request() {
        for meaningless in [[UNKNOWN as u8, 0], [DATA as u8, 0]] {
            let mut frames = after_head();
            assert_eq!(
                pass(
                    &mut frames,
                    &meaningless.repeat(MEANINGLESS_MAX as usize),
                    &[]
                ),
                Ok(vec![])
            );
            assert_eq!(
                pass(&mut frames, &meaningless, &[]),
                Err(Excess::Meaningless)
            );
        }
        let mut control = Frames::of_uni_stream();
        assert_eq!(
            pass(&mut control, &[CONTROL as u8], &[]),
            Ok(vec![Bytes::from_static(&[CONTROL as u8])])
        );
        assert_eq!(
            pass(
                &mut control,
                &[UNKNOWN as u8, 0].repeat(2 * MEANINGLESS_MAX as usize),
                &[]
            ),
            Ok(vec![])
        );
    }

    /// It is an error even when it is empty, which is for h3 to say.
    #[test]
    fn data_without_a_head_passes() {
        for (mut frames, before) in [
            (Frames::of_request(), &[][..]),
            (Frames::of_uni_stream(), &[CONTROL as u8]),
        ] {
            let bytes = [before, &[DATA as u8, 0]].concat();
            assert_eq!(
                pass(&mut frames, &bytes, &[]).expect("in bounds").concat(),
                bytes
            );
        }
    }

    #[test]
    fn a_stream_that_is_not_for_control_has_no_frames() {
        let encoder = [0x2, 0x21, 0xff, 0xff];
        let seen = pass(&mut Frames::of_uni_stream(), &encoder, &[]).expect("no frames, no excess");
        assert_eq!(seen.concat(), encoder);
    }
}
