//! Tests of the whole spool, and the commit queue's bounds: `tests/loom_spool.rs` compiles its
//! source, so they stand here.

pub(crate) mod either;
mod model;
pub(crate) mod sim;
mod whole;

use std::time::Duration;

use crate::spool::commit::queue::{Bounds, NotTaken, Queue, Taken};

fn queue(items: usize, bytes: usize) -> Queue<u32> {
    Queue::new(Bounds { items, bytes })
}

#[test]
fn it_is_bounded_in_items_and_in_bytes() {
    let queue = queue(3, 10);
    assert_eq!(queue.push(1, 11), Ok(()));
    assert_eq!(queue.push(2, 1), Err(NotTaken::Full(2)));
    assert_eq!(queue.take(1, None).items, [1]);
    for item in 1..=3 {
        assert_eq!(queue.push(item, 1), Ok(()));
    }
    assert_eq!(queue.push(4, 1), Err(NotTaken::Full(4)));
}

#[test]
fn a_round_ends_once_it_has_its_bytes_and_a_close_comes_last() {
    let queue = queue(9, 100);
    for item in 0..4 {
        queue.push(item, 10).unwrap();
    }
    queue.close();
    assert_eq!(queue.push(9, 1), Err(NotTaken::Closed(9)));
    assert_eq!(
        queue.take(11, None),
        Taken {
            items: vec![0, 1],
            closed: false
        }
    );
    assert_eq!(
        queue.take(99, None),
        Taken {
            items: vec![2, 3],
            closed: true
        }
    );
    assert_eq!(
        queue.take(99, None),
        Taken {
            items: vec![],
            closed: true
        }
    );
}

#[test]
fn a_nudge_and_a_time_out_wake_without_items() {
    let queue = queue(1, 1);
    queue.nudge();
    let nothing = Taken {
        items: vec![],
        closed: false,
    };
    assert_eq!(queue.take(1, None), nothing);
    assert_eq!(queue.take(1, Some(Duration::ZERO)), nothing);
}
