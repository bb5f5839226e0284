//! The file sink on a real disk, whole and failing.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use forebay::internals::config::{FileConfig, StreamConfig};
use forebay::internals::record::{
    DeviceId, Headers, Outcome, Outcomes, Permit, Record, RecordId, StreamIndex, Timestamp,
};
use forebay::internals::sink::FileSink;
use forebay::internals::sink::{SinkError, SinkOptions};
use futures_util::future::join_all;

const TELEMETRY: StreamIndex = StreamIndex(0);
const ALARMS: StreamIndex = StreamIndex(1);

fn record(device: &str, body: &str) -> Record {
    Record {
        device: DeviceId::parse(device).unwrap(),
        payload: body.to_owned().into(),
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp::now(),
        permit: Permit::without_budget(),
    }
}

fn stream(name: &str, target: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        target: target.into(),
    }
}

fn open(dir: &Path) -> Result<FileSink, SinkError> {
    let streams = vec![
        stream("telemetry", "telemetry"),
        stream("alarms", "plant-alarms"),
    ];
    open_with(dir, streams)
}

fn open_with(dir: &Path, streams: Vec<StreamConfig>) -> Result<FileSink, SinkError> {
    let options = SinkOptions {
        streams,
        body_bytes_max: 256 << 10,
        ack_timeout: Duration::from_secs(10),
        memory_bytes_max: 64 << 20,
        in_flight_batches_max: 64,
        threads: 1,
    };
    FileSink::open(
        &FileConfig {
            dir: dir.to_owned(),
        },
        options,
    )
}

/// The payloads of a stream, in the order of its files.
fn payloads(dir: &Path, stream: &str) -> Vec<String> {
    let mut paths: Vec<_> = fs::read_dir(dir.join(stream))
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
    assert_eq!(payloads(dir.path(), "alarms"), ["\"fire\""]);
}

/// A folder has the stream's name, and each stream its own, whatever the targets are.
#[tokio::test]
async fn a_folder_has_the_name_of_its_stream() {
    let dir = tempfile::tempdir().unwrap();
    let streams = vec![stream("telemetry", "plant"), stream("alarms", "plant")];
    let sink = open_with(dir.path(), streams).unwrap();
    for (stream, body) in [(TELEMETRY, "1"), (ALARMS, "2")] {
        assert_eq!(
            sink.deliver(stream, &[record("plc", body)]).await,
            Outcomes::DELIVERED
        );
    }
    assert_eq!(payloads(dir.path(), "telemetry"), ["1"]);
    assert_eq!(payloads(dir.path(), "alarms"), ["2"]);
    assert!(!dir.path().join("plant").exists());
}

/// When a name in each folder was created or removed last.
fn touched_at(dir: &Path, streams: &[StreamConfig]) -> Vec<SystemTime> {
    let folders = streams.iter().map(|stream| dir.join(&stream.name));
    folders
        .map(|folder| fs::metadata(folder).unwrap().modified().unwrap())
        .collect()
}

#[tokio::test]
async fn a_recent_sync_is_the_proof_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let streams: Vec<_> = (0..256)
        .map(|index| stream(&format!("stream-{index}"), "any"))
        .collect();
    let sink = open_with(dir.path(), streams.clone()).unwrap();
    let before = touched_at(dir.path(), &streams);
    sink.verify().await.unwrap();
    let probed = touched_at(dir.path(), &streams);
    assert!(
        probed
            .iter()
            .zip(&before)
            .all(|(after, before)| after > before)
    );
    sink.deliver(StreamIndex(0), &[record("plc", "1")]).await;
    let written = touched_at(dir.path(), &streams);
    for _ in 0..10 {
        sink.verify().await.unwrap();
    }
    assert_eq!(touched_at(dir.path(), &streams), written);
}

#[tokio::test]
async fn a_folder_that_was_never_written_is_probed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path()).unwrap();
    let folder = dir.path().join("alarms");
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    assert_eq!(
        sink.deliver(TELEMETRY, &[record("plc", "1")]).await,
        Outcomes::DELIVERED
    );
    let error = sink.verify().await.unwrap_err();
    assert!(matches!(error, SinkError::Misconfigured(_)), "{error}");
    fs::remove_file(&folder).unwrap();
    sink.verify().await.unwrap();
}

#[tokio::test]
async fn what_is_created_is_for_the_own_group_at_most() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("telemetry/data");
    let sink = open(&dir).unwrap();
    sink.verify().await.unwrap();
    sink.deliver(TELEMETRY, &[record("plc", "1")]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let stream = dir.join("telemetry");
    for folder in [dir.parent().unwrap(), &dir, &stream] {
        assert_eq!(mode(folder), 0o750, "{}", folder.display());
    }
    let written = fs::read_dir(&stream).unwrap().next().unwrap().unwrap();
    for file in [dir.join(".forebay.lock"), written.path()] {
        assert_eq!(mode(&file), 0o640, "{}", file.display());
    }
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
