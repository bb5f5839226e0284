//! The body of a request, whole or in pieces, as a slow network would carry it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// A piece now, and the next one after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub piece_bytes: usize,
    pub pause: Duration,
}

/// hyper's view of a body.
pub struct Upload {
    rest: Bytes,
    pace: Option<Pace>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub fn new(body: Bytes, pace: Option<Pace>) -> Self {
        Self {
            rest: body,
            pace,
            pause: None,
        }
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
        let bytes = self
            .pace
            .map_or(usize::MAX, |pace| pace.piece_bytes)
            .min(self.rest.len());
        let piece = self.rest.split_to(bytes);
        self.pause = self
            .pace
            .filter(|_| !self.rest.is_empty())
            .map(|pace| Box::pin(sleep(pace.pause)));
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
