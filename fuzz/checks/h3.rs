//! Any bytes in the place of HTTP/3's streams: a request, a control stream, QPACK's, and an encoded
//! field section.

use bytes::Bytes;
use forebay::internals::http::h3::{Fault, Frames};
use forebay::internals::http::h3::{Instructions, Side};
use forebay::internals::http::h3::{Section, examine};

pub fn check(data: &[u8]) {
    for frames in [Frames::of_request, Frames::of_control] {
        check_frames(data, frames);
    }
    for side in [Side::Encoder, Side::Decoder] {
        check_instructions(data, side);
    }
    if examine(data, Section::Trailers).is_ok() {
        assert_eq!(
            examine(data, Section::Head),
            Ok(()),
            "what has no pseudo-header fields"
        );
    }
}

/// What passes is what came, but for what is left out, whichever way it came.
fn check_frames(data: &[u8], frames: impl Fn() -> Frames) {
    let whole = pass(data, data.len().max(1), frames());
    assert_eq!(
        whole,
        pass(data, 1, frames()),
        "it matters how a stream arrives"
    );
    assert!(
        is_within(&whole.0, data),
        "something passes that did not come"
    );
}

/// All that passes, and how it ends.
fn pass(data: &[u8], piece_bytes: usize, mut frames: Frames) -> (Vec<u8>, Result<(), Fault>) {
    let mut passed = Vec::new();
    for piece in data.chunks(piece_bytes) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match frames.next(&mut piece) {
                Ok(Some(bytes)) => {
                    assert!(!bytes.is_empty(), "nothing is no piece");
                    passed.extend_from_slice(&bytes);
                }
                Ok(None) => break,
                Err(fault) => return (passed, Err(fault)),
            }
        }
        assert!(piece.is_empty(), "nothing passes, and something is left");
    }
    (passed, frames.end())
}

/// Whether these bytes are among those, in their order.
fn is_within(some: &[u8], all: &[u8]) -> bool {
    let mut all = all.iter();
    some.iter().all(|byte| all.any(|other| other == byte))
}

fn check_instructions(data: &[u8], side: Side) {
    let mut pieces = Instructions::of(side);
    let one_by_one = data.iter().try_for_each(|byte| pieces.take(&[*byte]));
    assert_eq!(Instructions::of(side).take(data), one_by_one);
}
