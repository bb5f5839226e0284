//! The spool against what its disk does: the same bytes, the same number of syncs, without the spool.
//!
//! `always` mode is bounded by the disk, so the figure that counts is the ratio, taken in turns in one run: 1.0 is plain
//! gathered writes and `fdatasync` into a preallocated file. Then the time to recover, and to read back. Needs
//! `FOREBAY_BENCH_DIR` on the disk in question (the temporary folder otherwise); `FOREBAY_BENCH_BYTES`, 1 GiB if not set,
//! is what is written for recovery.

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use forebay::config::WhenFull;
use forebay::record::{DeviceId, Permit, Record, RecordId, Timestamp};
use forebay::spool::disk::{DiskFile, write_all_at};
use forebay::spool::frame::body::Draft;
use forebay::spool::keys::Keys;
use forebay::spool::{Options, Spool};
use forebay::telemetry::metrics::SpoolMetrics;

const QUOTA_BYTES: u64 = 40 << 30;
const BATCH_RECORDS: usize = 256;
const PAYLOAD_BYTES: usize = 1000;

/// Batches that wait for one sync.
const GROUPS: [usize; 3] = [1, 4, 16];
const ROUNDS: usize = 60;
const TURNS: usize = 5;

static RESERVED_BYTES: AtomicUsize = AtomicUsize::new(0);

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
        received_at: Timestamp::now(),
        permit: Permit::holding(&RESERVED_BYTES, 0),
    };
    (0..BATCH_RECORDS).map(record).collect()
}

fn open(dir: &Path) -> Spool {
    let (dir, keys, metrics) = (dir.to_owned(), Keys::default(), SpoolMetrics::unseen());
    let options = Options { dir, bytes_max: QUOTA_BYTES, when_full: WhenFull::Reject, keys, metrics };
    Spool::open(options).expect("the spool opens").0
}

/// The best of several turns each, so that a busy machine weighs on neither.
fn compare(dir: &Path, records: &[Record], group: usize) {
    let scratch = tempfile::tempdir_in(dir).expect("a folder");
    let spool = open(scratch.path());
    let batch_bytes = Draft::new("telemetry", records).expect("a draft").bytes();
    let (mut plain, mut spooled) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        plain.push(write_plainly(&scratch.path().join(format!("plain-{turn}")), batch_bytes, group));
        spooled.push(append(&spool, records, group));
    }
    plain.sort_unstable();
    spooled.sort_unstable();
    let (plain, spooled) = (plain[TURNS / 2], spooled[TURNS / 2]);
    let rate = |took: Duration| (ROUNDS * group * batch_bytes) as f64 / took.as_secs_f64() / 1e6;
    let ratio = rate(spooled) / rate(plain);
    println!("{group:2} batches a sync: {:.0} MB/s, plain {:.0} MB/s, ratio {ratio:.2}", rate(spooled), rate(plain));
}

fn write_plainly(path: &Path, batch_bytes: usize, group: usize) -> Duration {
    let file: File = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
    let round_bytes = (batch_bytes * group) as u64;
    file.allocate(round_bytes * ROUNDS as u64).expect("room");
    file.sync_all().expect("a sync");
    let batch = vec![7; batch_bytes];
    let begun_at = Instant::now();
    for round in 0..ROUNDS as u64 {
        let mut slices: Vec<_> = (0..group).map(|_| IoSlice::new(&batch)).collect();
        write_all_at(&file, &mut slices, round * round_bytes).expect("a write");
        file.sync().expect("a sync");
    }
    let took = begun_at.elapsed();
    std::fs::remove_file(path).expect("it is removed");
    took
}

/// From records to safe, encoding included.
fn append(spool: &Spool, records: &[Record], group: usize) -> Duration {
    let begun_at = Instant::now();
    for _ in 0..ROUNDS {
        let (sender, answers) = sync_channel(group);
        for _ in 0..group {
            let sender = sender.clone();
            let draft = Draft::new("telemetry", records).expect("a draft");
            spool.backlog.append(draft, move |answer| sender.send(answer).expect("it is awaited"));
        }
        for _ in 0..group {
            answers.recv().expect("an answer").expect("it is safe");
        }
    }
    begun_at.elapsed()
}

fn recover(dir: &Path, records: &[Record]) {
    let bytes_max = std::env::var("FOREBAY_BENCH_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(1 << 30);
    let scratch = tempfile::tempdir_in(dir).expect("a folder");
    let spool = open(scratch.path());
    let batch_bytes = Draft::new("telemetry", records).expect("a draft").bytes();
    let rounds = bytes_max / (batch_bytes * GROUPS[2] * ROUNDS);
    for _ in 0..=rounds {
        append(&spool, records, GROUPS[2]);
    }
    spool.close();
    let begun_at = Instant::now();
    let spool = open(scratch.path());
    let recovered_after = begun_at.elapsed();
    let waiting = spool.backlog.records();
    println!("recovery of {waiting} records, {:.1} GB: {recovered_after:?}", (waiting as usize * 1000) as f64 / 1e9);
    let begun_at = Instant::now();
    let mut reader = spool.backlog.reader();
    let mut read = 0;
    while let Some(frame) = reader.next_frame().expect("it reads") {
        read += frame.records.len();
    }
    let rate = (read * PAYLOAD_BYTES) as f64 / begun_at.elapsed().as_secs_f64() / 1e6;
    println!("reading back {read} records: {rate:.0} MB/s of payload");
}
