//! The file sink on a real disk, whole and failing.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use forebay::config::{FileConfig, StreamConfig};
use forebay::record::{
    DeviceId, Outcome, Outcomes, Permit, Record, RecordId, StreamIndex, Timestamp,
};
use forebay::sink::file::FileSink;
use forebay::sink::{SinkError, SinkOptions};
use futures_util::future::join_all;

static RESERVED_BYTES: AtomicUsize = AtomicUsize::new(0);
const TELEMETRY: StreamIndex = StreamIndex(0);
const ALARMS: StreamIndex = StreamIndex(1);

fn record(device: &str, body: &str) -> Record {
    Record {
        device: DeviceId::parse(device).unwrap(),
        payload: body.to_owned().into(),
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        trace: None,
        received_at: Timestamp::now(),
        permit: Permit::holding(&RESERVED_BYTES, 0),
    }
}

fn open(dir: &Path) -> Result<FileSink, SinkError> {
    let stream = |name: &str, target: &str| StreamConfig {
        name: name.into(),
        target: target.into(),
    };
    let options = SinkOptions {
        streams: vec![
            stream("telemetry", "telemetry"),
            stream("alarms", "plant-alarms"),
        ],
        body_bytes_max: 256 << 10,
        ack_timeout: Duration::from_secs(10),
        memory_bytes_max: 64 << 20,
        in_flight_batches_max: 64,
    };
    FileSink::open(
        &FileConfig {
            dir: dir.to_owned(),
        },
        options,
    )
}

/// The payloads of a stream, in the order of its files.
fn payloads(dir: &Path, target: &str) -> Vec<String> {
    let mut paths: Vec<_> = fs::read_dir(dir.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let text: String = paths
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let payload =
        |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["payload"].to_string();
    text.lines().map(payload).collect()
}

/// Many more than the writer lets wait, and handed over while it makes room.
#[tokio::test]
async fn concurrent_batches_are_all_there_in_the_order_of_their_calls() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path()).unwrap();
    sink.verify().await.unwrap();
    let records: Vec<_> = (0..2000).map(|i| record("plc", &i.to_string())).collect();
    let outcomes = join_all(
        records
            .chunks(2)
            .map(|batch| sink.deliver(TELEMETRY, batch)),
    )
    .await;
    assert!(
        outcomes
            .iter()
            .all(|outcomes| *outcomes == Outcomes::DELIVERED)
    );
    assert_eq!(
        sink.deliver(ALARMS, &[record("plc", "\"fire\"")]).await,
        Outcomes::DELIVERED
    );
    assert_eq!(
        payloads(dir.path(), "telemetry"),
        (0..2000).map(|i| i.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(payloads(dir.path(), "plant-alarms"), ["\"fire\""]);
}

#[tokio::test]
async fn a_second_gateway_on_the_folder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, SinkError::Misconfigured(_)));
    let process = format!("process {}", std::process::id());
    assert!(
        error.to_string().contains(&process) && error.to_string().contains("FOREBAY_FILE_DIR"),
        "{error}"
    );
    assert_eq!(
        first.deliver(TELEMETRY, &[record("plc", "1")]).await,
        Outcomes::DELIVERED
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_one_is_misconfigured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = open(&path.join("data")).map(drop).unwrap_err();
    assert!(
        matches!(&error, SinkError::Misconfigured(text) if text.contains("FOREBAY_FILE_DIR")),
        "{error}"
    );
}

#[tokio::test]
async fn it_recovers_with_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path()).unwrap();
    let folder = dir.path().join("telemetry");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let outcomes = sink.deliver(TELEMETRY, &[record("plc", "1")]).await;
    assert!(
        matches!(outcomes.get(0), Outcome::Retryable(_)),
        "{outcomes:?}"
    );
    assert!(sink.verify().await.is_err());
    assert_eq!(
        sink.deliver(ALARMS, &[record("plc", "1")]).await,
        Outcomes::DELIVERED
    );
    fs::remove_file(&folder).unwrap();
    sink.verify().await.unwrap();
    assert_eq!(
        sink.deliver(TELEMETRY, &[record("plc", "2")]).await,
        Outcomes::DELIVERED
    );
    assert_eq!(payloads(dir.path(), "telemetry"), ["2"]);
}

/// The kernel cuts a write short at the file-size limit: a half-written batch, as on a full disk.
#[test]
fn a_write_that_fails_half_way_leaves_no_trace() {
    let test = std::env::current_exe().unwrap();
    let limited = "trap '' XFSZ; ulimit -f 256; exec \"$0\" --ignored --exact a_write_beyond_the_file_size_limit";
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// 100 KiB fit a file of 128 or 256 KiB (shells differ in the unit of the limit), 300 KiB do not.
#[tokio::test]
#[ignore = "run under a file-size limit by a_write_that_fails_half_way_leaves_no_trace"]
async fn a_write_beyond_the_file_size_limit() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path()).unwrap();
    let body = |digit: &str, kib: usize| format!("\"{}\"", digit.repeat(kib << 10));
    assert_eq!(
        sink.deliver(TELEMETRY, &[record("plc", &body("1", 100))])
            .await,
        Outcomes::DELIVERED
    );
    let outcomes = sink
        .deliver(TELEMETRY, &[record("plc", &body("2", 200))])
        .await;
    assert!(
        matches!(outcomes.get(0), Outcome::Retryable(reason) if reason.contains("large")),
        "{outcomes:?}"
    );
    assert_eq!(
        sink.deliver(TELEMETRY, &[record("plc", &body("3", 100))])
            .await,
        Outcomes::DELIVERED
    );
    assert_eq!(
        payloads(dir.path(), "telemetry"),
        [body("1", 100), body("3", 100)]
    );
}

#[tokio::test]
async fn after_a_restart_the_torn_line_is_gone_and_the_rest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("telemetry");
    fs::create_dir(&stream).unwrap();
    fs::write(
        stream.join("telemetry-20261123T091500.123Z-000001.jsonl"),
        "{\"payload\":1}\n{\"payl",
    )
    .unwrap();
    let sink = open(dir.path()).unwrap();
    assert_eq!(
        sink.deliver(TELEMETRY, &[record("plc", "2")]).await,
        Outcomes::DELIVERED
    );
    assert_eq!(payloads(dir.path(), "telemetry"), ["1", "2"]);
    let names: HashSet<_> = fs::read_dir(&stream)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2);
}
