//! The moments at which a worker has nothing else to do: then a batch need not wait for company.
//!
//! The worker's runtime signals one before its thread goes to sleep, and the batcher waits for it.
//! Both are on the worker's own thread, though tokio's hook asks for a type that could be shared.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::runtime::Builder;

/// Tells the batcher of one worker when that worker is idle.
#[derive(Clone, Debug, Default)]
pub struct IdleSignal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    idle_moments: AtomicU32,
    batcher: AtomicWaker,
}

impl IdleSignal {
    /// Signals each time before the thread of the single-threaded runtime that is built sleeps. A
    /// waiting task is polled before it does, and after the sockets have been asked for news.
    pub fn of(runtime: &mut Builder) -> Self {
        let signal = Self::default();
        let inner = signal.0.clone();
        runtime.on_thread_park(move || inner.signal());
        signal
    }

    /// Signals once, for a test that has several workers on one thread.
    #[cfg(test)]
    pub(crate) fn signal(&self) {
        self.0.signal();
    }

    /// Waits for the next idle moment.
    pub fn wait(&self) -> impl Future<Output = ()> {
        let seen = self.0.count();
        poll_fn(move |context| {
            self.0.batcher.register(context.waker());
            if self.0.count() == seen {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
    }
}

impl Inner {
    fn count(&self) -> u32 {
        self.idle_moments.load(Ordering::Relaxed)
    }

    fn signal(&self) {
        self.idle_moments.fetch_add(1, Ordering::Relaxed);
        self.batcher.wake();
    }
}
