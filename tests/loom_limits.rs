//! Every interleaving of eviction and takes: the source of the table, on loom's atomics and locks.
//!
//! One place, two devices. A thread that brings a second device in must make room; a take of the first device races
//! with it. Whatever the order, the first device gets its burst once, never twice.

#![allow(dead_code)]

use forebay::internals::config;

mod sync {
    //! loom in the place of `src/sync.rs`.
    pub use loom::sync::atomic::{AtomicU64, Ordering};
    pub use loom::sync::{Mutex, MutexGuard};
    pub use std::sync::Arc;
}

#[path = "../src/limits/table.rs"]
mod table;
#[path = "../src/limits/token_bucket.rs"]
mod token_bucket;

use std::sync::Arc;

use config::Quota;
use loom::thread;
use table::{Handle, NotTaken, Table, Which};
use token_bucket::{Nanos, Rule};

const NOW: Nanos = Nanos(1_000_000_000);

/// One token, and no second one for a long time.
fn rule() -> Rule {
    Rule::new(Quota {
        rate: 0.001,
        burst: 1,
    })
}

fn passes(handle: &Handle, which: Which) -> usize {
    usize::from(handle.take(which, &rule(), 1, NOW).is_ok())
}

#[test]
fn a_bucket_that_races_with_its_eviction_grants_its_burst_once() {
    loom::model(|| {
        let table = Arc::new(Table::new(1));
        let handle = table.handle("first", NOW).unwrap();
        let newcomer = thread::spawn({
            let table = table.clone();
            // The newcomer's bucket stays full: the first device may have its place back.
            move || table.handle("second", NOW).map(drop).is_ok()
        });
        let granted = passes(&handle, Which::First) + passes(&handle, Which::First);
        newcomer.join().unwrap();
        assert_eq!(granted, 1);
        assert_eq!(
            passes(&handle, Which::First),
            0,
            "the token is gone for good"
        );
        assert_eq!(table.len(), 1);
    });
}

#[test]
fn two_connections_of_an_evicted_device_share_one_bucket() {
    loom::model(|| {
        let table = Arc::new(Table::new(1));
        let handle = table.handle("first", NOW).unwrap();
        let other = table.handle("first", NOW).unwrap();
        table.handle("second", NOW).unwrap();
        let other = thread::spawn(move || passes(&other, Which::First));
        let granted = passes(&handle, Which::First);
        assert_eq!(granted + other.join().unwrap(), 1);
    });
}

#[test]
fn a_half_evicted_entry_is_restored() {
    loom::model(|| {
        let table = Arc::new(Table::new(1));
        let handle = table.handle("first", NOW).unwrap();
        let other = table.handle("first", NOW).unwrap();
        let second_bucket = thread::spawn(move || passes(&other, Which::Second));
        let newcomer = table.handle("second", NOW).map(drop);
        let first_bucket = handle.take(Which::First, &rule(), 1, NOW);
        assert_eq!(second_bucket.join().unwrap(), 1);
        assert_eq!(first_bucket, Ok(()));
        assert_eq!(
            passes(&handle, Which::First) + passes(&handle, Which::Second),
            0,
            "both are spent, {newcomer:?}"
        );
    });
}

#[test]
fn a_take_finds_no_room_only_when_another_holds_the_place() {
    loom::model(|| {
        let table = Arc::new(Table::new(1));
        let handle = table.handle("first", NOW).unwrap();
        let other = thread::spawn({
            let table = table.clone();
            move || {
                table
                    .handle("second", NOW)
                    .is_ok_and(|handle| passes(&handle, Which::First) == 1)
            }
        });
        let taken = handle.take(Which::First, &rule(), 1, NOW);
        let other_took = other.join().unwrap();
        assert!(taken.is_ok() || (taken == Err(NotTaken::TableFull) && other_took));
        assert_ne!(taken.is_ok(), other_took, "one place serves one device");
    });
}
