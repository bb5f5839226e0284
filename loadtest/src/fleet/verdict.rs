//! Whether the generator was fit: a figure of a generator that was itself too slow says nothing
//! about the server.

use super::observer::Usage;
use crate::report::Verdict;
use crate::statistics::Tally;

/// The most that idle devices may send late at p99, in microseconds: timers are exact to 1 ms.
const LATENESS_P99_MAX_US: u64 = 10_000;

/// Above this share of a core, a thread has queues of its own.
const THREAD_CORES_MAX: f64 = 0.9;

/// Below this share of idle cores, server, generator and others take the cores from each other.
const IDLE_MIN: f64 = 0.03;

/// Judges a run; `faults` are what went wrong in the generator.
pub(crate) fn of(total: &Tally, setup: &Tally, usage: &Usage, faults: &[String]) -> Verdict {
    let mut reasons = faults.to_vec();
    reasons.extend(weaknesses(total, usage));
    Verdict {
        fit: reasons.is_empty(),
        reasons,
        notes: notes(total, setup, usage),
    }
}

/// Why the generator was not fit.
fn weaknesses(total: &Tally, usage: &Usage) -> Vec<String> {
    let mut weaknesses = Vec::new();
    if total.ended() == 0 {
        weaknesses.push("no request ended".into());
    }
    let lateness_us = total.lateness.quantile(0.99);
    if lateness_us > LATENESS_P99_MAX_US {
        let late_ms = lateness_us as f64 / 1e3;
        weaknesses.push(format!("idle devices sent {late_ms:.1} ms late (p99): the generator was too slow or had no core"));
    }
    if usage.busiest_thread_cores > THREAD_CORES_MAX {
        let percent = usage.busiest_thread_cores * 100.0;
        weaknesses.push(format!(
            "a thread of the generator used {percent:.0} % of a core: give it more threads"
        ));
    }
    weaknesses
}

/// Gathers notes for the reader that do not spoil the figures.
fn notes(total: &Tally, setup: &Tally, usage: &Usage) -> Vec<String> {
    let mut notes = Vec::new();
    if usage.machine_idle < IDLE_MIN && usage.seconds > 0.0 {
        notes.push("no core was idle: what runs on this machine held each other up".into());
    }
    if setup.handshakes_failed > 0 {
        let failed = setup.handshakes_failed;
        notes.push(format!("{failed} connections failed before the run"));
    }
    if total.missed > 0 {
        let missed = total.missed;
        notes.push(format!("{missed} readings were not sent by the end"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::Status;

    fn total(lateness_ms: u64) -> Tally {
        let mut total = Tally::default();
        total.statuses.insert(Status::SAFE, 1);
        total.lateness.record(Duration::from_millis(lateness_ms));
        total
    }

    fn reasons(lateness_ms: u64, usage: Usage, faults: &[String]) -> usize {
        of(&total(lateness_ms), &Tally::default(), &usage, faults)
            .reasons
            .len()
    }

    #[test]
    fn each_weakness_of_the_generator_is_a_reason() {
        let good = Usage {
            busiest_thread_cores: 0.5,
            machine_idle: 0.5,
            seconds: 10.0,
            ..Usage::default()
        };
        assert_eq!(reasons(1, good, &[]), 0);
        assert_eq!(reasons(11, good, &[]), 1);
        assert_eq!(
            reasons(
                1,
                Usage {
                    busiest_thread_cores: 0.95,
                    ..good
                },
                &[]
            ),
            1
        );
        assert_eq!(reasons(1, good, &["a worker ended".into()]), 1);
        assert_eq!(
            of(&Tally::default(), &Tally::default(), &good, &[])
                .reasons
                .len(),
            1
        );
    }

    #[test]
    fn a_slow_server_is_no_weakness_of_the_generator() {
        let mut slow = total(1);
        slow.missed = 1000;
        slow.latency.record(Duration::from_secs(30));
        let verdict = of(
            &slow,
            &Tally::default(),
            &Usage {
                machine_idle: 0.5,
                ..Usage::default()
            },
            &[],
        );
        assert_eq!((verdict.reasons.len(), verdict.notes.len()), (0, 1));
    }
}
