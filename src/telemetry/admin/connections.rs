//! The connections of the admin address: a bounded number, of which the idlest gives way.
//!
//! Nobody waits for a place: a newcomer is served at once, and where all places are taken the
//! connection that has waited longest without a request ends, or, where all have asked, the oldest.
//! So clients that connect and say nothing, or that take no answer, hold places only until somebody
//! else wants them. A probe asks as soon as it is connected and is answered in the same turn.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;

use tokio::task::{AbortHandle, JoinSet};

/// The most connections at once.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Tells that a connection's request has been read.
#[derive(Clone, Default)]
pub(crate) struct Asks(Rc<Cell<bool>>);

impl Asks {
    pub(crate) fn has_asked(&self) {
        self.0.set(true);
    }
}

struct OpenConnection {
    task: AbortHandle,
    asks: Asks,
}

/// The connections that are open, oldest first. They end with this.
#[derive(Default)]
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<OpenConnection>,
}

impl Connections {
    /// Runs a connection, in the place of the idlest where there is no other.
    pub(crate) fn open<F: Future<Output = ()> + 'static>(&mut self, run: impl FnOnce(Asks) -> F) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() == CONNECTIONS_MAX {
            self.evict();
        }
        let asks = Asks::default();
        let task = self.tasks.spawn_local(run(asks.clone()));
        self.open.push_back(OpenConnection { task, asks });
        debug_assert!(self.open.len() <= CONNECTIONS_MAX, "one has given way");
    }

    /// Ends the idlest connection, if there is one.
    pub(crate) fn evict(&mut self) {
        let silent = self.open.iter().position(|open| !open.asks.0.get());
        if let Some(open) = self.open.remove(silent.unwrap_or(0)) {
            open.task.abort();
        }
    }
}
