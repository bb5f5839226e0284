//! Records of TLS: adding the plaintext of one that has arrived, and one that is to be sent, to a
//! buffer.
//!
//! The stream calls it with what rustls hands it. A buffer is as long as what was added: what it
//! had to hold meanwhile is cut off again.

use std::io;

use rustls::server::ServerConnectionData;
use rustls::unbuffered::{EncodeError, EncodeTlsData, ReadTraffic, WriteTraffic};

/// The most plaintext that one record holds (RFC 8446 section 5.1).
pub(super) const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;

/// The most that encryption adds: RFC 8446 section 5.2 allows 256 bytes and the header; a key
/// update may go ahead.
const OVERHEAD_BYTES_MAX: usize = 512;

/// Adds the plaintext of what has arrived. Gives what rustls wants to be discarded for it.
pub(super) fn read(
    mut traffic: ReadTraffic<'_, '_, ServerConnectionData>,
    plain: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut discard = 0;
    while let Some(record) = traffic.next_record() {
        let record = record?;
        discard += record.discard;
        plain.extend_from_slice(record.payload);
    }
    Ok(discard)
}

/// Adds a message of rustls' own to what is to be sent.
pub(super) fn encode(mut message: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    if let Err(EncodeError::InsufficientSize(needed)) = message.encode(&mut []) {
        outgoing.resize(start + needed.required_size, 0);
        let encoded = message.encode(&mut outgoing[start..]);
        debug_assert!(
            encoded.is_ok_and(|bytes| bytes == needed.required_size),
            "it has the room that it asked for"
        );
    }
}

/// Adds a record of `data` to what is to be sent, or one that says that nothing more will come.
pub(super) fn seal(
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    data: Option<&[u8]>,
    outgoing: &mut Vec<u8>,
) -> io::Result<()> {
    let start = outgoing.len();
    let data_bytes = data.map_or(0, <[u8]>::len);
    debug_assert!(data_bytes <= PLAINTEXT_BYTES_MAX, "data fits one record");
    outgoing.resize(start + data_bytes + OVERHEAD_BYTES_MAX, 0);
    let record = &mut outgoing[start..];
    let bytes = match data {
        Some(data) => traffic.encrypt(data, record),
        None => traffic.queue_close_notify(record),
    };
    outgoing.truncate(start + bytes.as_ref().unwrap_or(&0));
    bytes.map(drop).map_err(io::Error::other)
}
