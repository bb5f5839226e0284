//! The faults that are on now, by the plan and the time.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::{Fault, What};

/// The faults of a life.
pub(crate) struct Faults {
    began_at: Instant,
    planned: Vec<Fault>,
}

impl Fault {
    fn is_on(&self, now: Duration) -> bool {
        self.at <= now && now < self.at + self.lasts
    }
}

impl Faults {
    pub(crate) fn new(planned: Vec<Fault>) -> Self {
        let began_at = Instant::now();
        Self { began_at, planned }
    }

    fn find<T>(&self, pick: impl Fn(What) -> Option<T>) -> Option<T> {
        let now = self.began_at.elapsed();
        let on = self.planned.iter().filter(|fault| fault.is_on(now));
        on.filter_map(|fault| pick(fault.what)).next()
    }

    pub(crate) fn has(&self, what: What) -> bool {
        self.find(|on| (on == what).then_some(())).is_some()
    }

    /// Whether something of this kind was planned at all.
    pub(crate) fn were_planned(&self, is_kind: impl Fn(What) -> bool) -> bool {
        self.planned.iter().any(|fault| is_kind(fault.what))
    }

    /// Whether a request reaches the partition and is answered.
    pub(crate) fn reaches(&self, partition: u64) -> bool {
        !self.has(What::Away) && !self.has(What::Leaderless(partition))
    }

    /// Writes the devices file as it is now.
    pub(crate) fn devices_file(&self) -> String {
        let mut file = String::new();
        let now = self.began_at.elapsed();
        let on = self.planned.iter().filter(|fault| fault.is_on(now));
        for fault in on {
            match fault.what {
                What::Denied(number) if !file.contains(&format!("-{number}\n")) => {
                    file.push_str(&format!("deny device-{number}\n"));
                }
                What::HeldTo(rate) => {
                    let burst = 2 * rate;
                    file.push_str(&format!("allow device-* rate={rate}/{burst}\n"));
                }
                _ => {}
            }
        }
        file
    }

    /// Returns the rates that the devices file holds devices to, each with its time, which it has to
    /// itself.
    pub(crate) fn limits(&self) -> Vec<(u64, Instant, Instant)> {
        let limits = self.planned.iter().filter_map(|fault| match fault.what {
            What::HeldTo(rate) => Some((rate, fault.at, fault.at + fault.lasts)),
            _ => None,
        });
        let limits: Vec<_> = limits.collect();
        let is_alone = |(_, from, to): &&(u64, Duration, Duration)| {
            let overlapping = limits
                .iter()
                .filter(|(_, other, end)| other <= to && from <= end);
            overlapping.count() == 1
        };
        let alone = limits.iter().filter(is_alone);
        let at = |(rate, from, to): &(u64, Duration, Duration)| {
            (*rate, self.began_at + *from, self.began_at + *to)
        };
        alone.map(at).collect()
    }

    /// Whether this fault was on then.
    pub(crate) fn was_on(&self, at: Instant, what: What) -> bool {
        let at = at - self.began_at;
        let mut planned = self.planned.iter();
        planned.any(|fault| fault.what == what && fault.is_on(at))
    }

    /// Whether such a fault was on at some time between these.
    pub(crate) fn were_on(
        &self,
        from: Instant,
        to: Instant,
        is_kind: impl Fn(What) -> bool,
    ) -> bool {
        let (from, to) = (from - self.began_at, to - self.began_at);
        let overlaps = |fault: &Fault| fault.at <= to && from <= fault.at + fault.lasts;
        let planned = self.planned.iter();
        planned
            .filter(|fault| overlaps(fault))
            .any(|fault| is_kind(fault.what))
    }

    /// Returns the number of bits that have flipped on disk.
    pub(crate) fn bits_flipped(&self) -> u64 {
        let now = self.began_at.elapsed();
        let begun = self.planned.iter().filter(|fault| fault.at <= now);
        let bits = begun.map(|fault| match fault.what {
            What::BitFlips(bits) => bits,
            _ => 0,
        });
        bits.sum()
    }

    /// Whether credentials that were found then have expired: all have that were found before the end
    /// of such a fault, as soon as it has begun.
    pub(crate) fn has_expired(&self, found_at: Instant) -> bool {
        let (now, found) = (self.began_at.elapsed(), found_at - self.began_at);
        let expires = |fault: &Fault| {
            fault.what == What::Expired && fault.at <= now && found < fault.at + fault.lasts
        };
        self.planned.iter().any(expires)
    }

    /// Returns the number of times that streams have been resharded.
    pub(crate) fn reshards(&self) -> usize {
        let now = self.began_at.elapsed();
        let reshards = self.planned.iter();
        let reshards = reshards.filter(|fault| fault.what == What::Resharded);
        let changes = reshards.flat_map(|fault| [fault.at, fault.at + fault.lasts]);
        changes.filter(|at| *at <= now).count()
    }

    pub(crate) fn latency(&self) -> Duration {
        let slow = self.find(|on| match on {
            What::Slow(latency) => Some(latency),
            _ => None,
        });
        slow.unwrap_or(Duration::from_millis(5))
    }

    pub(crate) fn throttled_percent(&self) -> u64 {
        let percent = self.find(|on| match on {
            What::Throttled(percent) => Some(percent),
            _ => None,
        });
        percent.unwrap_or(0)
    }

    pub(crate) fn lost_percent(&self) -> u64 {
        let percent = self.find(|on| match on {
            What::LosesAnswers(percent) => Some(percent),
            _ => None,
        });
        percent.unwrap_or(0)
    }

    /// Writes and reads of a hundred that fail.
    pub(crate) fn disk_percents(&self) -> (u64, u64) {
        let percents = self.find(|on| match on {
            What::DiskFails(writes, reads) => Some((writes, reads)),
            _ => None,
        });
        percents.unwrap_or_default()
    }

    /// Returns the names of the faults that are on.
    pub(crate) fn names(&self) -> Vec<String> {
        let now = self.began_at.elapsed();
        let on = self.planned.iter().filter(|fault| fault.is_on(now));
        on.map(|fault| name(fault.what)).collect()
    }

    pub(crate) fn disk_turn_max(&self) -> Duration {
        let turn = self.find(|on| match on {
            What::DiskSlow(turn) => Some(turn),
            _ => None,
        });
        turn.unwrap_or(Duration::from_millis(4))
    }

    pub(crate) fn clock_ahead_millis(&self) -> u64 {
        let ahead = self.find(|on| match on {
            What::ClockStep(millis) => Some(millis),
            _ => None,
        });
        ahead.unwrap_or(0)
    }

    /// Returns the time at which a fault next begins or ends.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        let now = self.began_at.elapsed();
        let planned = self.planned.iter();
        let changes = planned.flat_map(|fault| [fault.at, fault.at + fault.lasts]);
        let next = changes.filter(|at| *at > now).min()?;
        Some(self.began_at + next)
    }
}

/// Returns the name of a fault, without its amount.
fn name(what: What) -> String {
    let text = format!("{what:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}
