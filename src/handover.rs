//! The hand-over: a bounded lock-free queue between two threads that wakes its receiver.
//!
//! Sealed batches cross from workers to delivery in one, settled batches cross back in another. A
//! push is one hand-over and at most one wake; there is no lock, and nothing is allocated after
//! construction. The queue is bounded: a push needs a credit for a place (a lane's in-flight cap),
//! so a full queue is a defect of the caller and gives the item back.
//!
//! The receiver registers its waker before it looks a second time; a push stores before it wakes.
//! One of the two sees the other, so no item is left in the queue with its receiver asleep
//! (`tests/loom_handover.rs` walks every interleaving). When the last sender is gone and the queue
//! is empty, `recv` gives `None`.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::sync::{Arc, ArrayQueue, AtomicUsize, AtomicWaker, Ordering};

/// The state that both sides share.
struct Channel<T> {
    queue: ArrayQueue<T>,
    receiver: AtomicWaker,
    senders: AtomicUsize,
}

/// The pushing side; clones share the queue.
pub struct Sender<T>(Arc<Channel<T>>);

/// The popping side. There is one.
pub struct Receiver<T>(Arc<Channel<T>>);

/// Makes a queue with room for `capacity` items, at least one.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        queue: ArrayQueue::new(capacity.max(1)),
        receiver: AtomicWaker::new(),
        senders: AtomicUsize::new(1),
    });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// Hands `item` over and wakes the receiver; a full queue gives the item back.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.0.queue.push(item)?;
        self.0.receiver.wake();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let before = self.0.senders.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "each sender goes once");
        if before == 1 {
            self.0.receiver.wake();
        }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("handover::Sender")
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item; `None` when every sender is gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// Returns the next item if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.queue.pop()
    }

    /// Polls for the next item, as [`recv`](Self::recv) waits for it, for a task that polls several
    /// things at once.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_recv() {
            return Poll::Ready(Some(item));
        }
        self.0.receiver.register(context.waker());
        // Read before the second look: whatever the last sender pushed is then visible to it.
        let closed = self.0.senders.load(Ordering::Acquire) == 0;
        match self.try_recv() {
            Some(item) => Poll::Ready(Some(item)),
            None if closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
