//! The service with the null sink: what one request costs the gateway, by protocol. For h1 and h2 that is beside TLS and
//! the kernel; h3 is one with its transport, so it goes over UDP's loopback, with QUIC, TLS and the kernel of both ends.
//!
//! [`REQUESTS`] are under way at once, as on a busy gateway, and delivery has a thread of its own; the figure is that of
//! one round of all of them.

#[path = "support/h3.rs"]
mod h3;
#[path = "support/service.rs"]
mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use h3::{H3, Loopback};
use support::{H1, H2, Null, Tells, runtime, service};
use tokio::task::LocalSet;

const REQUESTS: usize = 64;
const SHARED_CONNECTIONS: usize = 8;

fn deliver(null: Null) {
    std::thread::spawn(move || LocalSet::new().block_on(&runtime(false).0, null.deliver()));
}

fn h1_null_sink(criterion: &mut Criterion) {
    h1(criterion, "h1 into the null sink", Tells::Nothing);
    h1(
        criterion,
        "h1 into the null sink, fleet events told",
        Tells::Events,
    );
}

fn h1(criterion: &mut Criterion, name: &str, tells: Tells) {
    let ((runtime, idle), local) = (runtime(false), LocalSet::new());
    let mut clients: Vec<_> = local.block_on(&runtime, async {
        let (service, null) = service(tells, idle);
        deliver(null);
        (0..REQUESTS)
            .map(|number| H1::open(&service, number))
            .collect()
    });
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(REQUESTS as u64));
    group.bench_function(name, |bench| {
        bench.iter(|| drop(local.block_on(&runtime, join_all(clients.iter_mut().map(H1::post)))))
    });
}

fn h2_null_sink(criterion: &mut Criterion) {
    let ((runtime, idle), local) = (runtime(false), LocalSet::new());
    let mut clients: Vec<_> = local.block_on(&runtime, async {
        let (service, null) = service(Tells::Nothing, idle);
        deliver(null);
        let connections =
            join_all((0..SHARED_CONNECTIONS).map(|number| H2::open(&service, number))).await;
        connections.into_iter().cycle().take(REQUESTS).collect()
    });
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(REQUESTS as u64));
    group.bench_function("h2 into the null sink", |bench| {
        bench.iter(|| drop(local.block_on(&runtime, join_all(clients.iter_mut().map(H2::post)))))
    });
}

fn h3_null_sink(criterion: &mut Criterion) {
    let ((runtime, idle), local) = (runtime(false), LocalSet::new());
    let mut clients: Vec<_> = local.block_on(&runtime, async {
        let (service, null) = service(Tells::Nothing, idle);
        deliver(null);
        let loopback = Loopback::new();
        let mut connections = Vec::new();
        for number in 0..SHARED_CONNECTIONS {
            connections.push(H3::open(&loopback, &service, number).await);
        }
        connections.into_iter().cycle().take(REQUESTS).collect()
    });
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(REQUESTS as u64));
    group.bench_function("h3 into the null sink", |bench| {
        bench.iter(|| drop(local.block_on(&runtime, join_all(clients.iter_mut().map(H3::post)))))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = h1_null_sink, h2_null_sink, h3_null_sink
}
criterion_main!(benches);
