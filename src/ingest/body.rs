//! Reading a request's body: bounded, deadlined, joined at most once.

mod decoded;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::Refusal;
pub(crate) use decoded::read_decoded;

/// A body, as a protocol gives it: piece by piece.
pub(crate) trait Body {
    /// Whether each piece is in memory of its own. Elsewhere a piece is a part of a read from the
    /// network, and keeps all of that.
    const OWNS_PIECES: bool = false;

    /// Polls for the next piece, `None` at the end. An error is a broken message or connection.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>>;
}

impl<B: Body> Body for &mut B {
    const OWNS_PIECES: bool = B::OWNS_PIECES;

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        (**self).poll_piece(context)
    }
}

/// The body ended otherwise than its framing said.
#[derive(Debug)]
pub(crate) struct BrokenBody;

/// A body may be slow for this long before it must keep up its least rate.
const GRACE: Duration = Duration::from_secs(10);

/// A piece that is smaller is taken out of the buffer that it came in: that may be 64 KiB of
/// datagrams, or 16 KiB of frames, which a record would keep for as long as it waits.
const PINNING_PIECE_BYTES_MIN: usize = 8 * 1024;

/// The bounds of one body.
pub(crate) struct Bounds {
    /// The length that the client declared.
    pub declared_bytes: Option<usize>,
    pub bytes_max: usize,
    pub timeout: Duration,
    /// Bytes a second, once [`GRACE`] is over; 0 is no such bound.
    pub rate_min: u64,
}

/// The costs of a body for its device while it arrives.
pub(crate) trait Ledger {
    /// Pays for bytes that were not declared.
    fn charge(&mut self, bytes: usize) -> Result<(), Refusal>;

    /// Holds so many bytes of memory for the body from now on.
    fn hold(&mut self, bytes: usize) -> Result<(), Refusal>;
}

/// Reads the whole body. One piece is passed on; several are joined in a buffer that grows with
/// them.
pub(crate) async fn read<B: Body>(
    mut body: B,
    bounds: Bounds,
    ledger: &mut impl Ledger,
) -> Result<Bytes, Refusal> {
    let mut reader = Reader::new(bounds, ledger);
    // Read to its end, whatever was declared: more may follow, or trailers that spoil it.
    let first = reader.next(&mut body).await?.ok_or(Refusal::EmptyBody)?;
    debug_assert!(!first.is_empty(), "`next` passes empty pieces over");
    reader.ledger.hold(first.len())?;
    let first = own::<B>(first);
    let Some(second) = reader.next(&mut body).await? else {
        return reader.complete(first);
    };
    let mut joined = Vec::new();
    reader.join(&mut joined, first)?;
    reader.join(&mut joined, second)?;
    while let Some(piece) = reader.next(&mut body).await? {
        reader.join(&mut joined, piece)?;
    }
    reader.complete(joined.into())
}

/// Returns the piece in memory that is not much larger.
fn own<B: Body>(piece: Bytes) -> Bytes {
    if B::OWNS_PIECES || piece.len() >= PINNING_PIECE_BYTES_MIN {
        piece
    } else {
        Bytes::copy_from_slice(&piece)
    }
}

/// A body that is being read within its bounds.
struct Reader<'l, L> {
    /// Time at which the body was first waited for.
    started_at: Option<Instant>,
    received_bytes: usize,
    bounds: Bounds,
    ledger: &'l mut L,
}

impl<'l, L: Ledger> Reader<'l, L> {
    fn new(bounds: Bounds, ledger: &'l mut L) -> Self {
        Self {
            started_at: None,
            received_bytes: 0,
            bounds,
            ledger,
        }
    }

    /// Adds a piece and lets go of it. The buffer doubles, up to the bytes that may come, and is
    /// held whole.
    fn join(&mut self, joined: &mut Vec<u8>, piece: Bytes) -> Result<(), Refusal> {
        let bytes = joined.len() + piece.len();
        if bytes > joined.capacity() {
            let bytes_max = self.bounds.declared_bytes.unwrap_or(self.bounds.bytes_max);
            debug_assert!(bytes <= bytes_max, "a piece that is too much is refused");
            let capacity = bytes_max.min(2 * bytes);
            debug_assert!(capacity >= bytes, "what has come fits");
            self.ledger.hold(capacity)?;
            joined.reserve_exact(capacity - joined.len());
        }
        joined.extend_from_slice(&piece);
        Ok(())
    }

    /// Waits for the next piece that is not empty.
    async fn next<B: Body>(&mut self, body: &mut B) -> Result<Option<Bytes>, Refusal> {
        loop {
            let Some(piece) = self.wait(body).await? else {
                return Ok(None);
            };
            let piece = piece.map_err(|BrokenBody| {
                Refusal::Malformed("the body ended early or its framing is broken")
            })?;
            self.account(piece.len())?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// Waits for the next piece. A timer is made only when it is not there yet.
    async fn wait<B: Body>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Result<Bytes, BrokenBody>>, Refusal> {
        let ready = poll_fn(|context| Poll::Ready(body.poll_piece(context))).await;
        if let Poll::Ready(piece) = ready {
            return Ok(piece);
        }
        let deadline = self.deadline();
        let piece = timeout_at(deadline, poll_fn(|context| body.poll_piece(context))).await;
        piece.map_err(|_| Refusal::BodyTimeout)
    }

    /// Returns the time at which the body is too slow, by its time-out or by its least rate.
    fn deadline(&mut self) -> Instant {
        let started_at = *self.started_at.get_or_insert_with(Instant::now);
        let seconds = (self.received_bytes as u64).checked_div(self.bounds.rate_min);
        let allowance = seconds.map_or(Duration::MAX, |seconds| {
            GRACE + Duration::from_secs(seconds)
        });
        started_at + allowance.min(self.bounds.timeout)
    }

    /// Counts a piece against the declared length, or charges for it.
    fn account(&mut self, piece_bytes: usize) -> Result<(), Refusal> {
        self.received_bytes += piece_bytes;
        match self.bounds.declared_bytes {
            Some(declared) if self.received_bytes > declared => {
                Err(Refusal::Malformed("the body is longer than declared"))
            }
            Some(_) => Ok(()),
            None if self.received_bytes > self.bounds.bytes_max => Err(Refusal::BodyTooLarge),
            None => self.ledger.charge(piece_bytes),
        }
    }

    /// Returns the body, if it is as long as declared.
    fn complete(&self, body: Bytes) -> Result<Bytes, Refusal> {
        self.check_length(body.len()).map(|()| body)
    }

    fn check_length(&self, body_bytes: usize) -> Result<(), Refusal> {
        match self.bounds.declared_bytes {
            Some(declared) if declared != body_bytes => {
                Err(Refusal::Malformed("the body is shorter than declared"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
