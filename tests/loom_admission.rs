//! Every interleaving of permits that grow and go: the source of the budget and of permits, on loom's atomics.

#![allow(dead_code)]

mod sync {
    //! loom in the place of `src/sync.rs`.
    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicUsize, Ordering};
}

mod record {
    pub(crate) use crate::permit::{DeviceMemory, Permit, Reserved};
}

#[path = "../src/admission/budget.rs"]
mod budget;
#[path = "../src/record/permit.rs"]
mod permit;

use loom::sync::Arc;
use loom::thread;

use budget::Budget;
use record::DeviceMemory;

/// As in `loom_handover.rs`: at most three preemptions.
fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// Two devices at once; the budget has room for both, or for one.
fn two_devices_grow(budget_bytes: usize, record_bytes: usize) {
    model(move || {
        let budget = Arc::new(Budget::new(budget_bytes, record_bytes));
        let grow = |budget: Arc<Budget>| {
            move || {
                let device = DeviceMemory::default();
                let mut permit = budget.permit(&device);
                let grown = budget.grow(&mut permit, record_bytes);
                let held = if grown.is_ok() { record_bytes } else { 0 };
                assert_eq!(permit.bytes(), held);
                assert_eq!(device.held_bytes(), held);
                permit
            }
        };
        let other = thread::spawn(grow(budget.clone()));
        let one = grow(budget.clone())();
        let other = other.join().unwrap();
        let granted = one.bytes() + other.bytes();
        assert!(granted <= budget_bytes, "{granted} of {budget_bytes}");
        assert_eq!(budget.reserved_bytes(), granted);
        drop((one, other));
        assert_eq!(budget.reserved_bytes(), 0);
    });
}

#[test]
fn permits_never_exceed_the_budget() {
    two_devices_grow(10, 7);
    two_devices_grow(14, 7);
}

/// A permit goes on one thread, as records do, while another of the same device grows.
#[test]
fn a_device_keeps_to_its_share_while_its_records_go() {
    model(|| {
        let budget = Arc::new(Budget::new(32, 3));
        let device = DeviceMemory::default();
        let mut first = budget.permit(&device);
        budget.grow(&mut first, 4).unwrap();
        let settling = thread::spawn(move || drop(first));
        let mut second = budget.permit(&device);
        // With the first one it is more than an eighth.
        let grown = budget.grow(&mut second, 3);
        settling.join().unwrap();
        assert_eq!(device.held_bytes(), second.bytes());
        assert_eq!(grown.is_ok(), second.bytes() == 3);
        drop(second);
        assert_eq!((budget.reserved_bytes(), device.held_bytes()), (0, 0));
    });
}
