//! The whole spool with its thread on this machine's disk, for the cases that the model leaves out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use super::super::{
    Found, GatewayDisk, OpenError, Options, QUOTA_BYTES_MIN, Recovery, Refused, Spool, State,
    WhenFull,
};
use super::model::record;
use super::sim::SimDisk;
use crate::record::Record;
use crate::spool::commit::engine::{Engine, LogOptions};
use crate::spool::commit::log::Log;
use crate::spool::format::body::Draft;
use crate::spool::format::keys::Keys;
use crate::spool::format::segment::RUN_BYTES_MAX;
use crate::spool::store::reader::{Frame, Reader};
use crate::telemetry::metrics::SpoolMetrics;

fn options(dir: &Path, keys: Keys) -> Options {
    let (dir, metrics) = (dir.to_owned(), SpoolMetrics::unseen());
    Options {
        dir,
        bytes_max: QUOTA_BYTES_MIN,
        when_full: WhenFull::Reject,
        keys,
        metrics,
    }
}

/// Opens the spool; returns it with the recovery of its backlog.
fn open(dir: &Path) -> (Spool, Recovery) {
    let (spool, found) = open_both(dir);
    (spool, found.backlog)
}

fn open_both(dir: &Path) -> (Spool, Found) {
    Spool::open(options(dir, Keys::default())).unwrap()
}

type Answered = Receiver<Result<std::ops::Range<u64>, Refused>>;

fn append(log: &Log<GatewayDisk>, records: &[Record]) -> Answered {
    let (sender, answer) = sync_channel(1);
    log.append(Draft::new("telemetry", records).unwrap(), move |result| {
        sender.send(result).unwrap()
    });
    answer
}

fn contents(frames: &[Frame]) -> Vec<u64> {
    frames
        .iter()
        .flat_map(|frame| &frame.records)
        .map(|record| record.received_at.0)
        .collect()
}

fn read_all(log: &Log<GatewayDisk>) -> Vec<Frame> {
    let mut reader = log.reader();
    std::iter::from_fn(|| reader.next_frame().unwrap()).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "spool"))
        .collect();
    segments.sort();
    segments
}

#[track_caller]
fn eventually(is_so: impl Fn() -> bool) {
    let given_up_at = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < given_up_at, "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn what_was_answered_is_there_after_a_restart_until_it_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, recovery) = open(dir.path());
    assert_eq!(recovery, Recovery::default());
    let answers: Vec<_> = (0..200)
        .map(|at| append(&spool.backlog, &[record(at, 9000), record(at, 20)]))
        .collect();
    for (at, answer) in (0..).zip(answers) {
        assert_eq!(answer.recv().unwrap(), Ok(at * 2..at * 2 + 2));
    }
    assert_eq!(
        (spool.backlog.records(), spool.backlog.state()),
        (400, State::Up)
    );
    spool.close();
    let (spool, recovery) = open(dir.path());
    assert_eq!(
        (recovery.records, recovery.segments),
        (400, 2),
        "a segment of 1 MiB holds half of them"
    );
    let frames = read_all(&spool.backlog);
    assert_eq!(
        contents(&frames),
        (0..200).flat_map(|at| [at, at]).collect::<Vec<_>>()
    );
    spool.backlog.retire(Some(0..300));
    spool.close();
    let (spool, recovery) = open(dir.path());
    assert_eq!(recovery.records, 100);
    assert_eq!(contents(&read_all(&spool.backlog))[0], 150);
    spool.backlog.retire(Some(300..400));
    spool.close();
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
    let (spool, _) = open(dir.path());
    assert_eq!(
        append(&spool.backlog, &[record(7, 7)]).recv().unwrap(),
        Ok(400..401),
        "places are not used again"
    );
}

#[test]
fn a_second_gateway_is_refused_and_told_who_has_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let error = Spool::open(options(dir.path(), Keys::default()))
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        matches!(error, OpenError::Lock(_))
            && text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    spool.close();
    open(dir.path());
}

#[test]
fn a_folder_that_is_removed_underneath_is_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("spool");
    let (spool, _) = open(&dir);
    append(&spool.backlog, &[record(1, 1)])
        .recv()
        .unwrap()
        .unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(
        append(&spool.backlog, &[record(2, 2)])
            .recv()
            .unwrap()
            .is_ok()
    );
    spool.close();
    let (spool, _) = open(&dir);
    assert_eq!(contents(&read_all(&spool.backlog)), [2]);
}

#[test]
fn a_disk_that_takes_nothing_refuses_and_is_found_again_without_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("spool");
    let (spool, _) = open(&dir);
    fs::remove_dir_all(&dir).unwrap();
    fs::write(&dir, "a file in the way").unwrap();
    assert!(matches!(
        append(&spool.backlog, &[record(1, 1)]).recv().unwrap(),
        Err(Refused::Disk(_))
    ));
    assert!(matches!(spool.backlog.state(), State::Down(_)));
    fs::remove_file(&dir).unwrap();
    eventually(|| spool.backlog.state() == State::Up);
    assert!(
        append(&spool.backlog, &[record(2, 2)])
            .recv()
            .unwrap()
            .is_ok()
    );
}

/// Otherwise a disk that the segments fill would keep them for ever: none is deleted before the
/// cursor is written.
#[test]
fn the_cursor_has_its_room_before_there_is_anything_to_retire() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    assert_eq!(segments(dir.path()).len(), 1);
    for name in ["cursor-0", "cursor-1"] {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        assert!(
            metadata.blocks() * 512 >= 4096 * 16,
            "{} blocks",
            metadata.blocks()
        );
    }
    spool.close();
}

#[test]
fn dead_letters_keep_their_reason_apart_from_the_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let (sender, answer) = sync_channel(1);
    let draft = Draft::dead("alarms", "the topic is gone", &[record(3, 3)]).unwrap();
    spool
        .dead_letters
        .append(draft, move |result| sender.send(result).unwrap());
    assert_eq!(answer.recv().unwrap(), Ok(0..1));
    spool.close();
    let (spool, recovery) = open(dir.path());
    let frames = read_all(&spool.dead_letters);
    assert_eq!(
        (&*frames[0].stream, frames[0].reason.as_deref()),
        ("alarms", Some("the topic is gone"))
    );
    assert_eq!(
        (
            contents(&frames),
            frames[0].places.clone(),
            recovery.records
        ),
        (vec![3], vec![0], 0)
    );
}

#[test]
fn with_a_key_nothing_readable_is_on_disk_and_without_it_the_spool_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |digit: &str| Keys::parse(&digit.repeat(64), Path::new("keys")).unwrap();
    let (spool, _) = Spool::open(options(dir.path(), keys("a"))).unwrap();
    append(&spool.backlog, &[record(4, 4)])
        .recv()
        .unwrap()
        .unwrap();
    spool.close();
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"meter-7"));
    let error = Spool::open(options(dir.path(), keys("b")))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("segment-0000000001.spool: it is encrypted with the key"),
        "{error}"
    );
    let (spool, _) = Spool::open(options(dir.path(), keys("a"))).unwrap();
    assert_eq!(contents(&read_all(&spool.backlog)), [4]);
}

#[test]
fn a_damaged_frame_goes_to_quarantine_its_neighbours_are_read_and_foreign_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("segment-1.spool"), "not of the spool").unwrap();
    let (spool, _) = open(dir.path());
    for at in 0..3 {
        append(&spool.backlog, &[record(at, 1000)])
            .recv()
            .unwrap()
            .unwrap();
    }
    spool.close();
    let file = dir.path().join("segment-0000000001.spool");
    let mut bytes = fs::read(&file).unwrap();
    let second = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == b"FBf1")
        .nth(1)
        .unwrap()
        .0;
    bytes[second + 500] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (spool, _) = open(dir.path());
    assert_eq!(contents(&read_all(&spool.backlog)), [0, 2]);
    assert_eq!(spool.backlog.records(), 2);
    let kept = fs::read(
        dir.path()
            .join(format!("quarantine/segment-0000000001.spool.{second}")),
    )
    .unwrap();
    assert_eq!(kept[..60], bytes[..60]);
    assert!(kept.len() > 1060 && bytes[second..].starts_with(&kept[60..]));
    // Nothing is appended, and still the segment goes when its last record is done with.
    spool.backlog.retire([0..1, 2..3]);
    eventually(|| !file.exists());
    assert!(dir.path().join("segment-1.spool").exists());
}

/// Returns the offsets of a segment's frames.
fn frames_in(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(4).enumerate();
    windows
        .filter(|(_, window)| window == b"FBf1")
        .map(|(at, _)| at)
        .collect()
}

/// Makes a segment with these two records and the mark of its end, in the backlog or in the dead
/// letters.
fn two_records(dir: &Path, of_backlog: bool) -> PathBuf {
    let (spool, _) = open(dir);
    for content in [1, 2] {
        let (log, draft) = match of_backlog {
            true => (
                &spool.backlog,
                Draft::new("telemetry", &[record(content, 1000)]),
            ),
            false => (
                &spool.dead_letters,
                Draft::dead("telemetry", "closed", &[record(content, 1000)]),
            ),
        };
        let (sender, answer) = sync_channel(1);
        log.append(draft.unwrap(), move |places| sender.send(places).unwrap());
        answer.recv().unwrap().unwrap();
    }
    spool.close();
    let log = if of_backlog {
        dir.to_owned()
    } else {
        dir.join("dead-letters")
    };
    segments(&log).remove(0)
}

/// Opens a spool whose second record is torn: the first one is read, and the second one told of,
/// once.
#[track_caller]
fn check_torn(dir: &Path, segment: &Path, of_backlog: bool, kept: Option<(usize, &[u8])>) {
    let (spool, found) = open_both(dir);
    let (log, recovery) = match of_backlog {
        true => (&spool.backlog, found.backlog),
        false => (&spool.dead_letters, found.dead_letters),
    };
    assert_eq!((recovery.torn_tails, recovery.torn_records), (1, 1));
    assert_eq!((recovery.records, contents(&read_all(log))), (1, vec![1]));
    spool.close();
    let quarantine = segment.parent().unwrap().join("quarantine");
    if let Some((offset, bytes)) = kept {
        let name = format!("segment-0000000001.spool.{offset}");
        let piece = fs::read(quarantine.join(name)).unwrap();
        let bytes_end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        assert_eq!(piece[60..], bytes[..bytes_end]);
    }
    let (_spool, found) = open_both(dir);
    assert_eq!(
        (found.backlog.torn_tails, found.dead_letters.torn_tails),
        (0, 0)
    );
}

/// The rest of a file is shorter, or has the room of a preallocated one without the bytes.
#[test]
fn a_torn_tail_goes_to_quarantine_and_is_told_of() {
    for (of_backlog, is_preallocated) in [(true, false), (true, true), (false, false)] {
        let dir = tempfile::tempdir().unwrap();
        let segment = two_records(dir.path(), of_backlog);
        let bytes = fs::read(&segment).unwrap();
        let torn_at = frames_in(&bytes)[1];
        let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(bytes.len() as u64 - 300).unwrap();
        if is_preallocated {
            file.set_len(bytes.len() as u64).unwrap();
        }
        let torn = &bytes[torn_at..bytes.len() - 300];
        check_torn(dir.path(), &segment, of_backlog, Some((torn_at, torn)));
    }
}

/// The header of the last frame is damaged before the segment was finished: nothing says that it is
/// one.
#[test]
fn a_tail_without_a_header_goes_to_quarantine_and_is_told_of() {
    for knows_the_end in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let segment = two_records(dir.path(), true);
        let mut bytes = fs::read(&segment).unwrap();
        bytes.truncate(bytes.len() - 40);
        let torn_at = frames_in(&bytes)[1];
        bytes[torn_at + 9] ^= 1;
        fs::write(&segment, &bytes).unwrap();
        if !knows_the_end {
            for name in ["cursor-0", "cursor-1"] {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
        check_torn(
            dir.path(),
            &segment,
            true,
            Some((torn_at, &bytes[torn_at..])),
        );
    }
}

/// Only the cursor knows that there was a second record.
#[test]
fn a_tail_that_is_gone_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let segment = two_records(dir.path(), true);
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..frames_in(&bytes)[1]]).unwrap();
    check_torn(dir.path(), &segment, true, None);
}

/// Room that was not used and a mark of the end that was not written whole held nothing.
#[test]
fn an_end_that_held_no_record_is_cut_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let segment = two_records(dir.path(), true);
    let bytes = fs::read(&segment).unwrap();
    for left in [0, 1, 20, 39] {
        let mut torn = bytes[..bytes.len() - 40 + left].to_vec();
        torn.resize(1 << 20, 0);
        fs::write(&segment, &torn).unwrap();
        let (spool, found) = open(dir.path());
        assert_eq!(
            (found.records, found.damaged()),
            (2, 0),
            "{left} bytes of the mark"
        );
        spool.close();
        assert!(!dir.path().join("quarantine").exists());
        assert_eq!(fs::read(&segment).unwrap(), bytes);
    }
}

#[test]
fn a_segment_without_a_header_goes_to_quarantine_wherever_its_frames_are() {
    let dir = tempfile::tempdir().unwrap();
    two_records(dir.path(), true);
    let lost = |id: u64, frames_at: usize| {
        let bytes = [b"x".repeat(8192), vec![0; frames_at], b"frames".to_vec()].concat();
        fs::write(dir.path().join(format!("segment-{id:010}.spool")), bytes).unwrap();
    };
    lost(8, 0);
    lost(9, 100_000);
    fs::write(
        dir.path().join("segment-0000000010.spool"),
        vec![0; 1 << 20],
    )
    .unwrap();
    let (spool, recovery) = open(dir.path());
    assert_eq!((recovery.records, recovery.lost_segments), (2, 2));
    for id in [8, 9] {
        let kept = format!("quarantine/segment-{id:010}.spool");
        assert!(dir.path().join(kept).exists());
    }
    assert!(
        !dir.path()
            .join("quarantine/segment-0000000010.spool")
            .exists()
    );
    spool.close();
}

fn simulated(
    disk: &SimDisk,
    segment_bytes: u64,
    bytes_max: u64,
    when_full: WhenFull,
) -> Engine<SimDisk> {
    let (dir, keys, metrics) = (
        PathBuf::from("spool"),
        Arc::new(Keys::default()),
        SpoolMetrics::unseen(),
    );
    let options = LogOptions {
        dir,
        segment_bytes,
        bytes_max,
        when_full,
        keys,
        metrics,
    };
    Engine::open(Arc::new(disk.clone()), options).unwrap().0
}

fn draft(content: u64, bytes: usize) -> Draft {
    Draft::new("telemetry", [&record(content, bytes)]).unwrap()
}

#[test]
fn a_place_that_cannot_be_read_is_given_up_after_five_times() {
    let disk = SimDisk::new(1);
    let mut engine = simulated(&disk, 16 << 10, 1 << 20, WhenFull::Reject);
    let now = Instant::now();
    let drafts = [draft(1, 9000), draft(2, 9000)];
    assert!(
        engine
            .commit(&[&drafts[0], &drafts[1]], now)
            .iter()
            .all(Result::is_ok)
    );
    let mut reader = Reader::new(engine.source());
    disk.set_faults(0, 100);
    for _ in 0..5 {
        assert_eq!(
            reader.next_frame().unwrap_err().path,
            Path::new("spool/segment-0000000001.spool")
        );
    }
    disk.set_faults(0, 0);
    let frame = reader.next_frame().unwrap().unwrap();
    assert_eq!(
        (contents(&[frame]), engine.ledger().index().records()),
        (vec![2], 1)
    );
}

#[test]
fn a_full_spool_rejects_or_drops_its_oldest_segment() {
    for (when_full, first) in [(WhenFull::Reject, 0), (WhenFull::DropOldest, 1)] {
        let disk = SimDisk::new(1);
        let mut engine = simulated(&disk, 20 << 10, 60 << 10, when_full);
        let now = Instant::now();
        let answers: Vec<_> = (0..4)
            .map(|at| engine.commit(&[&draft(at, 11_000)], now).remove(0))
            .collect();
        let is_kept = when_full == WhenFull::DropOldest;
        assert_eq!(
            answers[3],
            if is_kept {
                Ok(3..4)
            } else {
                Err(Refused::Full)
            }
        );
        assert_eq!(
            engine.ledger().state(),
            if is_kept { State::Up } else { State::Full }
        );
        let mut reader = Reader::new(engine.source());
        assert_eq!(contents(&[reader.next_frame().unwrap().unwrap()]), [first]);
        engine.ledger().retire(Some(0..9));
        engine.tend(now);
        assert_eq!(
            (
                engine.ledger().state(),
                engine.commit(&[&draft(9, 11_000)], now)[0].is_ok()
            ),
            (State::Up, true)
        );
        assert_eq!(
            engine.commit(&[&draft(10, 60_000)], now),
            [Err(Refused::TooLarge)]
        );
    }
}

/// Dropping records that the disk will not delete would win nothing.
#[test]
fn a_disk_that_deletes_nothing_drops_nothing() {
    let disk = SimDisk::new(1);
    let mut engine = simulated(&disk, 20 << 10, 60 << 10, WhenFull::DropOldest);
    let now = Instant::now();
    for at in 0..3 {
        assert!(engine.commit(&[&draft(at, 11_000)], now)[0].is_ok());
    }
    disk.set_faults(100, 0);
    for at in 3..9 {
        assert!(engine.commit(&[&draft(at, 11_000)], now)[0].is_err());
    }
    assert_eq!(engine.ledger().index().records(), 3);
    disk.set_faults(0, 0);
    assert!(engine.commit(&[&draft(9, 11_000)], now)[0].is_ok());
    let mut reader = Reader::new(engine.source());
    let frames: Vec<_> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    assert_eq!(contents(&frames), [1, 2, 9]);
}

/// Of many segments one is left, to be written on, and nothing waits in it.
#[test]
fn a_drained_spool_keeps_one_empty_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    let answers: Vec<_> = (0..500)
        .map(|at| append(&spool.backlog, &[record(at, 9000)]))
        .collect();
    for answer in answers {
        assert!(answer.recv().unwrap().is_ok());
    }
    assert!(segments(dir.path()).len() > 4);
    spool.backlog.retire(Some(0..500));
    eventually(|| segments(dir.path()).len() == 1);
    assert_eq!(
        (spool.backlog.records(), spool.backlog.state()),
        (0, State::Up)
    );
    assert!(fs::metadata(&segments(dir.path())[0]).unwrap().len() <= 1 << 20);
    assert_eq!(
        segments(&dir.path().join("dead-letters")),
        Vec::<PathBuf>::new()
    );
    spool.close();
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn dropped_records_are_told_of_once_a_minute() {
    let mut engine = simulated(&SimDisk::new(1), 20 << 10, 60 << 10, WhenFull::DropOldest);
    let begun_at = Instant::now();
    for at in 0..7 {
        assert!(engine.commit(&[&draft(at, 11_000)], begun_at)[0].is_ok());
    }
    let due = begun_at + Duration::from_secs(60);
    engine.tend(begun_at + Duration::from_secs(59));
    assert_eq!(engine.due(), Some(due));
    engine.tend(due);
    assert_ne!(engine.due(), Some(due));
}

/// A frame that could not be cut off a segment must not take the places of its copy, which was
/// written elsewhere, even if the segment that followed is gone.
#[test]
fn a_dead_frame_that_reaches_into_the_next_segment_stays_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path());
    append(&spool.backlog, &[record(1, 100)])
        .recv()
        .unwrap()
        .unwrap();
    append(&spool.backlog, &[record(2, 100), record(3, 100)])
        .recv()
        .unwrap()
        .unwrap();
    spool.close();
    let first = dir.path().join("segment-0000000001.spool");
    let dead = fs::read(&first).unwrap();
    // As if the second frame had failed: its places are given out again, to a segment each.
    let cut_at = dead
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == b"FBf1")
        .nth(1)
        .unwrap()
        .0;
    fs::write(&first, &dead[..cut_at]).unwrap();
    ["cursor-0", "cursor-1"]
        .iter()
        .for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
    for content in [4, 5] {
        let (spool, _) = open(dir.path());
        append(&spool.backlog, &[record(content, 100)])
            .recv()
            .unwrap()
            .unwrap();
        spool.close();
    }
    let (spool, _) = open(dir.path());
    spool.backlog.retire(Some(1..2));
    spool.close();
    assert!(!dir.path().join("segment-0000000002.spool").exists());
    fs::write(&first, &dead[..dead.len() - 40]).unwrap();
    let (spool, _) = open(dir.path());
    let frames = read_all(&spool.backlog);
    assert_eq!(
        (contents(&frames), frames[1].places.clone()),
        (vec![1, 5], vec![2])
    );
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own_and_a_run_is_bounded() {
    let disk = SimDisk::new(1);
    let mut engine = simulated(&disk, 1 << 20, 1 << 30, WhenFull::Reject);
    let now = Instant::now();
    let large = RUN_BYTES_MAX as usize + 5;
    let drafts = [draft(1, 10), draft(2, large), draft(3, 10)];
    let answers = engine.commit(&drafts.iter().collect::<Vec<_>>(), now);
    assert_eq!(answers, [Ok(0..1), Ok(1..2), Ok(2..3)]);
    drop(engine);
    disk.crash();
    let engine = simulated(&disk, 1 << 20, 1 << 30, WhenFull::Reject);
    let mut reader = Reader::new(engine.source());
    let frames: Vec<_> = std::iter::from_fn(|| reader.next_frame().unwrap()).collect();
    assert_eq!(contents(&frames), [1, 2, 3]);
}
