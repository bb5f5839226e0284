//! Takes what is on disk to the sink, wave by wave, and is done with what arrived.
//!
//! One wave is on its way at a time, of no more than a batch: live records are hardly held up by it. What the sink did not
//! take goes again, after a back-off while nothing arrives; what it refuses for good, and what has no stream any more,
//! goes to the dead letters. For a stream that is away nothing is tried.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use uuid::Uuid;

use super::Delivery;
use super::backlog::Backlog;
use super::window::{Entry, Turn, Wave, Window};
use crate::record::{Outcome, Outcomes, Reason, Record, StreamIndex};
use crate::spool::disk::real::RealDisk;
use crate::spool::reader::{Frame, ReadError, Reader};

/// What is read ahead: more than a wave, so that it finds many devices.
const WINDOW_RECORDS: usize = 4096;
const WINDOW_BYTES: usize = 8 << 20;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// How long the disk is left alone that could not be read.
const READ_BACK_OFF: Duration = Duration::from_secs(1);

/// What has been read and not sent, and where to read on.
struct Ahead {
    window: Window,
    reader: Option<Reader<RealDisk>>,
}

impl Delivery {
    /// Runs until the gateway leaves.
    pub(super) async fn drain(self: Rc<Self>) {
        let Some(backlog) = &self.backlog else { return };
        let mut ahead = Ahead {
            window: Window::default(),
            reader: None,
        };
        let mut back_off = BACK_OFF_MIN;
        while !self.watch.is_leaving() {
            if !ahead.read(backlog).await {
                self.wait(READ_BACK_OFF).await;
            }
            let Some(wave) = self.next_wave(backlog, &mut ahead.window) else {
                self.rest(backlog, &ahead.window).await;
                continue;
            };
            if self.send(backlog, &mut ahead.window, wave).await {
                back_off = BACK_OFF_MIN;
            } else {
                self.wait(jittered(back_off)).await;
                back_off = (2 * back_off).min(BACK_OFF_MAX);
            }
        }
    }

    async fn wait(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.watch.left() => {}
        }
    }

    fn next_wave(&self, backlog: &Backlog, window: &mut Window) -> Option<Wave> {
        let answers = |stream: &str| {
            let index = self.index_of(stream);
            index.is_none_or(|index| self.watch.answers(index))
        };
        window.take_wave(self.options.batch, answers, |place| {
            match backlog.is_done(place) {
                true => Turn::Forget,
                false if backlog.is_in_doubt(place) => Turn::Wait,
                false => Turn::Go,
            }
        })
    }

    /// `None` for a stream that is not among those of now.
    fn index_of(&self, stream: &str) -> Option<StreamIndex> {
        let mut streams = self.options.streams.iter();
        let place = streams.position(|known| *known.name == *stream)?;
        Some(StreamIndex(place as u16))
    }

    /// Until there may be something to do.
    async fn rest(&self, backlog: &Backlog, window: &Window) {
        if window.records() == 0 {
            backlog.settle_if_empty();
        }
        tokio::select! {
            () = backlog.changed() => {}
            () = self.watch.sink_changed() => {}
            () = self.watch.left() => {}
        }
    }

    /// Whether anything of it is done with.
    async fn send(&self, backlog: &Backlog, window: &mut Window, wave: Wave) -> bool {
        let Wave { stream, entries } = wave;
        let (places, records): (Vec<u64>, Vec<Record>) = entries.into_iter().unzip();
        let outcomes = match self.index_of(&stream) {
            Some(index) => self.ask_sink(index, &records).await,
            None => Outcomes::All(Outcome::Permanent(
                "the stream is not among FOREBAY_STREAMS".into(),
            )),
        };
        let mut sorted = Sorted::default();
        places
            .into_iter()
            .zip(records)
            .enumerate()
            .for_each(|(at, entry)| sorted.add(entry, outcomes.get(at)));
        window.put_back(&stream, sorted.again);
        for (reason, entries) in sorted.refused {
            sorted
                .done
                .extend(self.bury(backlog, &stream, &reason, entries).await);
        }
        backlog.retire(
            sorted
                .done
                .iter()
                .map(|(place, record)| (*place, &record.device)),
        );
        !sorted.done.is_empty()
    }

    /// What cannot be set aside stays on disk, to be tried again after a restart; it holds nothing up.
    async fn bury(
        &self,
        backlog: &Backlog,
        stream: &str,
        reason: &Reason,
        entries: Vec<Entry>,
    ) -> Vec<Entry> {
        let buried = backlog
            .bury(stream, reason, entries.iter().map(|(_, record)| record))
            .await;
        if buried.is_ok() {
            return entries;
        }
        entries
            .iter()
            .for_each(|(place, record)| backlog.leave(*place, &record.device));
        Vec::new()
    }
}

/// What became of a wave.
#[derive(Default)]
struct Sorted {
    done: Vec<Entry>,
    again: Vec<Entry>,
    refused: BTreeMap<Reason, Vec<Entry>>,
}

impl Sorted {
    fn add(&mut self, entry: Entry, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => self.done.push(entry),
            Outcome::Retryable(_) | Outcome::Unknown => self.again.push(entry),
            Outcome::Permanent(reason) | Outcome::Barred(reason) => {
                self.refused.entry(reason.clone()).or_default().push(entry);
            }
        }
    }
}

impl Ahead {
    /// Reads on where half of the window is empty, on a thread that may wait for the disk. `false`: the disk is to be
    /// left alone for a while.
    async fn read(&mut self, backlog: &Backlog) -> bool {
        if self.window.records() > WINDOW_RECORDS / 2 || self.window.bytes() > WINDOW_BYTES / 2 {
            return true;
        }
        let mut reader = self.reader.take().unwrap_or_else(|| backlog.reader());
        let read = spawn_blocking(move || {
            let read = read_frames(&mut reader);
            (reader, read)
        });
        let Ok((reader, (frames, failure))) = read.await else {
            // The reader is lost with what it knew: a new one begins with the oldest record.
            self.window = Window::default();
            return false;
        };
        self.reader = Some(reader);
        frames.into_iter().for_each(|frame| self.window.add(frame));
        if let Some(error) = &failure {
            tracing::warn!(%error, "the spool cannot be read: trying again");
        }
        failure.is_none()
    }
}

/// Half a window.
fn read_frames(reader: &mut Reader<RealDisk>) -> (Vec<Frame>, Option<ReadError>) {
    let (mut frames, mut records, mut bytes) = (Vec::new(), 0, 0);
    while records < WINDOW_RECORDS / 2 && bytes < WINDOW_BYTES / 2 {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                records += frame.records.len();
                bytes += frame
                    .records
                    .iter()
                    .map(|record| record.payload.len())
                    .sum::<usize>();
                frames.push(frame);
            }
            Ok(None) => break,
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

/// A half to the whole of it.
fn jittered(time: Duration) -> Duration {
    let random = f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0;
    time.mul_f64(0.5 + random / 2.0)
}
