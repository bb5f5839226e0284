//! Gathering from the bounded lock-free queues that workers fill and never wait at.

use std::iter;

use crossbeam_queue::ArrayQueue;

/// Takes the items that wait, at most as many as the queue has room for: workers that go on pushing
/// do not hold the reader.
pub(crate) fn waiting<T>(queue: &ArrayQueue<T>) -> impl Iterator<Item = T> {
    iter::from_fn(|| queue.pop()).take(queue.capacity())
}
