//! The rest of a refused request, read and thrown away so that its client gets to the answer.
//!
//! The adapters call it once a request has been answered whose body has not ended. A connection
//! that is closed with bytes unread is reset, and the answer lost on its way; a stream that is cut
//! off is a failure to many clients, whatever was answered before, and others wait for a window
//! that never opens. A client that goes on for longer than [`TIMEOUT`] or sends more than
//! [`BYTES_MAX`] is cut off all the same. No byte of it is kept.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::ingest::Body;

/// Bytes that a client may send after its answer.
const BYTES_MAX: usize = 1024 * 1024;

/// Time that a client may go on sending after its answer, and then be silent.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reads up to the body's end, or its bounds.
pub(crate) async fn discard(mut body: impl Body) {
    discard_pieces(|context| {
        body.poll_piece(context)
            .map(|piece| Some(piece?.ok()?.len()))
    })
    .await;
}

/// Reads on within the same bounds, given the length of each piece only, `None` at the end.
pub(crate) async fn discard_pieces(
    mut poll_bytes: impl FnMut(&mut Context<'_>) -> Poll<Option<usize>>,
) {
    let (mut left, started_at) = (BYTES_MAX, Instant::now());
    while let Ok(Some(bytes)) = timeout(TIMEOUT, poll_fn(&mut poll_bytes)).await {
        left = left.saturating_sub(bytes);
        if left == 0 || started_at.elapsed() > TIMEOUT {
            return;
        }
    }
}
