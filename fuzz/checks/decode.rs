//! Any bytes in the place of an encoded body.

use bytes::Bytes;
use forebay::internals::ingest::decode::{Damaged, Decoder};

/// Far more than a few hundred bytes of input come to, so that a bomb ends.
const DECODED_BYTES_MAX: usize = 1 << 20;

/// It makes no difference how a body arrives, nor how much room there is; what is damaged gives an error, not a panic.
pub fn check(data: &[u8]) {
    for decoder in [Decoder::gzip, Decoder::zstd] {
        let whole = decode(decoder(), data, data.len().max(1), 4096);
        let parted = decode(decoder(), data, 1, 100);
        match (&whole, &parted) {
            // A window that is too large may be met before or after what is damaged in other ways.
            (Err(_), Err(_)) => {}
            // What waits in a decoder comes with the next piece, of which there is none.
            (Ok((one, false)), Ok((other, false))) => {
                assert!(one.starts_with(other) || other.starts_with(one));
            }
            _ => assert!(whole == parted, "it matters how a body arrives"),
        }
    }
}

/// What was decoded, and whether the body may end there.
fn decode(
    mut decoder: Decoder,
    data: &[u8],
    piece_bytes: usize,
    room_bytes: usize,
) -> Result<(Vec<u8>, bool), Damaged> {
    let (mut decoded, mut room) = (Vec::new(), vec![0; room_bytes]);
    for piece in data.chunks(piece_bytes.min(16 * 1024)) {
        decoder.feed(Bytes::copy_from_slice(piece));
        loop {
            let step = decoder.step(&mut room)?;
            assert!(step.written_bytes <= room_bytes);
            decoded.extend_from_slice(&room[..step.written_bytes]);
            if decoded.len() > DECODED_BYTES_MAX {
                decoded.truncate(DECODED_BYTES_MAX);
                return Ok((decoded, false));
            }
            if step.is_hungry {
                break;
            }
        }
    }
    Ok((decoded, decoder.is_at_end()))
}
