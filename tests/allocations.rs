//! The allocations of one HTTP/1.1 request, once the gateway is warm: its payload, and no other.
//!
//! The service runs with the null sink over in-memory pipes, on one thread, with an allocator that counts. What a batch
//! allocates is shared by its requests; the count is that of both ends, and the client's end allocates a little too.
#![allow(unsafe_code)] // an allocator that counts

#[path = "../benches/support/service.rs"]
#[allow(dead_code)] // HTTP/2 is for the others
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use futures_util::future::join_all;
use support::{H1, runtime, service};
use tokio::task::{LocalSet, spawn_local};

/// Requests under way at once: one batch.
const CLIENTS: usize = 30;

/// Of its own: the payload.
const OF_A_REQUEST: f64 = 1.0;

/// A batch's task, its way through delivery, and the client's round; for all its requests together.
const OF_A_BATCH: f64 = 12.0;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn a_request_allocates_its_payload_and_nothing_else() {
    const ROUNDS: usize = 50;
    let (runtime, idle) = runtime(true);
    let allocations = LocalSet::new().block_on(&runtime, async {
        let (service, null) = service(idle);
        spawn_local(null.deliver());
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|number| H1::open(&service, number))
            .collect();
        let mut before = 0;
        for round in 0..2 * ROUNDS {
            if round == ROUNDS {
                before = ALLOCATIONS.get();
            }
            join_all(clients.iter_mut().map(H1::post)).await;
        }
        ALLOCATIONS.get() - before
    });
    let of_a_round = allocations as f64 / ROUNDS as f64;
    println!("{:.2} allocations a request", of_a_round / CLIENTS as f64);
    let most = OF_A_REQUEST * CLIENTS as f64 + OF_A_BATCH;
    assert!(
        of_a_round <= most,
        "{of_a_round} allocations for {CLIENTS} requests"
    );
}
