//! The allocations of one HTTP/1.1 request, once the gateway is warm: its payload, also where fleet events are told; and those
//! that events add to a connection.
//!
//! The service runs with the null sink over in-memory pipes, on one thread, with an allocator that counts. What a batch
//! allocates is shared by its requests; the count is that of both ends, and the client's end allocates a little too.
#![allow(unsafe_code)] // an allocator that counts

#[path = "../benches/support/service.rs"]
#[allow(dead_code)] // HTTP/2 is for the others
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;

use forebay::internals::http::Service;
use futures_util::future::join_all;
use support::{H1, Tells, runtime, service};
use tokio::task::{LocalSet, spawn_local, yield_now};

/// Requests under way at once: one batch.
const CLIENTS: usize = 30;

/// Of its own: the payload.
const OF_A_REQUEST: f64 = 1.0;

/// A batch's task, its way through delivery, and the client's round; for all its requests together.
const OF_A_BATCH: f64 = 12.0;

/// Connections that are counted, after as many that are not.
const CONNECTIONS: usize = 100;

/// Allocations that fleet events add to a connection, batches and all.
const OF_A_CONNECTION_TOLD: f64 = 30.0;

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

/// Allocations of the service that is told about, as a runtime without time sees them.
fn on_a_worker<T>(tells: Tells, work: impl AsyncFnOnce(Rc<Service>) -> T) -> T {
    let (runtime, idle) = runtime(true);
    LocalSet::new().block_on(&runtime, async {
        let (service, null) = service(tells, idle);
        spawn_local(null.deliver());
        work(service).await
    })
}

#[test]
fn a_request_allocates_its_payload_and_nothing_else() {
    const ROUNDS: usize = 50;
    // Of the parts of a head that only front doors read, those that are shut keep nothing.
    const OF_A_DOOR: &str = "/v1/telemetry?qos=1";
    for (tells, path) in [
        (Tells::Nothing, "/v1/telemetry"),
        (Tells::Events, "/v1/telemetry"),
        (Tells::Nothing, OF_A_DOOR),
    ] {
        let allocations = on_a_worker(tells, async |service| {
            let opened = (0..CLIENTS).map(|number| H1::to(&service, number, path));
            let mut clients: Vec<_> = opened.collect();
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
        let of_a_request = of_a_round / CLIENTS as f64;
        println!("{tells:?} {path}: {of_a_request:.2} allocations a request");
        let most = OF_A_REQUEST * CLIENTS as f64 + OF_A_BATCH;
        assert!(
            of_a_round <= most,
            "{tells:?} {path}: {of_a_round} allocations for {CLIENTS} requests"
        );
    }
}

/// Allocations of connections, each with one request, that come and go one after the other.
async fn of_connections(service: Rc<Service>) -> usize {
    let mut before = 0;
    for number in 0..2 * CONNECTIONS {
        if number == CONNECTIONS {
            before = ALLOCATIONS.get();
        }
        let mut client = H1::open(&service, number);
        client.post().await;
        drop(client);
        // Its connection holds the service for as long as it lives.
        while Rc::strong_count(&service) > 1 {
            yield_now().await;
        }
    }
    ALLOCATIONS.get() - before
}

/// Its coming, what it has sent, its going: three events, each with its text.
#[test]
fn a_connection_that_is_told_of_allocates_a_few_times_more() {
    let untold = on_a_worker(Tells::Nothing, of_connections);
    let told = on_a_worker(Tells::Events, of_connections);
    let more = (told as f64 - untold as f64) / CONNECTIONS as f64;
    println!("{more:.2} allocations more for a connection");
    assert!(more > 3.0, "each event has its text: {more}");
    assert!(more <= OF_A_CONNECTION_TOLD, "{more}");
}
