//! The server-sent events that the live page gets once a second.
//!
//! One task makes a frame a second for all who watch, and ends when the last has gone: a gateway at
//! which nobody looks pays nothing. Watchers share the newest frame and have no queue: who is late
//! misses frames, and who has taken none for [`CONNECTION_TIMEOUT`](super::CONNECTION_TIMEOUT) loses
//! its connection, in `answer_connection`.
//!
//! Limits: [`WATCHERS_MAX`]; one more is refused, counted.

mod frame;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use super::Status;
use super::connections::{CONNECTIONS_MAX, Seat};

/// The most that watch at once.
pub(super) const WATCHERS_MAX: usize = 16;

const _: () = assert!(WATCHERS_MAX < CONNECTIONS_MAX, "some are left for probes");

/// Time between two frames.
const FRAME_INTERVAL: Duration = Duration::from_secs(1);

type Next = Result<Frame<Bytes>, Infallible>;

/// The frames of one watcher, without an end.
pub(super) type Stream = StreamBody<Pin<Box<dyn futures_util::Stream<Item = Next>>>>;

/// Makes frames while somebody watches.
pub(super) struct Live {
    status: Arc<Status>,
    newest: watch::Sender<Bytes>,
    is_telling: Cell<bool>,
}

impl Live {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self {
            status,
            newest: watch::Sender::new(Bytes::new()),
            is_telling: Cell::new(false),
        }
    }

    /// Gives whoever has this seat the frames from now on; `None` where as many watch as may.
    pub(super) fn watch(self: &Rc<Self>, seat: Rc<Seat>) -> Option<Stream> {
        if self.newest.receiver_count() >= WATCHERS_MAX {
            self.status.metrics.watchers().refused();
            return None;
        }
        let frames = self.newest.subscribe();
        if !self.is_telling.replace(true) {
            spawn_local(self.clone().tell());
        }
        Some(StreamBody::new(Box::pin(unfold((frames, seat), next))))
    }

    /// Makes a frame at once and then each second, until nobody watches.
    async fn tell(self: Rc<Self>) {
        let mut seconds = interval(FRAME_INTERVAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let watchers = self.status.metrics.watchers();
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
                () = self.newest.closed() => break,
            }
            let watching = self.newest.receiver_count();
            debug_assert!(watching <= WATCHERS_MAX, "one more is refused");
            watchers.set(watching);
            self.newest.send_replace(frame::make(&self.status));
        }
        debug_assert!(self.is_telling.get(), "there is one such task");
        watchers.set(0);
        self.is_telling.set(false);
    }
}

/// A watcher's end of the frames, and the seat that it holds while it watches.
type Watcher = (watch::Receiver<Bytes>, Rc<Seat>);

/// Waits for a watcher's next frame; the last one has been taken when another is asked for.
async fn next(watcher: Watcher) -> Option<(Next, Watcher)> {
    let (mut frames, seat) = watcher;
    seat.goes_on_watching();
    frames.changed().await.ok()?;
    let frame = frames.borrow_and_update().clone();
    debug_assert!(!frame.is_empty(), "what is told first is a frame");
    Some((Ok(Frame::data(frame)), (frames, seat)))
}
