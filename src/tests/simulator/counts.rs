//! Every metric that counts records, held against the ledger, for a gateway at rest.

use super::gateway::Gateway;
use super::ledger::Facts;
use super::world::World;

/// Gives the metrics that differ from the events since the gateway started.
pub(crate) fn miscounted(world: &World, gateway: &Gateway) -> Vec<String> {
    let told = Told(gateway.metrics.render());
    let happened = Happened::since(gateway.since, world.process(), &world.ledger.facts.borrow());
    let mut wrong = outcomes(&told, gateway);
    wrong.extend(delivered(&told, &happened, world));
    wrong.extend(batched(&told, &happened));
    if !world.is_stuck.get() {
        wrong.extend(at_rest(&told, gateway));
    }
    wrong
}

/// The metrics as a scrape has them.
pub(crate) struct Told(pub String);

impl Told {
    /// Sums up a metric's series that have this label.
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let is_of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        };
        let lines = self.0.lines().filter(is_of_name);
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }
}

/// The events of one process.
struct Happened {
    /// Arrivals of records in the streams.
    arrivals: u64,
    /// Readings that were sent to it, and those that it answered 204.
    sent: u64,
    accepted: u64,
}

impl Happened {
    fn since(clock: u64, process: usize, facts: &Facts) -> Self {
        let arrivals = facts.attempts.iter().flat_map(|attempt| &attempt.arrivals);
        let own = facts.attempts.iter();
        let own = own.filter(|attempt| attempt.to.process == process);
        let accepted = own.clone().filter(|attempt| attempt.status() == Some(204));
        Self {
            arrivals: arrivals.filter(|at| **at > clock).count() as u64,
            sent: own.count() as u64,
            accepted: accepted.count() as u64,
        }
    }
}

/// Compares the outcomes that a simulated sink has given.
fn outcomes(told: &Told, gateway: &Gateway) -> Vec<String> {
    let mut wrong = Vec::new();
    for (outcome, given) in &*gateway.given.borrow() {
        let label = format!("outcome=\"{outcome}\"");
        let counted = told.sum("forebay_sink_records_total", &label);
        if counted != *given {
            wrong.push(format!("metrics: {counted} {outcome}, of {given}"));
        }
    }
    wrong
}

/// Compares delivered records with arrivals: each has arrived, and if nothing fails each arrival is
/// counted.
fn delivered(told: &Told, happened: &Happened, world: &World) -> Option<String> {
    let delivered = told.sum("forebay_sink_records_total", "outcome=\"delivered\"");
    let arrivals = happened.arrivals;
    let has_failed = !world.plan.faults.is_empty() || !world.plan.ends.is_empty();
    let is_wrong = delivered > arrivals || (!has_failed && delivered < arrivals);
    is_wrong.then(|| format!("metrics: {delivered} delivered, of {arrivals} in the streams"))
}

/// Compares batched records with requests: each record that was taken went into a batch, and none
/// that was not sent.
fn batched(told: &Told, happened: &Happened) -> Option<String> {
    let batched = told.sum("forebay_batcher_batch_records_sum", "");
    let Happened { sent, accepted, .. } = *happened;
    let is_right = (accepted..=sent).contains(&batched);
    (!is_right).then(|| format!("metrics: {batched} in batches, {accepted} taken of {sent}"))
}

/// Compares the gauges with what lies on disk, and with nothing in flight.
fn at_rest(told: &Told, gateway: &Gateway) -> Vec<String> {
    let records = |at: usize| gateway.logs.as_ref().map_or(0, |logs| logs[at].records());
    let gauges = [
        ("forebay_spool_records", records(0)),
        ("forebay_spool_dead_letter_records", records(1)),
        ("forebay_sink_in_flight_batches", 0),
        ("forebay_batcher_queued_batches", 0),
    ];
    let mut wrong = Vec::new();
    for (gauge, is) in gauges {
        let says = told.sum(gauge, "");
        if says != is {
            wrong.push(format!(
                "metrics: {gauge} says {says} at rest, there are {is}"
            ));
        }
    }
    wrong
}
