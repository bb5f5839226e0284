//! The Kinesis sink against an emulator with the service's limits, and against a server with faults.
#![cfg(feature = "kinesis")]

#[path = "kinesis_sink/aggregate.rs"]
mod aggregate;
#[path = "support/deaggregate.rs"]
mod deaggregate;
#[path = "support/ferrokinesis.rs"]
mod ferrokinesis;
#[cfg(feature = "msk")]
#[path = "kinesis_sink/signature.rs"]
mod signature;
#[path = "support/tools.rs"]
mod tools;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::ConfigLoader;
use aws_sdk_kinesis::types::Record as StoredRecord;
use bytes::Bytes;
use forebay::internals::config::{KinesisConfig, StreamConfig};
use forebay::internals::record::{
    DeviceId, Headers, Outcome, Outcomes, Permit, Record, RecordId, StreamIndex, Timestamp,
};
use forebay::internals::sink::KinesisSink;
use forebay::internals::sink::{SinkError, SinkOptions};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::ferrokinesis::{Ferrokinesis, settings};

const STREAM: StreamIndex = StreamIndex(0);

fn record(device: &str, body: impl Into<Bytes>) -> Record {
    Record {
        device: DeviceId::parse(device).unwrap(),
        payload: body.into(),
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp::now(),
        permit: Permit::without_budget(),
    }
}

async fn sink(settings: ConfigLoader, ack_timeout: Duration) -> KinesisSink {
    open(settings, ack_timeout, false).await
}

async fn verify(sink: &KinesisSink) -> Result<(), SinkError> {
    sink.verify(&[STREAM]).await.remove(0)
}

async fn open(settings: ConfigLoader, ack_timeout: Duration, aggregate: bool) -> KinesisSink {
    let streams = vec![StreamConfig {
        name: "telemetry".into(),
        target: "readings".into(),
    }];
    let options = SinkOptions {
        streams,
        body_bytes_max: 256 << 10,
        ack_timeout,
        memory_bytes_max: 64 << 20,
        in_flight_batches_max: 64,
        threads: 2,
    };
    KinesisSink::open_with(settings, &KinesisConfig { aggregate }, options)
        .await
        .unwrap()
}

fn body(record: &StoredRecord) -> &[u8] {
    record.data().as_ref()
}

fn numbers(end: u32) -> Vec<Bytes> {
    (0..end).map(|number| number.to_string().into()).collect()
}

/// Bodies by partition key, in the order of the stream.
fn by_device(records: &[StoredRecord]) -> HashMap<&str, Vec<&[u8]>> {
    let mut devices: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for record in records {
        devices
            .entry(record.partition_key().unwrap_or_default())
            .or_default()
            .push(body(record));
    }
    devices
}

#[tokio::test]
async fn records_arrive_byte_for_byte_under_their_device() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 3).await;
    let sink = sink(emulator.settings(), Duration::from_secs(10)).await;
    verify(&sink).await.unwrap();
    let bodies = [&b"{\"a\": 1}\n"[..], b"\xff\xfe\x00", b"x", &[7; 200_000]];
    let records: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(i, body)| record(&format!("urn:plant/{i}"), body.to_vec()))
        .collect();
    assert_eq!(sink.deliver(STREAM, &records).await, Outcomes::DELIVERED);
    let stored = emulator.read_stream("readings").await;
    let devices = by_device(&stored);
    assert_eq!(stored.len(), bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        assert_eq!(devices[&*format!("urn:plant/{i}")], [*body]);
    }
}

/// One shard takes 1000 records a second: 2400 at once are throttled for two seconds and more.
#[tokio::test]
async fn throttled_records_are_delivered_once_and_in_the_order_of_their_device() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = sink(emulator.settings(), Duration::from_secs(20)).await;
    let batches: Vec<Vec<_>> = (0..8)
        .map(|batch| {
            (0..300)
                .map(|device| record(&format!("device-{device}"), format!("{batch}")))
                .collect()
        })
        .collect();
    let started = Instant::now();
    let outcomes = join_all(batches.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "the emulator did not throttle"
    );
    assert!(
        outcomes
            .iter()
            .all(|outcomes| *outcomes == Outcomes::DELIVERED)
    );
    let stored = emulator.read_stream("readings").await;
    assert_eq!(stored.len(), 2400);
    for (device, bodies) in by_device(&stored) {
        assert_eq!(bodies, numbers(8), "{device}");
    }
}

/// More than the shard can take in time: what is said to be delivered is there, the rest is not.
#[tokio::test]
async fn outcomes_are_the_truth_when_the_time_is_over() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let ack_timeout = Duration::from_secs(3);
    let sink = sink(emulator.settings(), ack_timeout).await;
    let records: Vec<_> = (0..40)
        .map(|i| record(&format!("device-{i}"), vec![i; 200 << 10]))
        .collect();
    let started = Instant::now();
    let outcomes = sink.deliver(STREAM, &records).await;
    assert!(started.elapsed() < ack_timeout);
    let stored = emulator.read_stream("readings").await;
    let devices = by_device(&stored);
    for (i, record) in records.iter().enumerate() {
        let stored = devices.get(record.device.as_str()).map_or(0, Vec::len);
        match outcomes.get(i) {
            Outcome::Delivered => assert_eq!(stored, 1),
            Outcome::Retryable(reason) => {
                assert_eq!(
                    (stored, &**reason),
                    (0, "ProvisionedThroughputExceededException")
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((5..40).contains(&stored.len()), "{} records", stored.len());
}

#[tokio::test]
async fn a_device_that_waits_for_each_answer_keeps_its_order() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = sink(emulator.settings(), Duration::from_secs(10)).await;
    let one_by_one = async {
        for i in 0..50 {
            assert_eq!(
                sink.deliver(STREAM, &[record("sequential", format!("{i}"))])
                    .await,
                Outcomes::DELIVERED
            );
        }
    };
    let crowd: Vec<_> = (0..1500)
        .map(|i| record(&format!("device-{i}"), "x"))
        .collect();
    let (_, outcomes) = tokio::join!(one_by_one, sink.deliver(STREAM, &crowd));
    assert_eq!(outcomes, Outcomes::DELIVERED);
    let stored = emulator.read_stream("readings").await;
    assert_eq!(stored.len(), 1550);
    assert_eq!(by_device(&stored)["sequential"], numbers(50));
}

/// Many more batches than the dispatcher lets wait.
#[tokio::test]
async fn concurrent_batches_keep_the_order_of_their_calls() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = sink(emulator.settings(), Duration::from_secs(20)).await;
    let batches: Vec<_> = (0..200)
        .map(|i| {
            [
                record("one", format!("{i}")),
                record(&format!("other-{i}"), "x"),
            ]
        })
        .collect();
    let outcomes = join_all(batches.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    assert!(
        outcomes
            .iter()
            .all(|outcomes| *outcomes == Outcomes::DELIVERED)
    );
    assert_eq!(
        by_device(&emulator.read_stream("readings").await)["one"],
        numbers(200)
    );
}

#[tokio::test]
async fn a_record_too_large_for_the_stream_is_refused_alone() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = sink(emulator.settings(), Duration::from_secs(10)).await;
    let mut records: Vec<_> = (0..20)
        .map(|i| record(&format!("device-{i}"), "x"))
        .collect();
    records[7] = record("device-7", vec![0; (1 << 20) + 1]);
    let outcomes = sink.deliver(STREAM, &records).await;
    for i in 0..20 {
        match (i, outcomes.get(i)) {
            (7, Outcome::Permanent(reason)) => assert_eq!(&**reason, "ValidationException"),
            (_, outcome) => assert_eq!(*outcome, Outcome::Delivered),
        }
    }
    assert_eq!(emulator.read_stream("readings").await.len(), 19);
}

#[tokio::test]
async fn a_missing_stream_is_named_with_what_to_set() {
    let emulator = Ferrokinesis::start().await;
    let sink = sink(emulator.settings(), Duration::from_secs(10)).await;
    let error = verify(&sink).await.unwrap_err();
    assert!(matches!(error, SinkError::Closed(_)));
    assert!(
        error.to_string().contains("readings") && error.to_string().contains("FOREBAY_STREAMS"),
        "{error}"
    );
    let outcomes = sink.deliver(STREAM, &[record("device", "x")]).await;
    assert_eq!(
        *outcomes.get(0),
        Outcome::Barred("ResourceNotFoundException".into())
    );
}

#[tokio::test]
async fn a_service_that_is_not_there_is_away_and_nothing_is_written() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let sink = sink(settings(address), Duration::from_secs(1)).await;
    assert!(matches!(verify(&sink).await, Err(SinkError::Away(_))));
    let outcomes = sink.deliver(STREAM, &[record("device", "x")]).await;
    assert!(
        matches!(outcomes.get(0), Outcome::Retryable(reason) if reason.contains("refused")),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn without_credentials_nothing_is_written() {
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let sink = sink(settings(address).no_credentials(), Duration::from_secs(1)).await;
    let outcomes = sink.deliver(STREAM, &[record("device", "x")]).await;
    assert!(
        matches!(outcomes.get(0), Outcome::Retryable(_)),
        "{outcomes:?}"
    );
    assert!(matches!(verify(&sink).await, Err(SinkError::Away(_))));
}

#[tokio::test]
async fn a_server_error_is_tried_again() {
    let server = Server::start([Fault::ServerError, Fault::ServerError]).await;
    let sink = sink(settings(server.address), Duration::from_secs(10)).await;
    assert_eq!(
        sink.deliver(STREAM, &[record("device", "x")]).await,
        Outcomes::DELIVERED
    );
}

#[tokio::test]
async fn a_lost_connection_is_tried_again() {
    let server = Server::start([Fault::HangUp]).await;
    let sink = sink(settings(server.address), Duration::from_secs(10)).await;
    assert_eq!(
        sink.deliver(STREAM, &[record("device", "x")]).await,
        Outcomes::DELIVERED
    );
}

#[tokio::test]
async fn what_a_lost_connection_took_is_unknown_when_the_time_is_over() {
    let server = Server::start(vec![Fault::HangUp; 100]).await;
    let sink = sink(settings(server.address), Duration::from_millis(500)).await;
    assert_eq!(
        *sink.deliver(STREAM, &[record("device", "x")]).await.get(0),
        Outcome::Unknown
    );
}

#[tokio::test]
async fn a_silent_service_leaves_the_outcome_unknown_within_the_ack_timeout() {
    let server = Server::start(vec![Fault::Silence; 100]).await;
    let sink = sink(settings(server.address), Duration::from_millis(500)).await;
    let started = Instant::now();
    assert_eq!(
        *sink.deliver(STREAM, &[record("device", "x")]).await.get(0),
        Outcome::Unknown
    );
    assert!(started.elapsed() < Duration::from_millis(700));
}

/// One batch is one call; small batches that come together go out together.
#[tokio::test]
async fn batches_go_out_whole() {
    let server = Server::start([]).await;
    let sink = sink(settings(server.address), Duration::from_secs(10)).await;
    let batch: Vec<_> = (0..500)
        .map(|i| record(&format!("device-{i}"), "x"))
        .collect();
    assert_eq!(sink.deliver(STREAM, &batch).await, Outcomes::DELIVERED);
    assert_eq!(server.calls(), [500]);
    let small: Vec<Vec<_>> = (0..40)
        .map(|b| {
            (0..25)
                .map(|i| record(&format!("device-{b}-{i}"), "x"))
                .collect()
        })
        .collect();
    join_all(small.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    let calls = server.calls();
    assert_eq!(calls.iter().sum::<usize>(), 1500);
    assert!(calls.len() <= 6, "{calls:?}");
}

#[derive(Clone, Copy)]
enum Fault {
    ServerError,
    HangUp,
    Silence,
}

/// A server that has these faults, one a request, and then takes every record.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Records of each answered call.
    calls: Arc<Mutex<Vec<usize>>>,
    /// As it came.
    last_request: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Mutex::new(faults.into_iter().collect()));
        let server = Self {
            address,
            faults,
            calls: Arc::default(),
            last_request: Arc::default(),
        };
        let of_connections = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(of_connections.clone().serve(connection));
            }
        });
        server
    }

    fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }

    #[cfg(feature = "msk")]
    fn last_request(&self) -> Vec<u8> {
        self.last_request.lock().unwrap().clone()
    }

    async fn serve(self, mut connection: TcpStream) {
        while let Some(request) = read_request(&mut connection).await {
            let records = String::from_utf8_lossy(&request)
                .matches("\"PartitionKey\"")
                .count();
            *self.last_request.lock().unwrap() = request;
            let fault = self.faults.lock().unwrap().pop_front();
            let (status, body) = match fault {
                Some(Fault::HangUp) => return,
                Some(Fault::Silence) => std::future::pending().await,
                Some(Fault::ServerError) => (
                    "500 Internal Server Error",
                    r#"{"__type":"InternalFailure"}"#.into(),
                ),
                None => ("200 OK", all_taken(records)),
            };
            self.calls.lock().unwrap().push(records);
            let head = "content-type: application/x-amz-json-1.1\r\ncontent-length";
            let answer = format!("HTTP/1.1 {status}\r\n{head}: {}\r\n\r\n{body}", body.len());
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

fn all_taken(records: usize) -> String {
    let entries = vec![r#"{"SequenceNumber":"1","ShardId":"s"}"#; records].join(",");
    format!(r#"{{"FailedRecordCount":0,"Records":[{entries}]}}"#)
}

/// Reads a whole request; `None` when the connection has ended.
async fn read_request(connection: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return Some(request);
        }
    }
}
