//! The service of one worker with the null sink, over in-memory pipes: what a request costs the gateway beside TLS and the
//! kernel. Used by the criterion bench, and by the test that counts instructions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::internals::admission::Admission;
use forebay::internals::batcher::IdleSignal;
use forebay::internals::batcher::{Batcher, Queues, in_flight_batches_max};
use forebay::internals::config::{
    AckConfig, AckMode, BatchConfig, ContentEncodings, EventsConfig, HttpConfig, LimitsConfig,
    Quota, SinkConfig, StreamConfig,
};
use forebay::internals::delivery::{Delivery, DeliveryOptions};
use forebay::internals::devices::Fingerprint;
use forebay::internals::events::{Events, Reporter};
use forebay::internals::handover;
use forebay::internals::health::Health;
use forebay::internals::http::{Bell, Connection, Service, h1, h2};
use forebay::internals::identity::{Credential, Device, Vouched};
use forebay::internals::ingest::{Authorities, Caller, Gate, Ingest, KnownDevice, Routes};
use forebay::internals::lifecycle::Phases;
use forebay::internals::limits::Limits;
use forebay::internals::record::{Batch, DeviceId, StreamIndex, Timestamp};
use forebay::internals::rules::Rulebook;
use forebay::internals::sink::{Sink, SinkOptions};
use forebay::internals::telemetry::{Metrics, WorkerObservers};
use forebay::internals::tls::Revocation;
use forebay::internals::words::Protocol;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::spawn_local;

pub const BODY_BYTES: usize = 344;
const PIPE_BYTES: usize = 16 * 1024;
const UNLIMITED: Quota = Quota {
    rate: 0.0,
    burst: 0,
};

/// Whether a service tells of its connections, in the second of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    Nothing,
    Events,
}

impl Tells {
    fn streams(self) -> Vec<StreamConfig> {
        let names: &[&str] = match self {
            Self::Nothing => &["telemetry"],
            Self::Events => &["telemetry", "fleet-events"],
        };
        let stream = |name: &&str| StreamConfig {
            name: (*name).to_owned(),
            target: (*name).to_owned(),
        };
        names.iter().map(stream).collect()
    }

    fn config(self) -> Option<EventsConfig> {
        (self == Self::Events).then(|| EventsConfig {
            stream: StreamIndex(1),
            replica: "gw-1".into(),
            usage_interval: Some(Duration::from_secs(3600)),
        })
    }
}

/// Buckets that count and never run dry.
fn limits() -> Limits {
    Limits::new(&LimitsConfig {
        device_requests: Quota {
            rate: 1e9,
            burst: 1 << 40,
        },
        device_bytes: Quota {
            rate: 1e12,
            burst: 1 << 50,
        },
        device_classes: Vec::new(),
        address_requests: Quota {
            rate: 1e9,
            burst: 1 << 40,
        },
        address_handshakes: UNLIMITED,
        gateway_requests: UNLIMITED,
        devices_max: 1000,
    })
}

fn http_config() -> HttpConfig {
    HttpConfig {
        body_bytes_max: 256 * 1024,
        records_bytes_max: 16 * 1024 * 1024,
        records_max: 10_000,
        content_encodings: ContentEncodings {
            gzip: true,
            zstd: true,
        },
        authorities: Vec::new(),
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        body_rate_min: 1024,
        idle_timeout: Duration::from_secs(300),
    }
}

const BATCH: BatchConfig = BatchConfig {
    bytes_max: 512 * 1024,
    records_max: 512,
    linger: Duration::from_secs(1),
};

/// Takes the batches of a service to the null sink.
pub struct Null {
    streams: Vec<StreamConfig>,
    batches: handover::Receiver<Batch>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Null {
    /// Delivers for as long as the service lives. On a thread of its own, as in the gateway, or on the service's.
    pub async fn deliver(self) {
        let options = SinkOptions {
            streams: self.streams.clone(),
            body_bytes_max: BODY_BYTES,
            ack_timeout: Duration::from_secs(10),
            memory_bytes_max: 64 << 20,
            in_flight_batches_max: in_flight_batches_max(1),
            threads: 1,
        };
        let sink = Sink::open(&SinkConfig::Null, options, |_| {})
            .await
            .expect("the null sink opens");
        let options = DeliveryOptions {
            streams: self.streams,
            batch: BATCH,
            stream_batches_max: in_flight_batches_max(1),
            shared_batches_max: 0,
            ack_timeout: Duration::from_secs(10),
        };
        Delivery::new(sink, None, self.health, self.metrics, options)
            .run(self.batches, Phases::serving())
            .await;
    }
}

/// A runtime as a worker's, on which time stands still where it `is_paused`.
pub fn runtime(is_paused: bool) -> (Runtime, IdleSignal) {
    let mut runtime = Builder::new_current_thread();
    let idle = IdleSignal::of(&mut runtime);
    (
        runtime
            .enable_all()
            .start_paused(is_paused)
            .build()
            .expect("a runtime"),
        idle,
    )
}

/// A service, on the local set that this is called on, and on the runtime whose idle moments these are.
pub fn service(tells: Tells, idle: IdleSignal) -> (Rc<Service>, Null) {
    service_judging(tells, idle, Rulebook::default())
}

/// A service of streams with rules, likewise.
pub fn service_judging(tells: Tells, idle: IdleSignal, rulebook: Rulebook) -> (Rc<Service>, Null) {
    let streams = tells.streams();
    let count = streams.len() as u16;
    let health = Arc::new(Health::up(streams.len()));
    let names: Vec<String> = streams.iter().map(|stream| stream.name.clone()).collect();
    let metrics = Arc::new(Metrics::new(1, &names, vec![]));
    let places = in_flight_batches_max(streams.len());
    let (delivery, batches) = handover::channel(places);
    let (home, settled) = handover::channel(places);
    let ack = AckConfig {
        mode: AckMode::Durable,
        timeout: Duration::from_secs(10),
    };
    let batcher = Batcher::new(
        count,
        BATCH,
        ack,
        Queues { delivery, home },
        metrics.worker(0),
    );
    let events = tells.config();
    let own_stream = events.as_ref().map(|events| events.stream);
    let batcher = Rc::new(batcher.with_own_stream(own_stream));
    let events = events.map(|config| Events::new(&config, metrics.events()));
    let reporter = events.map(|events| Rc::new(Reporter::new(&events, batcher.clone())));
    spawn_local({
        let batcher = batcher.clone();
        async move { batcher.run(settled, idle).await }
    });
    let phases = Phases::serving();
    let http = http_config();
    let admission = Admission::new(1 << 30, http.body_bytes_max, health.clone(), phases.clone());
    let routes = Routes::new(Authorities::new(["localhost"]), &streams, &[]);
    let gate = Gate::new(limits(), admission);
    let ingest = Ingest::new(&http, gate, Arc::new(routes), batcher).with_rules(rulebook);
    let revocation = watch::channel(Arc::new(Revocation::off())).1;
    let bell = Bell::hang(phases, revocation, watch::channel(Arc::default()).1);
    let observers = WorkerObservers::counting(metrics.worker(0));
    let alt_svc = http::HeaderValue::from_static("h3=\":8443\"; ma=86400");
    let service = Service::new(&http, ingest, observers, bell, Some(alt_svc)).telling(reporter);
    (
        Rc::new(service),
        Null {
            streams,
            batches,
            health,
            metrics,
        },
    )
}

/// Makes the caller on a connection of this number.
pub fn caller(service: &Service, number: usize) -> Caller {
    let gate = &service.ingest.gate;
    let (limits, now) = (&gate.limits, gate.clock.now());
    let id = DeviceId::parse(&format!("meter-{number}")).expect("an id");
    let device = Device {
        id: id.clone(),
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        notice_from: Timestamp(u64::MAX),
        expires: http::HeaderValue::from_static(""),
    };
    let device = Ok(KnownDevice {
        device,
        limits: limits.device(&id, now),
        streams: Default::default(),
        memory: gate.admission.device(&id),
    });
    let address_limits = limits
        .address([127, 0, 0, 1].into(), now)
        .expect("there is room");
    let address = [127, 0, 0, 1].into();
    Caller {
        device,
        credential: Credential {
            certificate: Fingerprint([0; 32]),
            vouched: Vouched::Chain(Vec::new()),
        },
        standing: Default::default(),
        edition: Default::default(),
        content_types: Default::default(),
        address,
        address_limits,
        accepted_bytes: Default::default(),
    }
}

/// A client's end of a connection that the service serves.
pub fn connect(service: &Rc<Service>, number: usize, protocol: Protocol) -> DuplexStream {
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    let connection = Connection::new(protocol, caller(service, number), service);
    let connection = connection.attended(service, false, &[7]);
    let service = service.clone();
    if protocol == Protocol::H2 {
        spawn_local(h2::serve(server, connection, service));
    } else {
        spawn_local(h1::serve(BufReader::new(server), connection, service));
    }
    client
}

/// An HTTP/1.1 client: one connection, one request at a time.
pub struct H1 {
    stream: DuplexStream,
    request: String,
}

impl H1 {
    pub fn open(service: &Rc<Service>, number: usize) -> Self {
        Self::to(service, number, "/v1/telemetry")
    }

    /// One that posts to this path, which may have a query.
    pub fn to(service: &Rc<Service>, number: usize, path: &str) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        );
        let request = format!("{head}{BODY_BYTES}\r\n\r\n{}", "x".repeat(BODY_BYTES));
        Self {
            stream: connect(service, number, Protocol::H1),
            request,
        }
    }

    /// Sends the request, then reads the answer: a 204 ends with its head.
    pub async fn post(&mut self) {
        self.stream
            .write_all(self.request.as_bytes())
            .await
            .expect("the connection lives");
        let mut answer = [0; 512];
        let mut filled = 0;
        while !answer[..filled].ends_with(b"\r\n\r\n") {
            filled += self
                .stream
                .read(&mut answer[filled..])
                .await
                .expect("the connection lives");
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 204 "),
            "{}",
            String::from_utf8_lossy(&answer[..filled])
        );
    }
}

/// An HTTP/2 client: one stream of a connection that it may share with others.
#[derive(Clone)]
pub struct H2(http2::SendRequest<Full<Bytes>>);

impl H2 {
    pub async fn open(service: &Rc<Service>, number: usize) -> Self {
        let io = TokioIo::new(connect(service, number, Protocol::H2));
        let (client, connection) = http2::handshake(Local, io).await.expect("a connection");
        spawn_local(connection);
        Self(client)
    }

    pub async fn post(&mut self) {
        let request = http::Request::post("https://localhost/v1/telemetry")
            .header("content-type", "application/json")
            .header("content-length", BODY_BYTES)
            .body(Full::from(vec![b'x'; BODY_BYTES]))
            .expect("a request");
        let answer = self
            .0
            .send_request(request)
            .await
            .expect("the connection lives");
        assert_eq!(answer.status(), 204);
    }
}

#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
