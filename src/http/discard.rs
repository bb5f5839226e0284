//! What a refused client is still sending, read and thrown away so that it gets to its answer.
//!
//! The adapters call it once a request has been answered whose body has not ended. A connection that is closed with
//! bytes unread is reset, and the answer lost on its way; a stream that is cut off counts as a failure with many clients
//! whatever was answered before, and others wait for a window that never opens. A client that goes on for longer than
//! [`TIMEOUT`] or sends more than [`BYTES_MAX`] is cut off all the same. Nothing of it is kept.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use crate::ingest::Body;

/// After its answer a client may send this much.
const BYTES_MAX: usize = 1024 * 1024;

/// After its answer a client may go on sending for this long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reads up to the body's end, or its bounds.
pub async fn discard(mut body: impl Body) {
    let mut left = BYTES_MAX;
    let reading = async {
        while let Some(Ok(piece)) = poll_fn(|context| body.poll_piece(context)).await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Out of time is out of patience.
    let _ = timeout(TIMEOUT, reading).await;
}
