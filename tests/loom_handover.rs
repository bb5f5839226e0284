//! Every interleaving of the hand-over: nothing is lost, nobody sleeps beside a full queue, an ack
//! finds its way home.
//!
//! `src/handover.rs` is compiled against loom's primitives. crossbeam's queue, which loom cannot
//! look into, is stood in for by a bounded queue under loom's mutex: what is proved is the protocol
//! around it.

#[path = "../src/handover.rs"]
mod handover;

mod sync {
    use std::collections::VecDeque;

    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    pub struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub fn wake(&self) {
            self.0.wake();
        }
    }

    pub struct ArrayQueue<T> {
        capacity: usize,
        items: loom::sync::Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub fn new(capacity: usize) -> Self {
            Self {
                capacity,
                items: loom::sync::Mutex::default(),
            }
        }

        pub fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            self.items.lock().unwrap().pop_front()
        }
    }
}

use loom::future::block_on;
use loom::thread;

/// Every interleaving with at most three preemptions: a thread that is not made to wait is
/// interrupted that often. All of them, without that bound, take hours.
fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn each_item_arrives_once_and_in_order_and_the_end_is_seen() {
    model(|| {
        let (sender, mut receiver) = handover::channel(2);
        let pushing = thread::spawn(move || {
            assert!(sender.push(1).is_ok());
            assert!(sender.push(2).is_ok());
        });
        let received = block_on(async {
            [
                receiver.recv().await,
                receiver.recv().await,
                receiver.recv().await,
            ]
        });
        assert_eq!(received, [Some(1), Some(2), None]);
        pushing.join().unwrap();
    });
}

#[test]
fn two_senders_lose_nothing() {
    model(|| {
        let (sender, mut receiver) = handover::channel(2);
        let another = sender.clone();
        let one = thread::spawn(move || assert!(sender.push(1).is_ok()));
        let other = thread::spawn(move || assert!(another.push(10).is_ok()));
        let mut sum = 0;
        block_on(async {
            while let Some(item) = receiver.recv().await {
                sum += item;
            }
        });
        assert_eq!(sum, 11);
        one.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_full_queue_gives_the_item_back() {
    model(|| {
        let (sender, mut receiver) = handover::channel(1);
        assert_eq!(sender.push(1), Ok(()));
        assert_eq!(sender.push(2), Err(2));
        assert_eq!(receiver.try_recv(), Some(1));
    });
}

/// The way of a batch: a worker hands it over and waits, delivery takes it and settles it, the
/// worker is woken.
#[test]
fn an_ack_comes_home() {
    model(|| {
        let (to_delivery, mut batches) = handover::channel(1);
        let (to_worker, mut settled) = handover::channel(1);
        let delivering = thread::spawn(move || {
            block_on(async {
                while let Some(batch) = batches.recv().await {
                    assert!(to_worker.push(batch + 1).is_ok());
                }
            });
        });
        for batch in [1, 5] {
            assert!(to_delivery.push(batch).is_ok());
            assert_eq!(block_on(settled.recv()), Some(batch + 1));
        }
        drop(to_delivery);
        delivering.join().unwrap();
    });
}
