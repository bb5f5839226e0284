//! The spool against what its disk does: the same bytes, the same group commit, without the spool.
//!
//! `always` mode is bounded by the disk, so the figure that counts is the ratio, taken in turns in
//! one run: 1.0 is a thread that gathers what waits, writes it into a preallocated file and calls
//! `fdatasync`. Then the time to recover after a crash, nothing of it in the page cache, and after
//! a clean end, and to read back. Needs `FOREBAY_BENCH_DIR` on the disk in question (the temporary
//! folder otherwise); `FOREBAY_BENCH_BYTES`, 1 GiB if not set, is what is written for recovery.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use forebay::internals::config::WhenFull;
use forebay::internals::record::{DeviceId, Headers, Permit, Record, RecordId, Timestamp};
use forebay::internals::spool::Draft;
use forebay::internals::spool::Keys;
use forebay::internals::spool::{DiskFile, write_all_at};
use forebay::internals::spool::{Options, Spool};
use forebay::internals::telemetry::SpoolMetrics;

const QUOTA_BYTES: u64 = 40 << 30;
const BATCH_RECORDS: usize = 256;
const PAYLOAD_BYTES: usize = 1000;

/// Numbers of batches that wait for one sync while as many are being synced.
const GROUPS: [usize; 3] = [1, 4, 16];
const ROUNDS: usize = 60;
const TURNS: usize = 9;

fn main() {
    // `cargo test --benches` only builds it.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let dir = std::env::var_os("FOREBAY_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let records = records();
    for group in GROUPS {
        compare(&dir, &records, group);
    }
    recover(&dir, &records);
}

fn records() -> Vec<Record> {
    let record = |at: usize| Record {
        device: DeviceId::parse(&format!("meter-{at}")).expect("a device id"),
        payload: vec![at as u8; PAYLOAD_BYTES].into(),
        content_type: Some("application/json".into()),
        id: RecordId::new(Timestamp(1)),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp::now(),
        permit: Permit::without_budget(),
    };
    (0..BATCH_RECORDS).map(record).collect()
}

fn open(dir: &Path) -> Spool {
    let options = Options {
        dir: dir.to_owned(),
        bytes_max: QUOTA_BYTES,
        when_full: WhenFull::Reject,
        keys: Keys::default(),
        metrics: SpoolMetrics::unseen(),
    };
    Spool::open(options).expect("the spool opens").0
}

/// Compares the best of several turns each, so that a busy machine weighs on neither.
fn compare(dir: &Path, records: &[Record], group: usize) {
    let scratch = tempfile::tempdir_in(dir).expect("a folder");
    let spool = open(scratch.path());
    let batch_bytes = Draft::new("telemetry", records).expect("a draft").bytes();
    let (mut plain, mut spooled) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        plain.push(write_plainly(
            &scratch.path().join(format!("plain-{turn}")),
            batch_bytes,
            group,
        ));
        spooled.push(append(&spool, records, group));
    }
    plain.sort_unstable();
    spooled.sort_unstable();
    let (plain, spooled) = (plain[0], spooled[0]);
    let rate = |took: Duration| (ROUNDS * group * batch_bytes) as f64 / took.as_secs_f64() / 1e6;
    let ratio = rate(spooled) / rate(plain);
    println!(
        "{group:2} batches a sync: {:.0} MB/s, plain {:.0} MB/s, ratio {ratio:.2}",
        rate(spooled),
        rate(plain)
    );
}

/// Writes by a thread that takes what has gathered and syncs it once.
fn write_plainly(path: &Path, batch_bytes: usize, group: usize) -> Duration {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .expect("a file");
    file.allocate((batch_bytes * group * ROUNDS) as u64)
        .expect("room");
    file.sync_all().expect("a sync");
    let (batches, waiting) = sync_channel::<Vec<u8>>(2 * group);
    let (answer, answers) = sync_channel(2 * group);
    let writing = std::thread::spawn(move || {
        let mut offset = 0;
        while let Ok(first) = waiting.recv() {
            let gathered: Vec<Vec<u8>> = std::iter::once(first).chain(waiting.try_iter()).collect();
            let mut slices: Vec<_> = gathered.iter().map(|batch| IoSlice::new(batch)).collect();
            write_all_at(&file, &mut slices, offset).expect("a write");
            file.sync().expect("a sync");
            offset += (gathered.len() * batch_bytes) as u64;
            gathered
                .iter()
                .for_each(|_| answer.send(()).expect("it is awaited"));
        }
    });
    let took = keep_waiting(
        group,
        || batches.send(vec![7; batch_bytes]).expect("it writes"),
        &answers,
    );
    drop(batches);
    writing.join().expect("it ends");
    std::fs::remove_file(path).expect("it is removed");
    took
}

/// Appends records until they are safe, encoding included.
fn append(spool: &Spool, records: &[Record], group: usize) -> Duration {
    let (sender, answers) = sync_channel(2 * group);
    let send = || {
        let sender = sender.clone();
        let draft = Draft::new("telemetry", records).expect("a draft");
        spool.backlog.append(draft, move |answer| {
            assert!(answer.is_ok(), "it is safe");
            sender.send(()).expect("it is awaited");
        });
    };
    keep_waiting(group, send, &answers)
}

/// While one group of batches is being synced the next one gathers, as in the gateway.
fn keep_waiting(group: usize, send: impl Fn(), answers: &Receiver<()>) -> Duration {
    let begun_at = Instant::now();
    (0..2 * group).for_each(|_| send());
    for answered in 1..=ROUNDS * group {
        answers.recv().expect("an answer");
        if answered <= (ROUNDS - 2) * group {
            send();
        }
    }
    begun_at.elapsed()
}

fn recover(dir: &Path, records: &[Record]) {
    let bytes_max = std::env::var("FOREBAY_BENCH_BYTES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1 << 30);
    let scratch = tempfile::tempdir_in(dir).expect("a folder");
    let spool = open(scratch.path());
    let batch_bytes = Draft::new("telemetry", records).expect("a draft").bytes();
    let rounds = bytes_max / (batch_bytes * GROUPS[2] * ROUNDS);
    for _ in 0..=rounds {
        append(&spool, records, GROUPS[2]);
    }
    spool.close();
    crash(scratch.path());
    recover_once(scratch.path(), "after a crash, cold").close();
    let spool = recover_once(scratch.path(), "after a clean end");
    let begun_at = Instant::now();
    let mut reader = spool.backlog.reader();
    let mut read = 0;
    while let Some(frame) = reader.next_frame().expect("it reads") {
        read += frame.records.len();
    }
    let rate = (read * PAYLOAD_BYTES) as f64 / begun_at.elapsed().as_secs_f64() / 1e6;
    println!("reading back {read} records: {rate:.0} MB/s of payload");
}

fn recover_once(dir: &Path, how: &str) -> Spool {
    let begun_at = Instant::now();
    let spool = open(dir);
    let took = begun_at.elapsed();
    let segments = segments(dir);
    let bytes: u64 = segments.iter().map(|segment| file_bytes(segment)).sum();
    println!(
        "recovery {how}: {} records in {:.1} GiB: {took:?}",
        spool.backlog.records(),
        bytes as f64 / (1_u64 << 30) as f64
    );
    spool
}

/// The segments of a folder, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "spool"))
        .collect();
    segments.sort();
    segments
}

fn file_bytes(path: &Path) -> u64 {
    path.metadata().expect("a file").len()
}

/// Leaves the folder as a crash does: no mark at the end of the newest segment, its room still
/// there. Nothing stays in the page cache.
fn crash(dir: &Path) {
    const MARK_BYTES: u64 = 40;
    let segments = segments(dir);
    if let [before, .., newest] = &segments[..] {
        let file = OpenOptions::new().write(true).open(newest).expect("a file");
        file.set_len(file_bytes(newest) - MARK_BYTES)
            .expect("it is cut");
        file.set_len(file_bytes(before).max(file_bytes(newest)))
            .expect("it grows");
        file.sync_all().expect("a sync");
    }
    for segment in &segments {
        let file = File::open(segment).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is forgotten");
    }
}
