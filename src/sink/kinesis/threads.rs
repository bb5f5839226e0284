//! The threads that make the calls of all streams.
//!
//! A call is JSON, a signature and TLS: more than a worker spends on the records in it. So there are
//! as many threads as workers, each with a runtime of its own, and the calls take turns with them,
//! whichever stream they are of; a dispatcher only picks the puts and settles the answers. Where
//! there is one worker there is no thread: delivery's own makes the calls, as hand-overs would cost
//! more than they bring. The threads end with the sink, and with them the calls that are under way.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::config::host;

/// Name of each of them.
pub(crate) const THREAD: &str = "forebay-kinesis";

/// The runtimes that calls take turns with.
pub(crate) struct CallThreads {
    handles: Vec<Handle>,
    turn: AtomicUsize,
    /// Dropped, each ends its thread.
    _ends: Vec<oneshot::Sender<()>>,
}

impl CallThreads {
    /// Starts so many; one is the current runtime's own.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        assert!(count > 0, "calls are made somewhere");
        let (mut handles, mut ends) = (Vec::new(), Vec::new());
        if count == 1 {
            handles.push(Handle::current());
        } else {
            for _ in 0..count {
                let (end, ended) = oneshot::channel();
                handles.push(start(ended)?);
                ends.push(end);
            }
        }
        Ok(Self {
            handles,
            turn: AtomicUsize::new(0),
            _ends: ends,
        })
    }

    /// Returns the runtime whose turn it is.
    pub(super) fn next(&self) -> &Handle {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.handles[turn % self.handles.len()]
    }
}

/// Starts a thread that runs what is spawned on it until `ended`.
fn start(ended: oneshot::Receiver<()>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || {
        host::schedule_as_batch();
        // The end is that the sender is dropped.
        let _ = runtime.block_on(ended);
    };
    thread::Builder::new().name(THREAD.into()).spawn(run)?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;

    use super::*;

    /// The threads on which so many calls are made, one after the other.
    async fn threads_of_calls(threads: &CallThreads, calls: usize) -> Vec<ThreadId> {
        let mut seen = Vec::new();
        for _ in 0..calls {
            let call = threads.next().spawn(async { thread::current().id() });
            seen.push(call.await.expect("it ends well"));
        }
        seen
    }

    #[tokio::test]
    async fn calls_take_turns_with_the_threads() {
        let threads = CallThreads::start(3).expect("threads");
        let seen = threads_of_calls(&threads, 6).await;
        assert_eq!(seen[..3], seen[3..]);
        let here = thread::current().id();
        assert!(!seen.contains(&here));
        assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[2] != seen[0]);
    }

    #[tokio::test]
    async fn where_there_is_one_it_is_this_one() {
        let threads = CallThreads::start(1).expect("no thread is needed");
        let here = thread::current().id();
        assert_eq!(threads_of_calls(&threads, 2).await, [here, here]);
    }

    #[tokio::test]
    async fn calls_under_way_end_with_the_sink() {
        let threads = CallThreads::start(2).expect("threads");
        let call = threads.next().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
    }
}
