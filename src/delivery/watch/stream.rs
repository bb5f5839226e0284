//! State of one stream: its last verification, and the outcomes of its records.
//!
//! Both count. A stream that answers well and whose records are all refused is no good, and a
//! record alone can tell that it is good again. The watch owns one of these for each stream and
//! passes the time in; nothing here waits.
//!
//! Limits: a refusal that no record has confirmed for [`REFUSAL_MEMORY`] is forgotten, since
//! without a request there is no record to put it to the test.

use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Outcome, Outcomes, Reason};
use crate::sink::SinkError;

/// The least time between two questions, and how long a stream may owe an answer until it is asked.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Time in which none of a stream's records arrives before it counts as refusing them. Longer than
/// a leader's election.
const FAILING_TIME: Duration = Duration::from_secs(10);

/// Time for which a refusal is believed without a record that confirms it.
const REFUSAL_MEMORY: Duration = Duration::from_secs(30);

const _: () = assert!(PROBE_INTERVAL.as_millis() < FAILING_TIME.as_millis());
const _: () = assert!(FAILING_TIME.as_millis() < REFUSAL_MEMORY.as_millis());

/// The stream's answer when the sink was asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Unasked,
    Up,
    /// It answers, but cannot take everything as configured.
    Unfit(String),
    Away(String),
}

/// The reason why a stream takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble<'a> {
    Unasked,
    Unfit(&'a str),
    Away(&'a str),
    /// It answers well, and refuses records.
    Refusing(&'a str),
}

impl Trouble<'_> {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Unasked => "the sink has not been asked yet".into(),
            Self::Unfit(reason) | Self::Away(reason) => reason.into(),
            Self::Refusing(reason) => format!("records are refused: {reason}"),
        }
    }
}

/// The outcomes of a batch, as they bear on its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream works: it has taken a record, or has judged one by itself.
    Taken,
    Failed(Reason),
    /// The stream is closed to every record.
    Barred(Reason),
}

impl End {
    pub(crate) fn of(outcomes: &Outcomes, records: usize) -> Self {
        debug_assert!(records > 0, "a batch has a record");
        let mut end = Self::Failed("no answer".into());
        let outcomes_seen = match outcomes {
            Outcomes::All(_) => records.min(1),
            Outcomes::Each(_) => records,
        };
        for index in 0..outcomes_seen {
            match outcomes.get(index) {
                Outcome::Delivered | Outcome::Permanent(_) => return Self::Taken,
                Outcome::Barred(reason) => end = Self::Barred(reason.clone()),
                Outcome::Retryable(reason) if !matches!(end, Self::Barred(_)) => {
                    end = Self::Failed(reason.clone());
                }
                Outcome::Retryable(_) | Outcome::Unknown => {}
            }
        }
        end
    }
}

/// State of one stream.
#[derive(Debug)]
pub(crate) struct Stream {
    answer: Answer,
    /// Time of the latest question that was answered.
    news_of: Option<Instant>,
    asked_at: Option<Instant>,
    is_in_doubt: bool,
    /// Batches that the sink has and has not answered.
    in_flight: usize,
    /// The last time that a batch was taken, or that nothing was in flight.
    progress_at: Instant,
    taken_at: Option<Instant>,
    /// The first of the failures since a batch was taken.
    failing_since: Option<Instant>,
    refusal: Option<Refusal>,
    has_trial: bool,
}

/// The stream takes no records although it may answer well.
#[derive(Debug)]
struct Refusal {
    reason: Reason,
    confirmed_at: Instant,
}

impl Stream {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            answer: Answer::Unasked,
            news_of: None,
            asked_at: None,
            is_in_doubt: false,
            in_flight: 0,
            progress_at: now,
            taken_at: None,
            failing_since: None,
            refusal: None,
            has_trial: false,
        }
    }

    pub(crate) fn batch_started(&mut self, now: Instant) {
        if self.in_flight == 0 {
            self.progress_at = now;
        }
        self.in_flight += 1;
    }

    /// Batches that the sink has and has not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Notes that a batch is in flight no more, or takes longer than is worth waiting for.
    pub(crate) fn batch_left(&mut self) {
        debug_assert!(self.in_flight > 0, "a batch leaves once");
        self.in_flight -= 1;
    }

    /// Records have arrived of a batch that is in flight still.
    pub(crate) fn progressed(&mut self, now: Instant) {
        self.taken(now);
    }

    /// Has the stream asked soon.
    pub(crate) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Whether it has taken a record since then.
    pub(crate) fn has_taken_since(&self, since: Instant) -> bool {
        self.taken_at.is_some_and(|taken_at| taken_at > since)
    }

    pub(crate) fn batch_finished(&mut self, end: End, now: Instant) {
        match end {
            End::Taken => self.taken(now),
            End::Failed(reason) => {
                let since = *self.failing_since.get_or_insert(now);
                self.failed(reason, now - since >= FAILING_TIME, now);
            }
            End::Barred(reason) => {
                self.failing_since.get_or_insert(now);
                self.failed(reason, self.is_quiet(now), now);
            }
        }
    }

    fn taken(&mut self, now: Instant) {
        self.progress_at = now;
        self.taken_at = Some(now);
        self.forget_refusal();
    }

    /// Notes that a batch failed. It counts as a refusal if it is one by itself, or if the stream
    /// is refusing already.
    fn failed(&mut self, reason: Reason, is_refusal: bool, now: Instant) {
        self.is_in_doubt |= self.is_quiet(now);
        if is_refusal || self.refusal.is_some() {
            self.refusal = Some(Refusal {
                reason,
                confirmed_at: now,
            });
        }
    }

    /// Whether it has taken nothing of late: while other records arrive, one that does not says
    /// little of the stream.
    fn is_quiet(&self, now: Instant) -> bool {
        self.taken_at
            .is_none_or(|taken_at| now - taken_at >= PROBE_INTERVAL)
    }

    fn forget_refusal(&mut self) {
        self.failing_since = None;
        self.refusal = None;
        self.has_trial = false;
    }

    /// Whether the answer to a question of this time is news: none is known to a later one. Answers
    /// overtake each other where one waits for its time-out.
    pub(crate) fn is_news(&mut self, of: Instant) -> bool {
        let is_news = self.news_of.is_none_or(|latest| latest <= of);
        if is_news {
            self.news_of = Some(of);
        }
        is_news
    }

    /// Notes the sink's answer. A stream that is back has its records' failures forgotten: they
    /// came of its absence.
    pub(crate) fn answered(&mut self, answer: &Result<(), SinkError>, now: Instant) {
        let answer = match answer {
            Ok(()) => Answer::Up,
            Err(SinkError::Misconfigured(reason) | SinkError::Closed(reason)) => {
                Answer::Unfit(reason.clone())
            }
            Err(SinkError::Away(reason)) => Answer::Away(reason.clone()),
        };
        if answer == Answer::Up && self.answer != Answer::Up {
            self.forget_refusal();
        }
        self.answer = answer;
        self.asked_at = Some(now);
        self.is_in_doubt = false;
    }

    /// Whether it is time to ask it. `idle_interval` is how often one is asked that nothing speaks
    /// against, and for which no record has spoken since.
    pub(crate) fn is_due(&self, idle_interval: Option<Duration>, now: Instant) -> bool {
        let Some(asked_at) = self.asked_at else {
            return true;
        };
        if now - asked_at < PROBE_INTERVAL {
            return false;
        }
        let is_idle = |interval| {
            now - asked_at >= interval && self.taken_at.is_none_or(|at| now - at >= interval)
        };
        self.answer != Answer::Up
            || self.is_in_doubt
            || self.is_silent(now)
            || idle_interval.is_some_and(is_idle)
    }

    /// Whether it has owed an answer for too long.
    fn is_silent(&self, now: Instant) -> bool {
        self.owes_for(now) >= PROBE_INTERVAL
    }

    /// Returns the time for which it has owed an answer without giving any.
    pub(crate) fn owes_for(&self, now: Instant) -> Duration {
        match self.in_flight {
            0 => Duration::ZERO,
            _ => now - self.progress_at,
        }
    }

    /// Forgets a refusal that is old, and offers a trial while there is one; `true` where a trial
    /// is on offer.
    pub(crate) fn offer_trial(&mut self, now: Instant) -> bool {
        let is_old = |refusal: &Refusal| now - refusal.confirmed_at >= REFUSAL_MEMORY;
        if self.in_flight == 0 && self.refusal.as_ref().is_some_and(is_old) {
            self.forget_refusal();
        }
        debug_assert!(self.refusal.is_none() || self.failing_since.is_some());
        self.has_trial = self.refusal.is_some() && self.answer == Answer::Up;
        self.has_trial
    }

    /// Whether a batch may go to the sink; if a trial is on offer, the first caller gets it.
    pub(crate) fn takes_batch(&mut self) -> bool {
        self.trouble().is_none() || std::mem::take(&mut self.has_trial)
    }

    /// Whether it answers, so that it is worth a try to deliver its backlog.
    pub(crate) fn answers(&self) -> bool {
        matches!(self.answer, Answer::Up | Answer::Unfit(_))
    }

    /// Returns the reason why its sink takes nothing.
    pub(crate) fn trouble(&self) -> Option<Trouble<'_>> {
        match (&self.answer, &self.refusal) {
            (Answer::Unasked, _) => Some(Trouble::Unasked),
            (Answer::Unfit(reason), _) => Some(Trouble::Unfit(reason)),
            (Answer::Away(reason), _) => Some(Trouble::Away(reason)),
            (Answer::Up, Some(refusal)) => Some(Trouble::Refusing(&refusal.reason)),
            (Answer::Up, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn up(now: Instant) -> Stream {
        let mut stream = Stream::new(now);
        assert_eq!(stream.trouble(), Some(Trouble::Unasked));
        assert!(stream.is_due(None, now));
        stream.answered(&Ok(()), now);
        assert_eq!(stream.trouble(), None);
        stream
    }

    fn batch(stream: &mut Stream, end: End, now: Instant) {
        stream.batch_started(now);
        stream.batch_left();
        stream.batch_finished(end, now);
    }

    fn barred() -> End {
        End::Barred("closed".into())
    }

    #[test]
    fn the_answer_to_an_old_question_is_no_news() {
        let now = Instant::now();
        let mut stream = Stream::new(now);
        assert!(stream.is_news(now + SECOND));
        assert!(!stream.is_news(now), "it was asked before");
        assert!(stream.is_news(now + SECOND));
        assert!(stream.is_news(now + 2 * SECOND));
    }

    #[test]
    fn a_good_answer_does_not_overrule_records_that_are_refused() {
        let now = Instant::now();
        let mut stream = up(now);
        batch(&mut stream, barred(), now);
        assert_eq!(stream.trouble(), Some(Trouble::Refusing("closed")));
        stream.answered(&Ok(()), now + SECOND);
        assert_eq!(stream.trouble(), Some(Trouble::Refusing("closed")));
        assert!(!stream.takes_batch());
        assert!(stream.offer_trial(now + SECOND));
        assert_eq!([(); 2].map(|()| stream.takes_batch()), [true, false]);
        batch(&mut stream, End::Taken, now + SECOND);
        assert_eq!(stream.trouble(), None);
    }

    /// A gateway that is not ready gets no requests, so no record can show that the stream is open
    /// again.
    #[test]
    fn a_refusal_that_no_record_confirms_is_forgotten() {
        let now = Instant::now();
        let mut stream = up(now);
        batch(&mut stream, barred(), now);
        batch(&mut stream, barred(), now + 20 * SECOND);
        assert!(stream.offer_trial(now + 49 * SECOND));
        assert!(!stream.offer_trial(now + 50 * SECOND));
        assert_eq!(stream.trouble(), None);
    }

    #[test]
    fn failures_that_nothing_interrupts_are_a_refusal_in_the_end() {
        let now = Instant::now();
        let mut stream = up(now);
        let failed = || End::Failed("timed out".into());
        batch(&mut stream, failed(), now);
        batch(&mut stream, failed(), now + 9 * SECOND);
        assert_eq!(stream.trouble(), None);
        batch(&mut stream, failed(), now + 10 * SECOND);
        assert_eq!(stream.trouble(), Some(Trouble::Refusing("timed out")));
        stream.answered(&Err(SinkError::Away("gone".into())), now + 11 * SECOND);
        assert_eq!(stream.trouble(), Some(Trouble::Away("gone")));
        stream.answered(&Ok(()), now + 12 * SECOND);
        assert_eq!(stream.trouble(), None, "one that is back is believed");
    }

    /// A shard that is full, or a partition without a leader, is not the stream.
    #[test]
    fn failures_beside_records_that_arrive_are_not_the_streams() {
        let now = Instant::now();
        let mut stream = up(now);
        for second in 0..60 {
            let now = now + second * SECOND;
            batch(&mut stream, End::Taken, now);
            batch(&mut stream, End::Failed("full".into()), now);
            batch(&mut stream, barred(), now);
            assert_eq!(stream.trouble(), None);
            assert!(!stream.is_due(None, now + SECOND));
        }
    }

    #[test]
    fn a_stream_is_asked_in_doubt_in_silence_and_at_leisure_where_it_may_be() {
        let now = Instant::now();
        let (hour, idle) = (3600 * SECOND, Some(5 * SECOND));
        let mut stream = up(now);
        assert!(
            !stream.is_due(None, now + hour),
            "nothing speaks against it"
        );
        assert!(!stream.is_due(idle, now + 4 * SECOND));
        assert!(stream.is_due(idle, now + 5 * SECOND));
        batch(&mut stream, End::Taken, now + 4 * SECOND);
        assert!(!stream.is_due(idle, now + 8 * SECOND), "a record is proof");
        batch(&mut stream, End::Failed("x".into()), now + 9 * SECOND);
        assert!(stream.is_due(None, now + 9 * SECOND));
        stream.answered(&Ok(()), now + 9 * SECOND);
        stream.batch_started(now + 20 * SECOND);
        assert!(!stream.is_due(None, now + 20 * SECOND));
        assert!(stream.is_due(None, now + 21 * SECOND));
        stream.answered(&Err(SinkError::Away("gone".into())), now + 21 * SECOND);
        assert!(!stream.is_due(None, now + 21 * SECOND), "not at once again");
        assert!(stream.is_due(None, now + 22 * SECOND));
    }

    #[test]
    fn a_batch_ends_as_its_best_record() {
        let each =
            |outcomes: &[Outcome]| End::of(&Outcomes::Each(outcomes.to_vec()), outcomes.len());
        let (closed, late) = (
            Outcome::Barred("closed".into()),
            Outcome::Retryable("late".into()),
        );
        assert_eq!(End::of(&Outcomes::DELIVERED, 3), End::Taken);
        assert_eq!(each(&[closed.clone(), Outcome::Delivered]), End::Taken);
        assert_eq!(each(&[Outcome::Permanent("large".into())]), End::Taken);
        assert_eq!(each(&[closed, late.clone()]), barred());
        assert_eq!(each(&[late, Outcome::Unknown]), End::Failed("late".into()));
        assert_eq!(each(&[Outcome::Unknown]), End::Failed("no answer".into()));
    }
}
