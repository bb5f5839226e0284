//! Reading a request's body: bounded, deadlined, joined at most once.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use super::Refusal;

/// What a protocol gives of a body, piece by piece.
pub trait Body {
    /// The next piece, `None` at the end. An error is a broken message or connection.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>>;
}

impl<B: Body> Body for &mut B {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        (**self).poll_piece(context)
    }
}

/// The body ended otherwise than its framing said.
#[derive(Debug)]
pub struct BrokenBody;

/// A body may be slow for this long before it must keep up its least rate.
const GRACE: Duration = Duration::from_secs(10);

/// The bounds of one body.
pub struct Bounds<Charge> {
    /// The length that the client declared.
    pub declared_bytes: Option<usize>,
    pub bytes_max: usize,
    pub timeout: Duration,
    /// Bytes a second, once [`GRACE`] is over; 0 is no such bound.
    pub rate_min: u64,
    /// Pays for bytes that were not declared, as they arrive.
    pub charge: Charge,
}

/// The whole body. One piece is passed on as it came; several are joined in a buffer of the declared length.
pub async fn read<B, C>(mut body: B, bounds: Bounds<C>) -> Result<Bytes, Refusal>
where
    B: Body,
    C: FnMut(usize) -> Result<(), Refusal>,
{
    let mut reader = Reader {
        started_at: None,
        received_bytes: 0,
        bounds,
    };
    // Read to its end, whatever was declared: more may follow, or trailers that spoil it.
    let first = reader.next(&mut body).await?.ok_or(Refusal::EmptyBody)?;
    let Some(second) = reader.next(&mut body).await? else {
        return reader.complete(first);
    };
    let mut joined = BytesMut::with_capacity(
        reader
            .bounds
            .declared_bytes
            .unwrap_or(first.len() + second.len()),
    );
    joined.extend_from_slice(&first);
    joined.extend_from_slice(&second);
    while let Some(piece) = reader.next(&mut body).await? {
        joined.extend_from_slice(&piece);
    }
    reader.complete(joined.freeze())
}

struct Reader<C> {
    /// When the body was first waited for.
    started_at: Option<Instant>,
    received_bytes: usize,
    bounds: Bounds<C>,
}

impl<C: FnMut(usize) -> Result<(), Refusal>> Reader<C> {
    /// The next piece that is not empty.
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

    /// A timer is made only when the piece is not there yet.
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

    fn deadline(&mut self) -> Instant {
        let started_at = *self.started_at.get_or_insert_with(Instant::now);
        let seconds = (self.received_bytes as u64).checked_div(self.bounds.rate_min);
        let allowance = seconds.map_or(Duration::MAX, |seconds| {
            GRACE + Duration::from_secs(seconds)
        });
        started_at + allowance.min(self.bounds.timeout)
    }

    fn account(&mut self, piece_bytes: usize) -> Result<(), Refusal> {
        self.received_bytes += piece_bytes;
        match self.bounds.declared_bytes {
            Some(declared) if self.received_bytes > declared => {
                Err(Refusal::Malformed("the body is longer than declared"))
            }
            Some(_) => Ok(()),
            None if self.received_bytes > self.bounds.bytes_max => Err(Refusal::BodyTooLarge),
            None => (self.bounds.charge)(piece_bytes),
        }
    }

    fn complete(&self, body: Bytes) -> Result<Bytes, Refusal> {
        match self.bounds.declared_bytes {
            Some(declared) if declared != body.len() => {
                Err(Refusal::Malformed("the body is shorter than declared"))
            }
            _ => Ok(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<&'static [u8]>);

    impl Body for Pieces {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(Bytes::from_static(self.0.remove(0)))))
        }
    }

    struct Silence;

    impl Body for Silence {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
            Poll::Pending
        }
    }

    async fn read_within<B: Body>(
        body: B,
        declared_bytes: Option<usize>,
        bytes_max: usize,
    ) -> Result<Bytes, Refusal> {
        let timeout = Duration::from_secs(30);
        read(
            body,
            Bounds {
                declared_bytes,
                bytes_max,
                timeout,
                rate_min: 1024,
                charge: |_| Ok(()),
            },
        )
        .await
    }

    #[tokio::test]
    async fn one_piece_is_not_copied() {
        let piece: &'static [u8] = b"21.5";
        let body = read_within(Pieces(vec![piece]), Some(4), 10).await.unwrap();
        assert_eq!(body.as_ptr(), piece.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        let body = read_within(Pieces(vec![b"a", b"", b"bc", b"d"]), None, 10)
            .await
            .unwrap();
        assert_eq!(&body[..], b"abcd");
    }

    #[tokio::test]
    async fn lengths_are_held_to() {
        assert!(matches!(
            read_within(Pieces(vec![]), None, 10).await,
            Err(Refusal::EmptyBody)
        ));
        assert!(matches!(
            read_within(Pieces(vec![b"abc", b"d"]), None, 3).await,
            Err(Refusal::BodyTooLarge)
        ));
        assert!(matches!(
            read_within(Pieces(vec![b"abc"]), Some(4), 9).await,
            Err(Refusal::Malformed(_))
        ));
        assert!(matches!(
            read_within(Pieces(vec![b"abc", b"de"]), Some(4), 9).await,
            Err(Refusal::Malformed(_))
        ));
    }

    #[tokio::test]
    async fn undeclared_bytes_are_charged_as_they_arrive() {
        let mut charged = vec![];
        let charge = |bytes| {
            charged.push(bytes);
            if charged.len() < 2 {
                Ok(())
            } else {
                Err(Refusal::BodyTimeout)
            }
        };
        let bounds = Bounds {
            declared_bytes: None,
            bytes_max: 99,
            timeout: GRACE,
            rate_min: 1,
            charge,
        };
        assert!(
            read(Pieces(vec![b"abc", b"d", b"e"]), bounds)
                .await
                .is_err()
        );
        assert_eq!(charged, [3, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_cut_after_the_grace() {
        let started_at = Instant::now();
        assert!(matches!(
            read_within(Silence, None, 9).await,
            Err(Refusal::BodyTimeout)
        ));
        assert_eq!(started_at.elapsed(), GRACE);
    }

    /// One byte every so often.
    struct Trickle(tokio::time::Interval);

    impl Body for Trickle {
        fn poll_piece(
            &mut self,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, BrokenBody>>> {
            self.0
                .poll_tick(context)
                .map(|_| Some(Ok(Bytes::from_static(b"x"))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_once_it_falls_behind_its_least_rate() {
        let trickle = |millis| Trickle(tokio::time::interval(Duration::from_millis(millis)));
        let ends_after = async |millis, rate_min| {
            let started_at = Instant::now();
            let timeout = Duration::from_secs(30);
            let bounds = Bounds {
                declared_bytes: None,
                bytes_max: 99,
                timeout,
                rate_min,
                charge: |_| Ok(()),
            };
            assert!(matches!(
                read(trickle(millis), bounds).await,
                Err(Refusal::BodyTimeout)
            ));
            started_at.elapsed().as_secs()
        };
        // 10 s, and one more for each two bytes, or each byte, that have come by then.
        assert_eq!(ends_after(1000, 2).await, 20);
        assert_eq!(ends_after(4000, 1).await, 14);
        assert_eq!(ends_after(1000, 0).await, 30, "only the time-out counts");
    }
}
