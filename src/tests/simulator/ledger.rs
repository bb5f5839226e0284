//! Records, answers and arrivals: the judge's evidence, and the story.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;

use tokio::time::Instant;

/// The events so far in one life.
pub(crate) struct Ledger {
    began_at: Instant,
    pub(crate) facts: RefCell<Facts>,
}

#[derive(Default)]
pub(crate) struct Facts {
    pub attempts: Vec<Attempt>,
    pub story: Vec<String>,
    pub met: BTreeMap<String, u64>,
    /// Counts up with everything that has an order.
    clock: u64,
}

/// One request, and the process and worker that it went to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub device: usize,
    pub reading: u64,
    pub stream: usize,
    pub worker: usize,
    pub process: usize,
}

/// One request.
pub(crate) struct Attempt {
    pub to: Sent,
    pub sent: u64,
    pub sent_at: Instant,
    pub answer: Option<Answer>,
    pub arrivals: Vec<u64>,
    pub dead_letters: usize,
    /// Whether it lies on disk at the end of the life.
    pub is_on_disk: bool,
    /// Number of times that the sink refused it for what it is.
    pub refusals: usize,
    /// Number of times that the sink did not say whether it had it.
    pub unknowns: usize,
    /// Processes that ended with this on its way, or on disk.
    pub deaths: usize,
}

/// The answer that a device got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `None`: the connection ended without one.
    pub status: Option<u16>,
    pub told: u64,
    pub told_at: Instant,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            began_at: Instant::now(),
            facts: RefCell::default(),
        }
    }

    /// Adds a line to the story.
    pub(crate) fn tell(&self, what: impl Display) {
        let millis = self.began_at.elapsed().as_micros() as f64 / 1000.0;
        let line = format!("{millis:>12.3} {what}");
        self.facts.borrow_mut().story.push(line);
    }

    /// Counts a state that was met.
    pub(crate) fn met(&self, state: impl Into<String>) {
        let met = &mut self.facts.borrow_mut().met;
        *met.entry(state.into()).or_default() += 1;
    }

    pub(crate) fn sent(&self, to: Sent) -> usize {
        let mut facts = self.facts.borrow_mut();
        let sent = facts.tick();
        facts.attempts.push(Attempt {
            to,
            sent,
            sent_at: Instant::now(),
            answer: None,
            arrivals: Vec::new(),
            dead_letters: 0,
            is_on_disk: false,
            refusals: 0,
            unknowns: 0,
            deaths: 0,
        });
        let attempt = facts.attempts.len() - 1;
        drop(facts);
        let Sent {
            device,
            reading,
            stream,
            ..
        } = to;
        self.tell(format_args!(
            "device {device} sends reading {reading} to stream {stream} as #{attempt}"
        ));
        attempt
    }

    pub(crate) fn told(&self, attempt: usize, status: Option<u16>) {
        let mut facts = self.facts.borrow_mut();
        let answer = Answer {
            status,
            told: facts.tick(),
            told_at: Instant::now(),
        };
        let before = facts.attempts[attempt].answer.replace(answer);
        assert!(before.is_none(), "#{attempt} is answered once");
        drop(facts);
        match status {
            Some(status) => self.tell(format_args!("#{attempt} is answered {status}")),
            None => self.tell(format_args!("#{attempt} has no answer")),
        }
        self.met(format!("answer {status:?}"));
    }

    pub(crate) fn arrived(&self, attempt: usize) {
        let mut facts = self.facts.borrow_mut();
        let at = facts.tick();
        facts.attempts[attempt].arrivals.push(at);
        drop(facts);
        self.tell(format_args!("#{attempt} is in the stream"));
    }

    pub(crate) fn unknown(&self, attempt: usize) {
        self.facts.borrow_mut().attempts[attempt].unknowns += 1;
        self.tell(format_args!("#{attempt}: the sink does not say"));
    }

    pub(crate) fn refused(&self, attempt: usize) {
        self.facts.borrow_mut().attempts[attempt].refusals += 1;
        self.tell(format_args!("#{attempt} is refused for good"));
    }

    /// Returns the time in the ledger: whatever happens from now on has a larger number.
    pub(crate) fn clock(&self) -> u64 {
        self.facts.borrow().clock
    }

    pub(crate) fn dead_letter(&self, attempt: usize) {
        self.facts.borrow_mut().attempts[attempt].dead_letters += 1;
        self.tell(format_args!("#{attempt} is a dead letter"));
    }

    pub(crate) fn on_disk(&self, attempt: usize) {
        self.facts.borrow_mut().attempts[attempt].is_on_disk = true;
        self.tell(format_args!("#{attempt} is on disk"));
    }

    /// Notes that a process has ended with all that was on its way.
    pub(crate) fn died(&self) {
        for attempt in &mut self.facts.borrow_mut().attempts {
            attempt.deaths += 1;
        }
    }
}

impl Facts {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
