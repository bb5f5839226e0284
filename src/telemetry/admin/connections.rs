//! The connections of the admin address: a bounded number, of which the idlest gives way.
//!
//! Nobody waits for a place: a newcomer is served at once, and where all places are taken the
//! connection that has waited longest without a request ends, or, where all have asked, the oldest;
//! who watches goes last.
//! So clients that connect and say nothing, or that take no answer, hold places only until somebody
//! else wants them. A probe asks as soon as it is connected and is answered in the same turn.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::CONNECTION_TIMEOUT;

/// The most connections at once.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Progress of a connection; the less it has asked for, the sooner it gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Silent,
    Asked,
    Watching,
}

/// The place of a connection, and until when it may keep it.
pub(crate) struct Seat {
    progress: Cell<Progress>,
    ends_at: Cell<Instant>,
}

impl Seat {
    fn new() -> Self {
        Self {
            progress: Cell::new(Progress::Silent),
            ends_at: Cell::new(Instant::now() + CONNECTION_TIMEOUT),
        }
    }

    /// Notes that the connection's request has been read.
    pub(crate) fn has_asked(&self) {
        self.progress.set(Progress::Asked);
    }

    /// Notes that a watcher has room for the next frame; its time begins anew.
    pub(crate) fn goes_on_watching(&self) {
        debug_assert!(
            self.progress.get() >= Progress::Asked,
            "nobody watches unasked"
        );
        self.progress.set(Progress::Watching);
        self.ends_at.set(Instant::now() + CONNECTION_TIMEOUT);
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.progress.get() == Progress::Watching
    }

    /// Returns when its time is over.
    pub(crate) async fn is_out_of_time(&self) {
        while Instant::now() < self.ends_at.get() {
            sleep_until(self.ends_at.get()).await;
        }
    }
}

struct OpenConnection {
    task: AbortHandle,
    seat: Rc<Seat>,
}

/// The connections that are open, oldest first. They end with this.
#[derive(Default)]
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<OpenConnection>,
}

impl Connections {
    /// Runs a connection, in the place of the idlest where there is no other.
    pub(crate) fn open<F: Future<Output = ()> + 'static>(
        &mut self,
        run: impl FnOnce(Rc<Seat>) -> F,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() == CONNECTIONS_MAX {
            self.evict();
        }
        let seat = Rc::new(Seat::new());
        let task = self.tasks.spawn_local(run(seat.clone()));
        self.open.push_back(OpenConnection { task, seat });
        debug_assert!(self.open.len() <= CONNECTIONS_MAX, "one has given way");
    }

    /// Ends the idlest connection, if there is one: of those that are as far, the oldest.
    pub(crate) fn evict(&mut self) {
        let places = 0..self.open.len();
        let idlest = places.min_by_key(|place| self.open[*place].seat.progress.get());
        if let Some(open) = idlest.and_then(|place| self.open.remove(place)) {
            open.task.abort();
        }
    }
}
