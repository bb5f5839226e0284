//! One step of a handshake at a time on each worker, and news from the sockets before the next one.
//!
//! A step is a key exchange and a signature, or the check of a chain: some hundred microseconds,
//! for which the attacker pays with a packet. Hundreds of hellos that arrive at once would all
//! stand before the next request of a device that is connected. So they wait in line for their
//! [`Turns`], first come, first served, and whatever has arrived meanwhile is looked at after each.
//! It costs a handshake no more than one look at the sockets.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// The line of one worker's handshakes.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Does this when its turn has come, and gives the others theirs.
    pub(crate) async fn take<T>(&self, step: impl FnOnce() -> T) -> T {
        let turn = self.wait().await;
        debug_assert_eq!(self.0.available_permits(), 0, "one step at a time");
        let done = step();
        // Woken after the sockets have been asked for news.
        yield_now().await;
        drop(turn);
        done
    }

    /// Drives a future to its end: each time that it can go on is a step.
    pub(crate) async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let woken = Arc::new(Woken {
            is_woken: true.into(),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(woken.clone());
        loop {
            woken.wait().await;
            let step = || future.as_mut().poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(done) = self.take(step).await {
                return done;
            }
        }
    }

    async fn wait(&self) -> SemaphorePermit<'_> {
        self.0.acquire().await.expect("it is never closed")
    }
}

/// Whether a future can go on. A waker of its own: that of its task is also woken by turns.
struct Woken {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Woken {
    async fn wait(&self) {
        poll_fn(|context| {
            self.task.register(context.waker());
            if self.is_woken.swap(false, Ordering::AcqRel) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    const MANY: u32 = 100;

    /// Two steps: it waits once in between.
    async fn handshake(steps: &Cell<u32>, go_on: oneshot::Receiver<()>) {
        steps.set(steps.get() + 1);
        go_on.await.expect("it is told to");
        steps.set(steps.get() + 1);
    }

    /// All hellos are there at once, and then all of what follows: after each step there is time
    /// for a request.
    #[tokio::test]
    async fn a_request_waits_for_no_line_of_handshakes() {
        let (turns, steps) = (Rc::new(Turns::default()), Rc::new(Cell::new(0)));
        let (mut tasks, most) = (tokio::task::JoinSet::new(), Rc::new(Cell::new(0)));
        let request = {
            let (steps, most) = (steps.clone(), most.clone());
            async move {
                loop {
                    let before = steps.get();
                    yield_now().await;
                    most.set(most.get().max(steps.get() - before));
                }
            }
        };
        let run = async {
            let request = tokio::task::spawn_local(request);
            let mut waiting = Vec::new();
            for _ in 0..MANY {
                let (tell, told) = oneshot::channel();
                waiting.push(tell);
                let (turns, steps) = (turns.clone(), steps.clone());
                tasks.spawn_local(async move { turns.drive(handshake(&steps, told)).await });
            }
            while steps.get() < MANY {
                yield_now().await;
            }
            waiting
                .into_iter()
                .for_each(|tell| tell.send(()).expect("it waits"));
            while tasks.join_next().await.is_some() {}
            request.abort();
        };
        LocalSet::new().run_until(run).await;
        assert_eq!(steps.get(), 2 * MANY, "each has come to its end");
        // One that has begun, and the next one.
        assert!(most.get() <= 2, "{} steps before a request", most.get());
    }

    /// A waiter that gives up in the line, or in the middle of a step, leaves its turn to the others.
    #[tokio::test]
    async fn a_turn_that_is_not_wanted_any_more_is_the_next_ones() {
        let turns = Turns::default();
        let mut taken = Box::pin(turns.take(|| ()));
        assert!((&mut taken).now_or_never().is_none(), "the others' time");
        let mut in_line = Box::pin(turns.take(|| ()));
        assert!((&mut in_line).now_or_never().is_none());
        drop((taken, in_line));
        turns.take(|| ()).await;
    }
}
