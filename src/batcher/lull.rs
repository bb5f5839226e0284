//! The moments at which a worker has nothing else to do: then a batch need not wait for company.
//!
//! The worker's runtime says so before it goes to sleep, and the batcher waits for it. Both are on the worker's own thread,
//! though tokio's hook asks for what could be shared.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::runtime::Builder;

/// One worker's.
#[derive(Clone, Debug, Default)]
pub struct Lull(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lulls: AtomicU32,
    batcher: AtomicWaker,
}

impl Lull {
    /// Those of the single-threaded runtime that is built. What waits for one is polled before the thread sleeps, and after
    /// the sockets have been asked for news.
    pub fn of(runtime: &mut Builder) -> Self {
        let lull = Self::default();
        let inner = lull.0.clone();
        runtime.on_thread_park(move || inner.begin());
        lull
    }

    /// Waits for the next one.
    pub fn wait(&self) -> impl Future<Output = ()> {
        let seen = self.0.lulls.load(Ordering::Relaxed);
        poll_fn(move |context| {
            self.0.batcher.register(context.waker());
            if self.0.lulls.load(Ordering::Relaxed) == seen {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
    }
}

impl Inner {
    fn begin(&self) {
        self.lulls.fetch_add(1, Ordering::Relaxed);
        self.batcher.wake();
    }
}
