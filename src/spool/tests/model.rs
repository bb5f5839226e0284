//! The spool against a model of what it promised, over a disk that fails: one seed is one life of a
//! spool.
//!
//! The promise: each record that was acknowledged and not retired is read back, at its place, with
//! its content, in order; a bit flip loses one frame at most; refused records appear only after a
//! crash; once the disk is well, drafts are taken again. `FOREBAY_SPOOL_SEEDS=first-last` runs
//! other seeds than CI does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sim::{Random, SimDisk};
use crate::config::WhenFull;
use crate::record::{Record, RecordId, Timestamp};
use crate::spool::commit::engine::{Engine, LogOptions, Refused};
use crate::spool::format::body::Draft;
use crate::spool::format::keys::Keys;
use crate::spool::store::ledger::State;
use crate::spool::store::reader::Reader;
use crate::spool::store::recovery::Recovery;
use crate::telemetry::metrics::SpoolMetrics;

const SEEDS: u64 = 12_000;
const STEPS: u64 = 40;
const SEGMENT_BYTES: u64 = 16 << 10;

pub(crate) fn record(content: u64, bytes: usize) -> Record {
    let mut payload = content.to_le_bytes().to_vec();
    payload.resize(8 + bytes, content as u8);
    Record {
        id: RecordId::from_key(b"key").unwrap(),
        ..Record::bare("meter-7", payload, Timestamp(content))
    }
}

/// The fate of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// At this place, of this draft.
    Safe { place: u64, draft: u64 },
    /// Retired, refused or dropped: a crash may bring it back.
    Over,
    /// As `Over`, and there was a crash or damage since.
    MayReturn,
}

pub(crate) struct Life {
    seed: u64,
    random: Random,
    disk: SimDisk,
    dir: PathBuf,
    keys: Arc<Keys>,
    bytes_max: u64,
    when_full: WhenFull,
    engine: Option<Engine<SimDisk>>,
    reader: Option<Reader<SimDisk>>,
    last_read: Option<u64>,
    /// Read and not retired yet.
    under_way: Vec<(u64, u64)>,
    fates: HashMap<u64, Fate>,
    contents: u64,
    drafts: u64,
    flips: usize,
    /// Places of safe records that recovery found in no segment.
    gone: HashSet<u64>,
    open_failed: bool,
    faulty: bool,
    /// Whether it was faulty since the last crash or restart: files that could not be deleted may
    /// be left.
    was_faulty: bool,
    now: Instant,
}

impl Life {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let lines = "ab".repeat(32);
        let keys = if random.chance(50) {
            Keys::parse(&lines, Path::new("keys")).unwrap()
        } else {
            Keys::default()
        };
        let quotas = [3, 5, 1000];
        let bytes_max = quotas[random.below(3) as usize] * SEGMENT_BYTES;
        let when_full = if random.chance(30) {
            WhenFull::DropOldest
        } else {
            WhenFull::Reject
        };
        let mut life = Self {
            seed,
            disk: SimDisk::new(random.next()),
            random,
            dir: PathBuf::from("spool"),
            keys: Arc::new(keys),
            bytes_max,
            when_full,
            engine: None,
            reader: None,
            last_read: None,
            under_way: Vec::new(),
            fates: HashMap::new(),
            contents: 0,
            drafts: 0,
            flips: 0,
            gone: HashSet::new(),
            open_failed: false,
            faulty: false,
            was_faulty: false,
            now: Instant::now(),
        };
        life.open();
        life
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.heal();
        self.check();
        let restart = if self.random.chance(50) {
            Self::crash
        } else {
            Self::restart
        };
        restart(self);
        self.heal();
        self.check();
        self.check_that_it_takes_more();
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.append(),
            40..58 => drop(self.read()),
            58..72 => self.retire(),
            72..80 => self.tend(),
            80..84 => self.crash(),
            84..87 => self.restart(),
            87..92 => self.fail(),
            92..95 => self.heal(),
            95..97 => self.flip(),
            97 if self.random.chance(20) => self.remove_folder(),
            _ => {
                self.heal();
                self.check();
            }
        }
    }

    fn engine(&mut self) -> &mut Engine<SimDisk> {
        self.engine.as_mut().unwrap()
    }

    fn append(&mut self) {
        let mut drafts = Vec::new();
        for _ in 0..=self.random.below(3) {
            let large = if self.random.chance(3) { 30_000 } else { 2_000 };
            let records = (0..=self.random.below(2))
                .map(|_| self.new_record(large))
                .collect::<Vec<_>>();
            let contents: Vec<u64> = records.iter().map(|record| record.received_at.0).collect();
            drafts.push((Draft::new("telemetry", &records).unwrap(), contents));
        }
        let now = self.now;
        let answers = self.engine().commit(
            &drafts.iter().map(|(draft, _)| draft).collect::<Vec<_>>(),
            now,
        );
        assert_eq!(answers.len(), drafts.len());
        for ((_, contents), answer) in drafts.into_iter().zip(answers) {
            self.drafts += 1;
            let draft = self.drafts;
            match answer {
                Ok(places) => {
                    assert_eq!(places.end - places.start, contents.len() as u64);
                    let safe = contents.into_iter().zip(places);
                    self.fates.extend(
                        safe.map(|(content, place)| (content, Fate::Safe { place, draft })),
                    );
                }
                Err(refused) => {
                    assert!(
                        self.faulty || !matches!(refused, Refused::Disk(_)),
                        "a disk that is well: {refused}"
                    );
                    self.fates
                        .extend(contents.into_iter().map(|content| (content, Fate::Over)));
                }
            }
        }
        self.note_what_was_dropped();
        let taken_bytes = self.disk.segment_bytes(&self.dir);
        assert!(
            self.was_faulty || taken_bytes <= self.bytes_max,
            "{taken_bytes} bytes are taken"
        );
    }

    fn new_record(&mut self, bytes_max: u64) -> Record {
        self.contents += 1;
        let bytes = self.random.below(bytes_max) as usize;
        record(self.contents, bytes)
    }

    /// Checks that only the oldest records were dropped, and only if that was asked for.
    fn note_what_was_dropped(&mut self) {
        if self.when_full == WhenFull::Reject {
            return;
        }
        let ledger = self.engine().ledger().clone();
        let index = ledger.index();
        let safe = self.fates.values_mut().filter_map(|fate| match *fate {
            Fate::Safe { place, .. } => Some((place, fate)),
            _ => None,
        });
        let (mut newest_dropped, mut oldest_kept) = (None, u64::MAX);
        for (place, fate) in safe {
            if index.is_done(place) {
                *fate = Fate::Over;
                newest_dropped = newest_dropped.max(Some(place));
            } else {
                oldest_kept = oldest_kept.min(place);
            }
        }
        assert!(
            self.flips > 0 || newest_dropped < Some(oldest_kept),
            "{newest_dropped:?} was dropped"
        );
    }

    /// Reads one frame. Gives up on a disk that does not read before the reader does.
    fn read(&mut self) -> bool {
        for attempt in 0.. {
            match self.reader.as_mut().unwrap().next_frame() {
                Ok(Some(frame)) => {
                    let records = frame.places.into_iter().zip(frame.records);
                    records.for_each(|(place, record)| self.note_read(place, &record));
                    return true;
                }
                Ok(None) => return false,
                Err(_) if attempt == 2 => self.disk.set_faults(if self.faulty { 10 } else { 0 }, 0),
                Err(_) => assert!(self.faulty, "a disk that is well reads"),
            }
        }
        false
    }

    fn note_read(&mut self, place: u64, read: &Record) {
        let content = u64::from_le_bytes(*read.payload.first_chunk().unwrap());
        assert_eq!(
            read.payload,
            record(content, read.payload.len() - 8).payload
        );
        assert!(
            Some(place) > self.last_read,
            "{place} was read after {:?}",
            self.last_read
        );
        self.last_read = Some(place);
        match self.fates[&content] {
            Fate::Safe { place: at, .. } => assert_eq!(at, place, "content {content}"),
            fate => assert_eq!(fate, Fate::MayReturn, "content {content} at {place}"),
        }
        self.under_way.push((place, content));
    }

    fn retire(&mut self) {
        for _ in 0..self.random.below(8) {
            if self.under_way.is_empty() {
                return;
            }
            let at = self.random.below(self.under_way.len() as u64) as usize;
            let (place, content) = self.under_way.swap_remove(at);
            self.engine().ledger().retire(Some(place..place + 1));
            self.fates.insert(content, Fate::Over);
        }
    }

    fn tend(&mut self) {
        let millis = if self.random.chance(10) { 6000 } else { 150 };
        self.now += Duration::from_millis(self.random.below(millis));
        self.engine_tends();
    }

    /// Tends the engine, which may try the disk with a new segment, and make room for it.
    fn engine_tends(&mut self) {
        let now = self.now;
        self.engine().tend(now);
        self.note_what_was_dropped();
    }

    fn crash(&mut self) {
        self.reader = None;
        self.engine = None;
        self.disk.crash();
        self.ghosts();
        self.open();
    }

    fn restart(&mut self) {
        self.reader = None;
        let engine = self.engine.take().unwrap();
        engine.close(self.now);
        // The tail of a segment that failed and could not be cut is dead only while a later segment
        // is there.
        if self.was_faulty || self.flips > 0 {
            self.ghosts();
        }
        self.open();
    }

    /// Lets records that are over come back from here on.
    fn ghosts(&mut self) {
        self.fates
            .values_mut()
            .filter(|fate| **fate == Fate::Over)
            .for_each(|fate| *fate = Fate::MayReturn);
    }

    fn open(&mut self) {
        let metrics = SpoolMetrics::unseen();
        let (dir, keys, when_full) = (self.dir.clone(), self.keys.clone(), self.when_full);
        let options = LogOptions {
            dir,
            segment_bytes: SEGMENT_BYTES,
            bytes_max: self.bytes_max,
            when_full,
            keys,
            metrics,
        };
        match Engine::open(Arc::new(self.disk.clone()), options) {
            Ok((engine, recovery)) => {
                self.engine = Some(engine);
                self.note_what_is_gone(&recovery);
                self.was_faulty = self.faulty;
                self.read_from_start();
            }
            Err(error) => {
                assert!(self.faulty, "{error}");
                self.open_failed = true;
                self.faulty = false;
                self.disk.set_faults(0, 0);
                self.open();
            }
        }
    }

    /// Checks that safe records that are in no segment any more, and that the reader did not find
    /// damaged, were reported, once.
    fn note_what_is_gone(&mut self, recovery: &Recovery) {
        let ledger = self.engine().ledger().clone();
        let index = ledger.index();
        let told_before = self.gone.len();
        for fate in self.fates.values() {
            if let Fate::Safe { place, .. } = *fate
                && !index.holds(place)
                && !index.is_done(place)
            {
                self.gone.insert(place);
            }
        }
        // An attempt that failed half-way is in the log only.
        let was_told = recovery.damaged() > 0 || std::mem::take(&mut self.open_failed);
        assert!(
            self.gone.len() == told_before || was_told,
            "seed {}: gone without a word, one of {:?}",
            self.seed,
            self.gone
        );
    }

    fn read_from_start(&mut self) {
        self.reader = Some(Reader::new(self.engine().source()));
        self.last_read = None;
        self.under_way.clear();
    }

    fn fail(&mut self) {
        (self.faulty, self.was_faulty) = (true, true);
        let (write_faults, read_faults) = (
            [2, 10, 100][self.random.below(3) as usize],
            self.random.below(30),
        );
        self.disk.set_faults(write_faults, read_faults);
    }

    fn heal(&mut self) {
        self.disk.set_faults(0, 0);
        self.now += Duration::from_secs(6);
        self.engine_tends();
        self.faulty = false;
        let state = self.engine().ledger().state();
        assert!(
            !matches!(state, State::Down(_)),
            "{state:?} on a disk that is well"
        );
    }

    fn flip(&mut self) {
        self.flips += usize::from(self.disk.flip());
        self.ghosts();
    }

    fn remove_folder(&mut self) {
        self.disk.remove_folder(&self.dir);
        self.reader = None;
        self.engine = None;
        self.fates.clear();
        self.gone.clear();
        self.flips = 0;
        self.open();
    }

    /// Checks that all safe records can be read, but for a frame a flip.
    fn check(&mut self) {
        self.read_from_start();
        while self.read() {}
        let read: HashSet<u64> = self.under_way.iter().map(|(_, content)| *content).collect();
        let missing: BTreeMap<u64, (u64, u64)> = self
            .fates
            .iter()
            .filter_map(|(content, fate)| match *fate {
                Fate::Safe { place, draft } if !read.contains(content) => {
                    Some((*content, (draft, place)))
                }
                _ => None,
            })
            .collect();
        let lost_drafts: HashSet<u64> = missing.values().map(|(draft, _)| *draft).collect();
        assert!(
            lost_drafts.len() <= self.flips,
            "lost, by content (draft, place): {missing:?}"
        );
        self.flips -= lost_drafts.len();
        for content in missing.keys() {
            self.fates.insert(*content, Fate::MayReturn);
        }
    }

    fn check_that_it_takes_more(&mut self) {
        let places = std::mem::take(&mut self.under_way)
            .into_iter()
            .map(|(place, _)| place..place + 1);
        self.engine().ledger().retire(places.collect::<Vec<_>>());
        self.tend();
        let draft = Draft::new("telemetry", [&record(0, 10)]).unwrap();
        let now = self.now;
        let answers = self.engine().commit(&[&draft], now);
        assert!(answers[0].is_ok(), "seed {}: {answers:?}", self.seed);
    }
}

fn seeds() -> (u64, u64) {
    let asked = std::env::var("FOREBAY_SPOOL_SEEDS").ok();
    let parse = |text: String| {
        text.split_once('-')
            .and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)))
    };
    asked.and_then(parse).unwrap_or((1, SEEDS))
}

#[test]
fn nothing_acknowledged_is_ever_lost() {
    let (first, last) = seeds();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (first + thread..=last).step_by(threads as usize) {
                    let life = std::panic::catch_unwind(|| Life::new(seed).run());
                    assert!(
                        life.is_ok(),
                        "FOREBAY_SPOOL_SEEDS={seed}-{seed} cargo test --lib spool::tests::model"
                    );
                }
            });
        }
    });
}
