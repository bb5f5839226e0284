//! A filter before h3 of the frames that a peer may have it keep or act on: they pass whole or not
//! at all.
//!
//! h3 collects a frame to its declared end before it looks at it, however long it is, even a frame
//! that it then ignores; it takes an empty DATA frame for the end of a body, and panics over one
//! that is cut off. [`Frames`] stands before it, in the streams of `quic`: DATA goes through as it
//! comes, never copied; the payload of another frame is kept until it is whole; frames without a
//! meaning are left out. Field sections are looked at (`fields`) as they pass, and the frames about
//! pushes on the control stream, of which there are none, are checked and left out: a client's
//! GOAWAY, for which h3 would drop the answers in flight, among them. So no more of a stream is
//! kept than one frame of [`FRAME_BYTES_MAX`] and one piece of the connection's window. A frame
//! that breaks a rule is a [`Fault`], and then nothing passes any more.

use bytes::{Buf, Bytes, BytesMut};

pub use super::fault::Fault;
use super::fields::{self, Section};
use super::wire::varint;
use crate::http::HEAD_BYTES_MAX;

/// Payload of a frame other than DATA. A head may be too large by as much again, and get an answer
/// that says so.
pub(crate) const FRAME_BYTES_MAX: u64 = 2 * HEAD_BYTES_MAX as u64;

/// Empty and unknown frames in one request: a few are sent to keep receivers tolerant (RFC 9114
/// section 7.2.8).
pub(crate) const MEANINGLESS_MAX: u32 = 32;

/// Frame types of RFC 9114 section 11.2.1, those that it reserves because of HTTP/2, and
/// WebTransport's: h3 knows them, and deals with those that are not settled here.
const KNOWN: [u64; 12] = [
    DATA,
    HEADERS,
    0x2,
    CANCEL_PUSH,
    SETTINGS,
    0x5,
    0x6,
    GOAWAY,
    0x8,
    0x9,
    MAX_PUSH_ID,
    0x41,
];
const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const CANCEL_PUSH: u64 = 0x3;
const SETTINGS: u64 = 0x4;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;

/// The longest variable-length integer, in bytes (RFC 9000 section 16).
const VARINT_BYTES_MAX: u64 = 8;

const _: () = assert!(VARINT_BYTES_MAX <= FRAME_BYTES_MAX);

/// A piece for h3, or none as long as nothing is whole.
type Taken = Result<Option<Bytes>, Fault>;

/// Kind of a stream's next byte, and the number of bytes of that kind that are left.
#[derive(Debug)]
enum Place {
    Header,
    Data(u64),
    /// Payload that is kept until it is whole.
    Kept(u64),
    /// A field section, likewise.
    Fields(u64),
    /// The one integer of a control frame of this type, likewise.
    Id {
        kind: u64,
        left: u64,
    },
    /// Payload that is left out.
    Ignored(u64),
}

/// The stream that frames come on, and the state that it has seen.
#[derive(Debug)]
enum Stream {
    Request {
        meaningless_left: u32,
        /// Whether a head has come; before it, DATA of any length is an error, which h3 finds.
        has_head: bool,
    },
    /// The control stream. It lives as long as its connection: frames without a meaning may always
    /// come on it.
    Control {
        /// Whether settings have come; before them, any other frame is an error, which h3 finds.
        has_settings: bool,
        goaway: Option<u64>,
        max_push_id: Option<u64>,
    },
}

/// The frames of one stream.
#[derive(Debug)]
pub struct Frames {
    stream: Stream,
    place: Place,
    /// Bytes of a header or a payload that is not whole.
    kept: BytesMut,
}

impl Frames {
    pub fn of_request() -> Self {
        Self::of(Stream::Request {
            meaningless_left: MEANINGLESS_MAX,
            has_head: false,
        })
    }

    /// Returns the frames of a control stream, after its type.
    pub fn of_control() -> Self {
        Self::of(Stream::Control {
            has_settings: false,
            goaway: None,
            max_push_id: None,
        })
    }

    fn of(stream: Stream) -> Self {
        Self {
            stream,
            place: Place::Header,
            kept: BytesMut::new(),
        }
    }

    /// Takes from `input` until there is a piece for h3. When there is none, `input` is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Fault> {
        while input.has_remaining() {
            let piece = match self.place {
                Place::Header => self.take_header(input)?,
                Place::Data(left) => self.take_data(left, input),
                Place::Kept(left) => self.take_kept(left, input, Place::Kept),
                Place::Fields(left) => self.take_fields(left, input)?,
                Place::Id { kind, left } => self.take_id(kind, left, input)?,
                Place::Ignored(left) => self.ignore(left, input),
            };
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here: in the middle of a frame, it is cut off.
    pub fn end(&self) -> Result<(), Fault> {
        if self.kept.is_empty() && matches!(self.place, Place::Header) {
            Ok(())
        } else {
            Err(Fault::CutOff)
        }
    }

    fn take_header(&mut self, input: &mut Bytes) -> Taken {
        let Some((kind, payload_bytes, header)) = self.gather_header(input) else {
            return Ok(None);
        };
        if kind != DATA && payload_bytes > FRAME_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        if self.is_meaningless(kind, payload_bytes) {
            self.count_meaningless()?;
            self.place = payload(payload_bytes, Place::Ignored);
            return Ok(None);
        }
        if self.is_settled_here(kind) {
            self.place = id_of(kind, payload_bytes)?;
            return Ok(None);
        }
        self.place = self.meant(kind, payload_bytes)?;
        Ok(Some(header))
    }

    /// Returns the place behind the header of a frame that h3 is given.
    fn meant(&mut self, kind: u64, payload_bytes: u64) -> Result<Place, Fault> {
        Ok(match &mut self.stream {
            Stream::Request { .. } if kind == HEADERS && payload_bytes == 0 => {
                return Err(Fault::Undecodable);
            }
            Stream::Request { .. } if kind == HEADERS => Place::Fields(payload_bytes),
            Stream::Request { .. } if kind == DATA => payload(payload_bytes, Place::Data),
            Stream::Request { .. } => payload(payload_bytes, Place::Kept),
            Stream::Control { has_settings, .. } => {
                *has_settings |= kind == SETTINGS;
                payload(payload_bytes, Place::Kept)
            }
        })
    }

    /// Whether the frame is left out: an unknown one, or DATA without a byte, which h3 would take
    /// for the end.
    fn is_meaningless(&self, kind: u64, payload_bytes: u64) -> bool {
        let is_empty_data = match self.stream {
            Stream::Request { has_head, .. } => has_head && kind == DATA && payload_bytes == 0,
            Stream::Control { .. } => false,
        };
        is_empty_data || !KNOWN.contains(&kind)
    }

    fn count_meaningless(&mut self) -> Result<(), Fault> {
        if let Stream::Request {
            meaningless_left, ..
        } = &mut self.stream
        {
            *meaningless_left = meaningless_left.checked_sub(1).ok_or(Fault::Meaningless)?;
        }
        Ok(())
    }

    fn is_settled_here(&self, kind: u64) -> bool {
        match self.stream {
            Stream::Request { .. } => false,
            Stream::Control { has_settings, .. } => {
                has_settings && [CANCEL_PUSH, GOAWAY, MAX_PUSH_ID].contains(&kind)
            }
        }
    }

    fn take_data(&mut self, left: u64, input: &mut Bytes) -> Option<Bytes> {
        debug_assert!(left > 0, "`payload` makes no place without a byte");
        let piece = input.split_to(within(left, input));
        self.place = payload(left - piece.len() as u64, Place::Data);
        Some(piece)
    }

    /// Returns the payload once it is whole; copies only one that comes in several pieces. `place`
    /// is that of the rest.
    fn take_kept(
        &mut self,
        left: u64,
        input: &mut Bytes,
        place: fn(u64) -> Place,
    ) -> Option<Bytes> {
        debug_assert!(left > 0, "`payload` makes no place without a byte");
        let piece = input.split_to(within(left, input));
        let left = left - piece.len() as u64;
        self.place = payload(left, place);
        if left == 0 && self.kept.is_empty() {
            return Some(piece);
        }
        self.kept.extend_from_slice(&piece);
        (left == 0).then(|| self.take_whole())
    }

    fn take_fields(&mut self, left: u64, input: &mut Bytes) -> Taken {
        let Some(section) = self.take_kept(left, input, Place::Fields) else {
            return Ok(None);
        };
        let Stream::Request { has_head, .. } = &mut self.stream else {
            unreachable!("there are no field sections on a control stream");
        };
        let of = if std::mem::replace(has_head, true) {
            Section::Trailers
        } else {
            Section::Head
        };
        fields::examine(&section, of)?;
        Ok(Some(section))
    }

    fn take_id(&mut self, kind: u64, left: u64, input: &mut Bytes) -> Taken {
        let piece = input.split_to(within(left, input));
        self.kept.extend_from_slice(&piece);
        debug_assert!(
            self.kept.len() as u64 <= VARINT_BYTES_MAX,
            "`id_of` bounds it"
        );
        let left = left - piece.len() as u64;
        if left > 0 {
            self.place = Place::Id { kind, left };
            return Ok(None);
        }
        self.place = Place::Header;
        let id = whole_varint(&std::mem::take(&mut self.kept)).ok_or(Fault::Payload)?;
        self.settle(kind, id)?;
        Ok(None)
    }

    /// Checks a frame about pushes. A client may take back an allowance, in GOAWAY, or allow more,
    /// in MAX_PUSH_ID, and cannot cancel a push that was never promised (RFC 9114 sections 5.2,
    /// 7.2.7 and 7.2.3). That is all: the gateway pushes nothing.
    fn settle(&mut self, kind: u64, id: u64) -> Result<(), Fault> {
        let Stream::Control {
            goaway,
            max_push_id,
            ..
        } = &mut self.stream
        else {
            unreachable!("frames of a request are not settled here");
        };
        match kind {
            GOAWAY if goaway.is_none_or(|before| id <= before) => *goaway = Some(id),
            MAX_PUSH_ID if max_push_id.is_none_or(|before| id >= before) => *max_push_id = Some(id),
            _ => return Err(Fault::Id),
        }
        Ok(())
    }

    fn ignore(&mut self, left: u64, input: &mut Bytes) -> Option<Bytes> {
        debug_assert!(left > 0, "`payload` makes no place without a byte");
        let ignored = within(left, input);
        input.advance(ignored);
        self.place = payload(left - ignored as u64, Place::Ignored);
        None
    }

    /// Gathers a header: its type, length and bytes (RFC 9114 section 7.1), at most sixteen, which
    /// are kept while they are not whole.
    fn gather_header(&mut self, input: &mut Bytes) -> Option<(u64, u64, Bytes)> {
        if self.kept.is_empty()
            && let Some((kind, payload_bytes, bytes)) = frame_header(input)
        {
            return Some((kind, payload_bytes, input.split_to(bytes)));
        }
        while input.has_remaining() {
            self.kept.extend_from_slice(&[input.get_u8()]);
            if let Some((kind, payload_bytes, _)) = frame_header(&self.kept) {
                return Some((kind, payload_bytes, self.take_whole()));
            }
        }
        debug_assert!(self.kept.len() < 2 * VARINT_BYTES_MAX as usize);
        None
    }

    /// Returns the kept bytes, which are whole now.
    fn take_whole(&mut self) -> Bytes {
        std::mem::take(&mut self.kept).freeze()
    }
}

/// Returns how many bytes of a payload's rest are at hand.
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

/// Returns the place of the payload of a frame that has one integer.
fn id_of(kind: u64, payload_bytes: u64) -> Result<Place, Fault> {
    if (1..=VARINT_BYTES_MAX).contains(&payload_bytes) {
        Ok(Place::Id {
            kind,
            left: payload_bytes,
        })
    } else {
        Err(Fault::Payload)
    }
}

/// Returns the integer that these bytes are, if they are nothing else.
fn whole_varint(bytes: &[u8]) -> Option<u64> {
    let (value, value_bytes) = varint(bytes)?;
    (value_bytes == bytes.len()).then_some(value)
}

/// Parses the type and length of a frame, and counts their bytes; `None` while they are not whole.
fn frame_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, kind_bytes) = varint(bytes)?;
    let (payload_bytes, length_bytes) = varint(&bytes[kind_bytes..])?;
    Some((kind, payload_bytes, kind_bytes + length_bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    const UNKNOWN: u64 = 0x21;

    /// A field section without a field, as a frame.
    const EMPTY_HEAD: &[u8] = &[HEADERS as u8, 2, 0, 0];

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

    /// Encodes a number in one, two, four or eight bytes, or more when it does not fit.
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
            let payload = if kind == HEADERS {
                section_of(&payload)
            } else {
                payload
            };
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

    /// Returns a field section with one field, of this value.
    fn section_of(value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).expect("a short value");
        let length = match length.checked_sub(127) {
            None => vec![length],
            Some(more) => vec![127, more],
        };
        [&[0, 0, 0x21, b'x'], &length[..], value].concat()
    }

    /// Returns a request whose head has passed.
    fn after_head() -> Frames {
        let mut frames = Frames::of_request();
        let head = pass(&mut frames, EMPTY_HEAD, &[]).expect("a head");
        assert_eq!(head.concat(), EMPTY_HEAD);
        frames
    }

    /// Returns a control stream whose settings have passed.
    fn after_settings() -> Frames {
        let mut frames = Frames::of_control();
        let settings = Bytes::from_static(&[SETTINGS as u8, 0]);
        assert_eq!(pass(&mut frames, &settings, &[]), Ok(vec![settings]));
        frames
    }

    /// Returns the pieces that come out when these bytes come in, cut anywhere.
    fn pass(frames: &mut Frames, bytes: &[u8], cuts: &[Index]) -> Result<Vec<Bytes>, Fault> {
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
            prop_assert_eq!(frames.end(), Ok(()));
        }

        /// DATA too, over whose end h3 would panic.
        #[test]
        fn a_frame_that_is_cut_off_does_not_pass_for_a_whole_one(
            sent in prop::collection::vec(frame(), 1..8),
            end in any::<Index>(),
            cuts in prop::collection::vec(any::<Index>(), 0..10),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::bytes).collect();
            let end = end.index(bytes.len());
            let mut frames = after_head();
            pass(&mut frames, &bytes[..end], &cuts).expect("in bounds");
            let (mut at, mut is_whole) = (0, end == 0);
            for frame in &sent {
                at += frame.bytes().len();
                is_whole |= at == end;
            }
            prop_assert_eq!(frames.end().is_ok(), is_whole);
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
            prop_assert_eq!(pass(&mut after_head(), &bytes, &cuts), Err(Fault::TooLong));
        }
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
                Err(Fault::Meaningless)
            );
        }
        assert_eq!(
            pass(
                &mut after_settings(),
                &[UNKNOWN as u8, 0].repeat(2 * MEANINGLESS_MAX as usize),
                &[]
            ),
            Ok(vec![])
        );
    }

    /// It is an error even when it is empty, which is for h3 to say.
    #[test]
    fn data_without_a_head_passes() {
        for mut frames in [Frames::of_request(), Frames::of_control()] {
            let bytes = [DATA as u8, 0];
            let seen = pass(&mut frames, &bytes, &[]).expect("in bounds");
            assert_eq!(seen.concat(), bytes);
        }
    }

    #[test]
    fn what_a_client_says_of_pushes_is_checked_and_left_out() {
        let said = |bytes: &[u8]| pass(&mut after_settings(), bytes, &[]);
        let (cancel, goaway, max) = (CANCEL_PUSH as u8, GOAWAY as u8, MAX_PUSH_ID as u8);
        let in_order = [
            goaway, 1, 9, max, 1, 3, max, 2, 0x40, 3, goaway, 1, 9, goaway, 1, 0,
        ];
        assert_eq!(said(&in_order), Ok(vec![]));
        for out_of_order in [
            &[goaway, 1, 3, goaway, 1, 4][..],
            &[max, 1, 3, max, 1, 2],
            &[cancel, 1, 0],
        ] {
            assert_eq!(said(out_of_order), Err(Fault::Id), "{out_of_order:?}");
        }
        for kind in [cancel, goaway, max] {
            for payload in [
                &[0][..],
                &[1, 0x40],
                &[2, 0, 0],
                &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ] {
                let frame = [&[kind], payload].concat();
                assert_eq!(said(&frame), Err(Fault::Payload), "{frame:?}");
            }
            let first = [kind, 1, 0];
            let seen = pass(&mut Frames::of_control(), &first, &[]).expect("for h3 to refuse");
            assert_eq!(seen.concat(), first);
        }
    }

    #[test]
    fn field_sections_are_looked_at() {
        let post = [HEADERS as u8, 3, 0, 0, 0xd4];
        assert!(pass(&mut Frames::of_request(), &post, &[]).is_ok());
        assert_eq!(pass(&mut after_head(), &post, &[]), Err(Fault::Malformed));
        for undecodable in [&[HEADERS as u8, 0][..], &[HEADERS as u8, 2, 1, 0]] {
            assert_eq!(
                pass(&mut Frames::of_request(), undecodable, &[]),
                Err(Fault::Undecodable)
            );
        }
    }
}
