//! The body of a request, whole or in pieces, as a slow network would carry it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Pace of a body that comes in pieces: one now, and the next one after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub piece_bytes: usize,
    pub pause: Duration,
}

/// A body as hyper sees it.
pub(crate) struct Upload {
    rest: Bytes,
    pace: Option<Pace>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(crate) fn new(body: Bytes, pace: Option<Pace>) -> Self {
        Self {
            rest: body,
            pace,
            pause: None,
        }
    }
}

impl Upload {
    fn next_piece(&mut self) -> Bytes {
        let Some(pace) = self.pace else {
            return std::mem::take(&mut self.rest);
        };
        debug_assert!(pace.piece_bytes > 0, "a body comes to an end");
        let bytes = pace.piece_bytes.min(self.rest.len());
        let piece = self.rest.split_to(bytes);
        let has_more = !self.rest.is_empty();
        self.pause = has_more.then(|| Box::pin(sleep(pace.pause)));
        piece
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
        }
        let piece = self.next_piece();
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
