//! Whatever was encoded comes back, however it arrives; whatever was not is damaged.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0; zstd_safe::compress_bound(body.len())];
    let bytes = zstd_safe::compress(&mut encoded[..], body, 3).unwrap();
    encoded.truncate(bytes);
    encoded
}

/// Both codings: how a body is encoded, and a decoder.
type Subject = (fn(&[u8]) -> Vec<u8>, fn() -> Decoder);

const CODINGS: [Subject; 2] = [(gzip, Decoder::gzip), (zstd, Decoder::zstd)];

/// Decodes pieces. Returns the bytes, and whether the body may end there.
fn decode(
    decoder: &mut Decoder,
    pieces: &[&[u8]],
    room_bytes: usize,
) -> Result<(Vec<u8>, bool), Damaged> {
    let mut decoded = Vec::new();
    for input in pieces
        .iter()
        .flat_map(|piece| piece.chunks(INPUT_BYTES_MAX))
    {
        decoder.feed(Bytes::copy_from_slice(input));
        loop {
            let mut room = vec![0; room_bytes];
            let step = decoder.step(&mut room)?;
            decoded.extend_from_slice(&room[..step.written_bytes]);
            if step.is_hungry {
                break;
            }
        }
    }
    Ok((decoded, decoder.is_at_end()))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..2000),
        prop::collection::vec(0_u8..4, 1..20_000),
        (1_usize..200_000).prop_map(|bytes| vec![0; bytes]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One decoder takes body after body, in any pieces, with any room.
    #[test]
    fn what_was_encoded_comes_back(
        bodies in prop::collection::vec(body(), 1..4),
        cut in any::<prop::sample::Index>(),
        room_bytes in 1_usize..5000,
    ) {
        for (encode, decoder) in CODINGS {
            let mut decoder = decoder();
            for body in &bodies {
                let encoded = encode(body);
                let (one, other) = encoded.split_at(cut.index(encoded.len()));
                let decoded = decode(&mut decoder, &[one, other], room_bytes);
                prop_assert_eq!(decoded, Ok((body.clone(), true)));
            }
        }
    }

    /// Members and frames that follow each other are one body.
    #[test]
    fn members_are_one_body(bodies in prop::collection::vec(body(), 1..5)) {
        for (encode, decoder) in CODINGS {
            let encoded: Vec<u8> = bodies.iter().flat_map(|body| encode(body)).collect();
            let decoded = decode(&mut decoder(), &[&encoded], OUTPUT_BYTES_MAX);
            prop_assert_eq!(decoded, Ok((bodies.concat(), true)));
        }
    }

    /// A body that ends early never passes for a whole one, and neither does a body that goes on.
    #[test]
    fn a_body_ends_where_its_coding_does(body in body(), cut in any::<prop::sample::Index>()) {
        for (encode, decoder) in CODINGS {
            let mut encoded = encode(&body);
            let cut = cut.index(encoded.len() - 1) + 1;
            if cut < encoded.len() {
                let early = decode(&mut decoder(), &[&encoded[..cut]], 1000);
                prop_assert!(!matches!(early, Ok((_, true))), "{} of {}", cut, encoded.len());
            }
            encoded.push(0);
            let late = decode(&mut decoder(), &[&encoded], 1000);
            prop_assert!(!matches!(late, Ok((_, true))));
        }
    }
}

#[test]
fn a_content_encoding_is_a_list_of_one() {
    for (list, coding) in [
        ("gzip", Some(Coding::Gzip)),
        ("X-Gzip", Some(Coding::Gzip)),
        (", zstd\t,,", Some(Coding::Zstd)),
        ("identity", Some(Coding::Identity)),
        (" ,", None),
        ("", None),
        ("gzip, zstd", None),
        ("gzip,gzip", None),
        ("gzip zstd", None),
        ("br", None),
    ] {
        assert_eq!(Coding::of(list.as_bytes()), coding, "{list:?}");
    }
}

/// A frame that gives another number of bytes than it declares is damaged, in whatever pieces it
/// comes. The library itself checks this of some frames only: not of one that ends with an empty
/// block, unless it comes whole.
#[test]
fn a_frame_is_held_to_its_declared_size() {
    // Declares so many bytes (256 and the field, RFC 8878 section 3.1.1.1.4), and has one last
    // block, empty and raw.
    let empty = |field: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x60, field, 0, 1, 0, 0];
    // The same with a block of one byte before it; and one that declares this byte.
    let short = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 2, 8, 0, 0, b'a', 1, 0, 0];
    let whole = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 8, 0, 0, b'a', 1, 0, 0];
    for frame in [&empty(0x54)[..], &empty(0), &short] {
        for cut in 0..frame.len() {
            let (one, other) = frame.split_at(cut);
            let decoded = decode(&mut Decoder::zstd(), &[one, other], 1000);
            assert_eq!(decoded, Err(Damaged), "{frame:x?} cut at {cut}");
        }
    }
    for cut in 0..whole.len() {
        let (one, other) = whole.split_at(cut);
        let decoded = decode(&mut Decoder::zstd(), &[one, other], 1000);
        assert_eq!(decoded, Ok((b"a".to_vec(), true)), "cut at {cut}");
    }
}

/// The window of a frame is memory that the decoder tells of; a larger one than 8 MiB is refused.
#[test]
fn a_window_is_counted_and_bounded() {
    // No content size, no checksum: a window of 2^(10 + log), and an empty last block of raw bytes.
    let frame = |log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, log << 3, 1, 0, 0];
    let mut decoder = Decoder::zstd();
    let small = decoder.bytes();
    // The frame has begun, but not ended.
    let begun = decode(&mut decoder, &[&frame(13)[..8]], 100);
    assert_eq!(begun, Ok((Vec::new(), false)));
    assert!(decoder.bytes() >= small + (8 << 20), "{}", decoder.bytes());
    assert_eq!(decode(&mut decoder, &[&[0]], 100), Ok((Vec::new(), true)));
    let large = decode(&mut Decoder::zstd(), &[&frame(14)], 100);
    assert_eq!(large, Err(Damaged));
}

/// A decoder that was lent comes back for the next body, unless its window was large.
#[test]
fn a_worker_keeps_small_decoders() {
    let decoders = Decoders::default();
    assert!(decoders.lend(Coding::Identity).is_none());
    for coding in [Coding::Gzip, Coding::Zstd] {
        for _ in 0..2 * SPARES_MAX {
            decoders.give_back(decoders.lend(coding).unwrap());
        }
    }
    let kept = |decoders: &Decoders| {
        let (gzip, zstd) = (decoders.gzip.borrow(), decoders.zstd.borrow());
        (gzip.len(), zstd.len())
    };
    assert_eq!(kept(&decoders), (1, 1));
    let mut large = decoders.lend(Coding::Zstd).unwrap();
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3, 1, 0, 0];
    decode(&mut large, &[&frame], 100).unwrap();
    decoders.give_back(large);
    assert_eq!(kept(&decoders), (1, 0));
}
