//! The heap that an idle connection holds, on each protocol: bytes that are allocated and not given back, which depend on
//! no machine.
//!
//! This program is the gateway too, on one worker and with the null sink, but for an allocator that counts: the test
//! starts itself with `serve`. Connections that are counted have each asked [`ROUNDS`] times, so that whatever grows with
//! use has grown: tables, queues, spare buffers. What C code allocates is not counted, nor are the kernel's buffers. It
//! prints how many allocations of which sizes a connection holds.
#![allow(unsafe_code)] // an allocator that counts

#[allow(dead_code)] // one authority and a few devices
#[path = "support/pki.rs"]
mod pki;

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use pki::{Identity, Pki};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most bytes of a connection, by protocol: what was measured, and a tenth.
const BYTES_MAX: [(&str, i64); 3] = [("h1", 6_800), ("h2", 49_500), ("h3", 56_000)];

/// Connections that are counted, after some that are not: the first bring things into memory that stay.
const CONNECTIONS: usize = 100;
const CONNECTIONS_BEFORE: usize = 20;

/// Requests of each connection.
const ROUNDS: usize = 40;

/// Time in which what only a request needs is given back.
const PATIENCE: Duration = Duration::from_secs(10);

const BODY: &[u8] = &[b'x'; 344];

/// Sizes that are told apart: four between two powers of two.
const CLASSES: usize = 4 * 32;

/// Bytes of a connection from which on a size is worth a line.
const TOLD_BYTES: f64 = 128.0;

static LIVE: [AtomicI64; CLASSES] = [const { AtomicI64::new(0) }; CLASSES];
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE[class(layout.size())].fetch_add(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE[class(layout.size())].fetch_sub(1, Ordering::Relaxed);
        LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The class of a size: the largest one that begins at most there.
fn class(bytes: usize) -> usize {
    let bytes = bytes.max(4);
    let power = bytes.ilog2() as usize;
    (4 * (power - 2) + (bytes >> (power - 2)) % 4).min(CLASSES - 1)
}

/// The least size of a class.
fn least_bytes(class: usize) -> i64 {
    (4 + class as i64 % 4) << (class / 4)
}

fn main() -> ExitCode {
    let word = env::args().nth(1).unwrap_or_default();
    if word == "serve" {
        std::thread::spawn(tell);
        return forebay::run().expect("the gateway runs");
    }
    for (protocol, bytes_max) in BYTES_MAX {
        // One of them by its name, or all; a flag of the test harness is nothing to this one.
        if word.starts_with('-') || protocol.contains(&word) {
            idle_connections_hold_no_more_than(protocol, bytes_max);
        }
    }
    ExitCode::SUCCESS
}

/// Tells what is live whenever it is asked to, by a line.
fn tell() {
    for _ in std::io::stdin().lines() {
        let classes: Vec<String> = LIVE
            .iter()
            .map(|live| live.load(Ordering::Relaxed).to_string())
            .collect();
        let bytes = LIVE_BYTES.load(Ordering::Relaxed);
        println!("{bytes} {}", classes.join(" "));
    }
}

fn idle_connections_hold_no_more_than(protocol: &str, bytes_max: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut gateway = Gateway::start();
        let fleet = Fleet::new(&gateway, protocol);
        let _first = fleet.connect(CONNECTIONS_BEFORE).await;
        let before = gateway.live();
        let _counted = fleet.connect(CONNECTIONS).await;
        let started_at = Instant::now();
        loop {
            let live = gateway.live().since(&before);
            let bytes = live.bytes / CONNECTIONS as i64;
            if bytes <= bytes_max || started_at.elapsed() > PATIENCE {
                println!("{protocol}: {bytes} bytes of heap an idle connection");
                live.print();
                assert!(bytes <= bytes_max, "{protocol}: at most {bytes_max}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// What is live in the gateway.
struct Live {
    bytes: i64,
    classes: Vec<i64>,
}

impl Live {
    fn since(&self, before: &Self) -> Self {
        let pairs = self.classes.iter().zip(&before.classes);
        Self {
            bytes: self.bytes - before.bytes,
            classes: pairs.map(|(now, before)| now - before).collect(),
        }
    }

    /// Prints the sizes that make the most of it.
    fn print(&self) {
        for (class, live) in self.classes.iter().enumerate() {
            let (least, of_a_connection) = (least_bytes(class), *live as f64 / CONNECTIONS as f64);
            if of_a_connection * least as f64 > TOLD_BYTES {
                println!("  {of_a_connection:.2} of {least} bytes and more");
            }
        }
    }
}

/// The gateway, which is this program; killed when dropped.
struct Gateway {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
    pki: Pki,
    _folder: tempfile::TempDir,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::new(&folder.path().join("pki"));
        let mut process = Command::new(env::current_exe().expect("this program"))
            .arg("serve")
            .env_clear()
            .env("FOREBAY_LISTEN", "127.0.0.1:0")
            .env("FOREBAY_ADMIN_LISTEN", "127.0.0.1:0")
            .env("FOREBAY_WORKERS", "1")
            .env("FOREBAY_SINK", "null")
            .env("FOREBAY_DEVICE_RATE", "0")
            .env("FOREBAY_DEVICE_BYTE_RATE", "0")
            .env("FOREBAY_TLS_CERT", &pki.server.cert)
            .env("FOREBAY_TLS_KEY", &pki.server.key)
            .env("FOREBAY_TLS_CLIENT_CA", pki.ca())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = loop {
            let line = log.next().expect("it listens").expect("text");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                let listen = event["listen"].as_str().expect("an address");
                break listen.parse().expect("an address");
            }
        };
        std::thread::spawn(|| log.for_each(drop));
        Self {
            questions: process.stdin.take().expect("piped"),
            answers: BufReader::new(process.stdout.take().expect("piped")),
            process,
            address,
            pki,
            _folder: folder,
        }
    }

    fn live(&mut self) -> Live {
        writeln!(self.questions).expect("it runs");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let mut numbers = line
            .split_whitespace()
            .map(|number| number.parse().expect("a number"));
        Live {
            bytes: numbers.next().expect("it answers"),
            classes: numbers.collect(),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Devices that connect by one protocol.
struct Fleet {
    protocol: String,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    endpoint: quinn::Endpoint,
}

impl Fleet {
    fn new(gateway: &Gateway, protocol: &str) -> Self {
        let device = gateway.pki.device("plc-1");
        let alpn = if protocol == "h1" {
            "http/1.1"
        } else {
            protocol
        };
        let tls = Arc::new(tls(&gateway.pki, &device, alpn));
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            protocol: protocol.to_owned(),
            address: gateway.address,
            endpoint: quinn::Endpoint::client(any_port).expect("a socket"),
            tls,
        }
    }

    /// Opens connections that have each asked.
    async fn connect(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.open().await);
        }
        for _ in 0..ROUNDS {
            join_all(clients.iter_mut().map(Client::post)).await;
        }
        clients
    }

    async fn open(&self) -> Client {
        if self.protocol == "h3" {
            return Client::H3(self.open_quic().await);
        }
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let name = "localhost".try_into().expect("a name");
        let connecting = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let stream = Box::new(connecting.await.expect("a handshake"));
        if self.protocol == "h1" {
            return Client::H1(stream);
        }
        let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::task::spawn_local(connection);
        Client::H2(client)
    }

    /// Opens the streams of one direction, too, as clients do: control, and those of QPACK.
    async fn open_quic(&self) -> quinn::Connection {
        let tls = QuicClientConfig::try_from(self.tls.clone()).expect("TLS 1.3");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting = self
            .endpoint
            .connect_with(config, self.address, "localhost");
        let connection = connecting.expect("an address").await.expect("a handshake");
        for start in [&[0, 4, 0][..], &[2], &[3]] {
            let mut stream = connection.open_uni().await.expect("there is room");
            stream.write_all(start).await.expect("it is taken");
            tokio::task::spawn_local(async move { stream.stopped().await });
        }
        connection
    }
}

/// A client's configuration, which shows a device's certificate.
fn tls(pki: &Pki, device: &Identity, alpn: &str) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(pki.ca()).expect("a certificate");
    roots.add(root).expect("an authority");
    let pem = fs::read(&device.cert).expect("a file");
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(&device.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("a chain"), key)
        .expect("a key that fits");
    config.alpn_protocols = vec![alpn.into()];
    config
}

/// A connection that asks one request after the other.
enum Client {
    H1(Box<TlsStream<TcpStream>>),
    H2(h2::client::SendRequest<Bytes>),
    H3(quinn::Connection),
}

impl Client {
    async fn post(&mut self) {
        match self {
            Self::H1(stream) => post_h1(stream).await,
            Self::H2(client) => post_h2(client).await,
            Self::H3(connection) => post_h3(connection).await,
        }
    }
}

async fn post_h1(stream: &mut TlsStream<TcpStream>) {
    let head = "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
    let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", BODY.len());
    let request = [head.as_bytes(), BODY].concat();
    stream.write_all(&request).await.expect("it is taken");
    stream.flush().await.expect("it is taken");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 204 "));
}

async fn post_h2(client: &mut h2::client::SendRequest<Bytes>) {
    let request = http::Request::post("https://localhost/v1/telemetry")
        .header("content-type", "application/json")
        .header("content-length", BODY.len())
        .body(())
        .expect("a request");
    let sent = client.send_request(request, false);
    let (answer, mut body) = sent.expect("it is taken");
    let body_sent = body.send_data(Bytes::from_static(BODY), true);
    body_sent.expect("it is taken");
    assert_eq!(answer.await.expect("an answer").status(), 204);
}

/// Writes HEADERS of QPACK's static table and plain text (RFC 9204 appendix A), and DATA.
async fn post_h3(connection: &quinn::Connection) {
    const METHOD_POST: u8 = 0xc0 | 20;
    const SCHEME_HTTPS: u8 = 0xc0 | 23;
    const JSON: u8 = 0xc0 | 46;
    const AUTHORITY: u8 = 0x50;
    const PATH: u8 = 0x51;
    const CONTENT_LENGTH: u8 = 0x54;
    let text = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    let head = [
        vec![0, 0, METHOD_POST, SCHEME_HTTPS],
        text(AUTHORITY, "localhost"),
        text(PATH, "/v1/telemetry"),
        vec![JSON],
        text(CONTENT_LENGTH, &BODY.len().to_string()),
    ]
    .concat();
    let data = [0, 0x40 | (BODY.len() >> 8) as u8, BODY.len() as u8];
    let request = [&[1, head.len() as u8][..], &head, &data, BODY].concat();
    let (mut send, mut receive) = connection.open_bi().await.expect("there is room");
    send.write_all(&request).await.expect("it is taken");
    send.finish().expect("it is open");
    let answer = receive.read_to_end(512).await.expect("an answer");
    assert_eq!(answer, [1, 4, 0, 0, 0xff, 1], "a head of 204 alone");
}
