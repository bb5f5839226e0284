//! Bodies that come in pieces, too slowly, too long, or while there is no room.

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

/// Pieces in memory of their own, as h1 gives them.
struct OwnPieces(Pieces);

impl Body for OwnPieces {
    const OWNS_PIECES: bool = true;

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        self.0.poll_piece(context)
    }
}

/// The costs of a body, and a refusal to pay them.
#[derive(Default)]
struct Book {
    charged: Vec<usize>,
    held: Vec<usize>,
    charges_max: Option<usize>,
    held_max: Option<usize>,
}

impl Ledger for Book {
    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.charged.push(bytes);
        match self.charges_max {
            Some(most) if self.charged.len() > most => Err(Refusal::BodyTimeout),
            _ => Ok(()),
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.held.push(bytes);
        match self.held_max {
            Some(most) if bytes > most => Err(Refusal::SinkUnavailable),
            _ => Ok(()),
        }
    }
}

fn bounds(declared_bytes: Option<usize>, bytes_max: usize) -> Bounds {
    Bounds {
        declared_bytes,
        bytes_max,
        timeout: Duration::from_secs(30),
        rate_min: 1024,
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
    let mut book = Book::default();
    read(body, bounds(declared_bytes, bytes_max), &mut book).await
}

#[tokio::test]
async fn one_piece_of_its_own_is_not_copied() {
    let piece: &'static [u8] = b"21.5";
    let body = read_within(OwnPieces(Pieces(vec![piece])), Some(4), 10);
    assert_eq!(body.await.unwrap().as_ptr(), piece.as_ptr());
}

/// A byte in 64 KiB of datagrams does not keep them; 16 KiB in a buffer of as much may.
#[tokio::test]
async fn a_small_piece_leaves_the_buffer_that_it_came_in() {
    let piece: &'static [u8] = &[b'x'; PINNING_PIECE_BYTES_MIN];
    let [small, large] = [&piece[1..], piece];
    let small_body = read_within(Pieces(vec![small]), Some(small.len()), 1 << 20);
    assert_ne!(small_body.await.unwrap().as_ptr(), small.as_ptr());
    let large_body = read_within(Pieces(vec![large]), Some(large.len()), 1 << 20);
    assert_eq!(large_body.await.unwrap().as_ptr(), large.as_ptr());
}

/// The bytes held are never fewer than the body has in memory, and never many more than have come.
#[tokio::test]
async fn memory_is_held_as_the_body_arrives() {
    for declared_bytes in [Some(9), None] {
        let mut book = Book::default();
        let pieces = Pieces(vec![b"a", b"b", b"cde", b"fghi"]);
        let body = read(pieces, bounds(declared_bytes, 9), &mut book).await;
        assert_eq!(&body.unwrap()[..], b"abcdefghi");
        assert_eq!(book.held, [1, 2, 9], "{declared_bytes:?}");
    }
}

#[tokio::test]
async fn a_body_that_finds_no_room_is_refused_where_it_is() {
    let mut book = Book {
        held_max: Some(4),
        ..Book::default()
    };
    let mut pieces = Pieces(vec![b"ab", b"cd", b"e", b"f"]);
    let body = read(&mut pieces, bounds(Some(6), 9), &mut book).await;
    assert!(matches!(body, Err(Refusal::SinkUnavailable)));
    assert_eq!(book.held, [2, 4, 6]);
    assert_eq!(pieces.0.len(), 1, "the rest is not read");
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
    let mut book = Book {
        charges_max: Some(1),
        ..Book::default()
    };
    let pieces = Pieces(vec![b"abc", b"d", b"e"]);
    assert!(read(pieces, bounds(None, 99), &mut book).await.is_err());
    assert_eq!(book.charged, [3, 1]);
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
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
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
        let bounds = Bounds {
            rate_min,
            ..bounds(None, 99)
        };
        assert!(matches!(
            read(trickle(millis), bounds, &mut Book::default()).await,
            Err(Refusal::BodyTimeout)
        ));
        started_at.elapsed().as_secs()
    };
    // 10 s, and one more for each two bytes, or each byte, that have come by then.
    assert_eq!(ends_after(1000, 2).await, 20);
    assert_eq!(ends_after(4000, 1).await, 14);
    assert_eq!(ends_after(1000, 1000).await, 10, "nothing is asked before");
    assert_eq!(ends_after(1000, 0).await, 30, "only the time-out counts");
}
