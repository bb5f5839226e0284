//! The commit thread: takes the drafts that have gathered, makes them safe in one go, answers, and
//! tends the logs in between.
//!
//! It is a thin shell around the engines and the only place where the spool reads the clock. It
//! ends once the queue is closed and empty, leaves the folders in order, and drops the disk, which
//! frees the lock.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Engine, Refused};
use super::queue::{Bounds, NotTaken, Queue, Taken};
use crate::spool::disk::Disk;
use crate::spool::format::body::Draft;

/// Batches that wait for the disk at most.
const QUEUE_ITEMS_MAX: usize = 16_384;

/// Most bytes that the queue holds, whatever the memory budget: more would be answered too late.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes that the queue holds in a small memory budget; a single batch is taken however large it
/// is.
const QUEUE_BYTES_MIN: usize = 1 << 20;

/// The part of the memory budget that may wait for the disk.
const QUEUE_PART: usize = 8;

/// Returns the bytes that may wait for the disk, given the memory of all records that are not safe.
pub(crate) fn queue_bytes_within(memory_bytes_max: usize) -> usize {
    (memory_bytes_max / QUEUE_PART).clamp(QUEUE_BYTES_MIN, QUEUE_BYTES_MAX)
}

/// Bytes that are taken for one round: a sync of each log.
const ROUND_BYTES: usize = 8 << 20;

const _: () = assert!(QUEUE_BYTES_MIN <= ROUND_BYTES && ROUND_BYTES <= QUEUE_BYTES_MAX);

/// The call that is told the places of a draft's records, in their order, once they are safe;
/// called once, on the commit thread or, when there is no way to it, where the draft was handed
/// over.
pub(crate) type Answer = Box<dyn FnOnce(Result<Range<u64>, Refused>) + Send>;

/// A draft on its way to the log with this number.
struct Job {
    log: usize,
    draft: Draft,
    answer: Answer,
}

/// The way to the commit thread.
pub(crate) struct Commits {
    queue: Queue<Job>,
    /// Wakes a test's task that stands in for the thread.
    #[cfg(test)]
    changed: tokio::sync::Notify,
}

impl Commits {
    /// Makes a queue on which so many bytes may wait.
    pub(crate) fn new(queue_bytes_max: usize) -> Self {
        let bounds = Bounds {
            items: QUEUE_ITEMS_MAX,
            bytes: queue_bytes_max,
        };
        Self {
            queue: Queue::new(bounds),
            #[cfg(test)]
            changed: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn push(&self, log: usize, draft: Draft, answer: Answer) {
        let bytes = draft.bytes();
        match self.queue.push(Job { log, draft, answer }, bytes) {
            Ok(()) => self.has_changed(),
            Err(NotTaken::Full(job)) => (job.answer)(Err(Refused::Busy)),
            Err(NotTaken::Closed(job)) => (job.answer)(Err(Refused::Closed)),
        }
    }

    pub(crate) fn nudge(&self) {
        self.queue.nudge();
        self.has_changed();
    }

    pub(crate) fn close(&self) {
        self.queue.close();
        self.has_changed();
    }

    fn has_changed(&self) {
        #[cfg(test)]
        self.changed.notify_one();
    }

    fn take(&self, timeout: Option<Duration>) -> Taken<Job> {
        self.queue.take(ROUND_BYTES, timeout)
    }
}

/// Closes the queue if the thread panics: queued drafts are dropped, later ones refused.
struct CloseOnPanic(Arc<Commits>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        self.0.close();
        while !self.0.take(None).closed {}
    }
}

/// The engines of all logs, and the queue that they serve.
pub(crate) struct Committer<D: Disk> {
    commits: CloseOnPanic,
    engines: Vec<Engine<D>>,
}

impl<D: Disk> Committer<D> {
    pub(crate) fn new(commits: Arc<Commits>, engines: Vec<Engine<D>>) -> Self {
        Self {
            commits: CloseOnPanic(commits),
            engines,
        }
    }

    /// Runs the commit thread.
    pub(crate) fn run(mut self) {
        loop {
            self.tend(Instant::now());
            let timeout = self.time_to_tend(Instant::now());
            let taken = self.commits.0.take(timeout);
            self.commit(taken.items, Instant::now());
            if taken.closed {
                break;
            }
        }
        self.close(Instant::now());
    }

    fn tend(&mut self, now: Instant) {
        for engine in &mut self.engines {
            engine.tend(now);
        }
    }

    /// Returns the time until a log has to be tended if no draft comes before.
    fn time_to_tend(&self, now: Instant) -> Option<Duration> {
        let due = self.engines.iter().filter_map(Engine::due).min()?;
        Some(due.saturating_duration_since(now))
    }

    /// Commits the jobs of each log together, in their order.
    fn commit(&mut self, jobs: Vec<Job>, now: Instant) {
        let mut jobs_of_logs: Vec<Vec<Job>> = self.engines.iter().map(|_| Vec::new()).collect();
        for job in jobs {
            jobs_of_logs[job.log].push(job);
        }
        for (engine, jobs) in self.engines.iter_mut().zip(jobs_of_logs) {
            commit(engine, jobs, now);
        }
    }

    fn close(self, now: Instant) {
        for engine in self.engines {
            engine.close(now);
        }
    }
}

#[cfg(test)]
impl<D: Disk> Committer<D> {
    /// Does the thread's work as a task, on the clock that timers go by. `disk_turn` is awaited
    /// before each commit: the time that the disk takes.
    pub(crate) async fn run_as_task(mut self, disk_turn: impl AsyncFn()) {
        let now = || tokio::time::Instant::now().into_std();
        loop {
            self.tend(now());
            let commits = self.commits.0.clone();
            let taken = commits.take(Some(Duration::ZERO));
            if taken.items.is_empty() && !taken.closed {
                let timeout = self.time_to_tend(now()).unwrap_or(Duration::MAX);
                // Whatever wakes it, it looks again.
                let _ = tokio::time::timeout(timeout, commits.changed.notified()).await;
                continue;
            }
            disk_turn().await;
            self.commit(taken.items, now());
            if taken.closed {
                break;
            }
        }
        self.close(now());
    }
}

fn commit<D: Disk>(engine: &mut Engine<D>, jobs: Vec<Job>, now: Instant) {
    let drafts: Vec<&Draft> = jobs.iter().map(|job| &job.draft).collect();
    let answers = engine.commit(&drafts, now);
    debug_assert_eq!(answers.len(), jobs.len(), "each draft has its answer");
    for (job, answer) in jobs.into_iter().zip(answers) {
        (job.answer)(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_disk_is_a_part_of_the_memory_budget() {
        let queues = [4 << 20, 64 << 20, 256 << 20, 64 << 30].map(queue_bytes_within);
        assert_eq!(queues, [1 << 20, 8 << 20, 32 << 20, 64 << 20]);
    }
}
