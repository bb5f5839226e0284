//! Every interleaving of the queue in front of the commit thread: each item is answered once, no
//! nudge is slept over.

#![allow(dead_code)]

mod sync {
    //! loom in the place of `src/sync.rs`.
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../src/spool/commit/queue.rs"]
mod queue;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use queue::{Bounds, NotTaken, Queue};

/// As in `loom_handover.rs`: at most three preemptions.
fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn every_item_is_given_out_once_before_the_close() {
    model(|| {
        let queue = Arc::new(Queue::new(Bounds {
            items: 2,
            bytes: 100,
        }));
        let pushing: Vec<_> = [1, 10]
            .map(|item| (item, queue.clone()))
            .into_iter()
            .map(|(item, queue)| thread::spawn(move || assert_eq!(queue.push(item, 1), Ok(()))))
            .collect();
        let committing = thread::spawn({
            let queue = queue.clone();
            move || {
                let mut sum = 0;
                loop {
                    let taken = queue.take(1, None);
                    sum += taken.items.iter().sum::<i32>();
                    if taken.closed {
                        return sum;
                    }
                }
            }
        });
        pushing
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        queue.close();
        assert_eq!(committing.join().unwrap(), 11);
        assert_eq!(queue.push(5, 1), Err(NotTaken::Closed(5)));
    });
}

#[test]
fn a_nudge_is_not_slept_over() {
    model(|| {
        let queue = Arc::new(Queue::<u32>::new(Bounds { items: 1, bytes: 1 }));
        let retired = Arc::new(AtomicUsize::new(0));
        let retiring = thread::spawn({
            let (queue, retired) = (queue.clone(), retired.clone());
            move || {
                retired.store(1, Ordering::Release);
                queue.nudge();
            }
        });
        queue.take(1, None);
        assert_eq!(retired.load(Ordering::Acquire), 1);
        retiring.join().unwrap();
    });
}
