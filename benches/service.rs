//! The service with the null sink: what one request costs the gateway beside TLS and the kernel.
//!
//! Requests come over in-memory pipes into the real h1 adapter: limits, admission, batcher, both hand-overs, a
//! delivery thread and the ack. [`CONNECTIONS`] requests are under way at once, as on a busy gateway; the figure is
//! that of one round of all of them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::admission::Admission;
use forebay::batcher::{Batcher, IN_FLIGHT_BATCHES_MAX};
use forebay::config::{AckConfig, AckMode, BatchConfig, LimitsConfig, Quota, SinkConfig, StreamConfig};
use forebay::delivery::{Delivery, Health};
use forebay::handover;
use forebay::http::{Connection, Service, h1};
use forebay::identity::Device;
use forebay::ingest::{Authorities, Caller, Ingest, KnownDevice, Routes};
use forebay::limits::{Clock, Limits};
use forebay::record::{Batch, DeviceId, Timestamp};
use forebay::sink::{Sink, SinkOptions};
use forebay::telemetry::metrics::{Metrics, Protocol};
use forebay::tls::Revocation;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::LocalSet;

const CONNECTIONS: usize = 64;
const BODY_BYTES: usize = 344;
const PIPE_BYTES: usize = 16 * 1024;
const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n";
const UNLIMITED: Quota = Quota { rate: 0.0, burst: 0 };

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn streams() -> Vec<StreamConfig> {
    vec![StreamConfig { name: "telemetry".into(), target: "telemetry".into() }]
}

fn limits() -> Limits {
    Limits::new(&LimitsConfig {
        device_requests: Quota { rate: 1e9, burst: 1 << 40 },
        device_bytes: Quota { rate: 1e12, burst: 1 << 50 },
        device_classes: Vec::new(),
        address_requests: Quota { rate: 1e9, burst: 1 << 40 },
        address_handshakes: UNLIMITED,
        gateway_requests: UNLIMITED,
        devices_max: 1000,
    })
}

/// A thread that delivers every batch to the null sink, as the gateway's own does.
fn deliver(batches: handover::Receiver<Batch>, health: Arc<Health>, metrics: Arc<Metrics>) {
    let options = SinkOptions {
        streams: streams(),
        body_bytes_max: BODY_BYTES,
        ack_timeout: Duration::from_secs(10),
        in_flight_batches_max: IN_FLIGHT_BATCHES_MAX,
    };
    LocalSet::new().block_on(&runtime(), async {
        let sink = Sink::open(&SinkConfig::Null, options).await.expect("the null sink opens");
        Delivery::new(sink, health, metrics).run(batches).await;
    });
}

fn service(local: &LocalSet) -> Rc<Service> {
    let health = Arc::new(Health::up());
    let metrics = Arc::new(Metrics::new(1, &["telemetry".into()], vec![]));
    let (delivery, batches) = handover::channel(IN_FLIGHT_BATCHES_MAX);
    let (home, settled) = handover::channel(IN_FLIGHT_BATCHES_MAX);
    let delivering = (health.clone(), metrics.clone());
    std::thread::spawn(move || deliver(batches, delivering.0, delivering.1));
    let batch = BatchConfig { bytes_max: 512 * 1024, records_max: 512, linger: Duration::from_millis(5) };
    let ack = AckConfig { mode: AckMode::Durable, timeout: Duration::from_secs(10) };
    let batcher = Rc::new(Batcher::new(1, batch, ack, delivery, home, metrics.worker(0)));
    local.spawn_local({
        let batcher = batcher.clone();
        async move { batcher.run(settled).await }
    });
    let ingest = Ingest {
        clock: Clock::new(),
        limits: Arc::new(limits()),
        admission: Arc::new(Admission::new(1 << 30, health)),
        batcher,
        routes: Arc::new(Routes::new(Authorities::new(["localhost"]), &streams(), &[])),
        body_bytes_max: 256 * 1024,
        body_timeout: Duration::from_secs(30),
    };
    Rc::new(Service {
        ingest,
        metrics: metrics.worker(0),
        alt_svc: Some(http::HeaderValue::from_static("h3=\":8443\"; ma=86400")),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(300),
        bell: Rc::default(),
        h1_accepted: h1::Accepted::default(),
        revocation: watch::channel(Arc::new(Revocation::off())).1,
    })
}

fn caller(service: &Service, number: usize) -> Caller {
    let (limits, now) = (&service.ingest.limits, service.ingest.clock.now());
    let id = DeviceId::parse(&format!("meter-{number}")).expect("an id");
    let device = Device {
        id: id.clone(),
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        notice_from: Timestamp(u64::MAX),
        expires: http::HeaderValue::from_static(""),
    };
    let device = Ok(KnownDevice { device, limits: limits.device(&id, now) });
    let address_limits = limits.address([127, 0, 0, 1].into(), now).expect("there is room");
    Caller { device, chain: Vec::new(), is_revoked: false.into(), address_limits }
}

/// A client's end of a connection that the service serves.
fn connect(local: &LocalSet, service: &Rc<Service>, number: usize) -> DuplexStream {
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    let connection = Connection::new(Protocol::H1, caller(service, number), service.metrics.clone());
    local.spawn_local(h1::serve(BufReader::new(server), connection, service.clone()));
    client
}

/// Sends the request, then reads the answer: a 204 ends with its head.
async fn post(client: &mut DuplexStream, request: &[u8]) {
    client.write_all(request).await.expect("the connection lives");
    let mut answer = [0; 512];
    let mut filled = 0;
    while !answer[..filled].ends_with(b"\r\n\r\n") {
        filled += client.read(&mut answer[filled..]).await.expect("the connection lives");
    }
    assert!(answer.starts_with(ANSWER), "{}", String::from_utf8_lossy(&answer[..filled]));
}

fn h1_null_sink(criterion: &mut Criterion) {
    let (runtime, local) = (runtime(), LocalSet::new());
    let (service, mut clients) = local.block_on(&runtime, async {
        let service = service(&local);
        let clients: Vec<_> = (0..CONNECTIONS).map(|number| connect(&local, &service, number)).collect();
        (service, clients)
    });
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ";
    let request = format!("{head}{BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES));
    let mut group = criterion.benchmark_group("service");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("h1 into the null sink", |bench| {
        bench.iter(|| {
            let posts = clients.iter_mut().map(|client| post(client, request.as_bytes()));
            local.block_on(&runtime, futures_util::future::join_all(posts));
        })
    });
    group.finish();
    drop(service);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = h1_null_sink
}
criterion_main!(benches);
