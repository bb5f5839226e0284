//! The audit of fleet events: what a gateway has told of each device's connections, compared with
//! what the device remembers ([`visits`](crate::visits)).
//!
//! It is asked when all connections have ended: each was told to begin and to end, usage adds up to
//! what the ends of connections say, and both to what the device was answered. What the device
//! cannot know may be told or not. Events of other devices are counted and left alone; the stream
//! holds one run. Memory: some 100 bytes an event, for its id.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::audit::faults::Faults;
use crate::audit::{Auditor, Found, read_sink, write_report};
use crate::cli;
use crate::visits::{self, Requests, Visits};

/// The kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is no event, or has no device where it should have one.
    Strange,
    /// It is there more than once.
    Repeated,
    /// A connection was told to begin and not to end, or to end before it began.
    Unpaired,
    /// The device has had more connections, or fewer.
    Connections,
    /// Usage is not what the ends of the device's connections say.
    Usage,
    /// Events tell other numbers of accepted or refused requests than the device was answered.
    Requests,
}

const FAULT_NAMES: [&str; 6] = [
    "strange",
    "repeated",
    "unpaired",
    "connections",
    "usage",
    "requests",
];

const PREFIX: &str = "forebay.device.";

/// An event, as far as the audit needs it.
#[derive(Deserialize)]
struct Event {
    id: String,
    r#type: String,
    #[serde(default)]
    data: Counts,
}

/// Counts in the events that have some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Counts {
    accepted: u64,
    refused: u64,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.bytes += other.bytes;
    }
}

/// Events told of one device, added up.
#[derive(Default)]
struct Told {
    connected: u64,
    disconnected: u64,
    /// The sum of all usage.
    usage: Counts,
    /// The sum over all ends.
    ends: Counts,
}

/// Takes events in, and compares them.
struct Comparison {
    devices: HashMap<String, (Visits, Told)>,
    ids: HashSet<String>,
    /// Number of events of each type.
    types: BTreeMap<String, u64>,
    others: u64,
    faults: Faults,
}

impl Comparison {
    fn new(visits: Vec<Visits>) -> Self {
        let with_nothing_told = |one: Visits| (one.device.clone(), (one, Told::default()));
        Self {
            devices: visits.into_iter().map(with_nothing_told).collect(),
            ids: HashSet::new(),
            types: BTreeMap::new(),
            others: 0,
            faults: Faults::of(&FAULT_NAMES),
        }
    }

    fn fault(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        self.faults.add(fault as usize, example);
    }

    /// Takes in an event that has its device, or needs none.
    fn note(&mut self, event: &Event, device: &str) {
        let kind = event.r#type.strip_prefix(PREFIX).unwrap_or_default();
        let Some((_, told)) = self.devices.get_mut(device) else {
            // Nobody has verified whose a certificate is that was refused.
            if device.is_empty() && kind != "refused" {
                return self.fault(Fault::Strange, || format!("{kind} of no device"));
            }
            self.others += 1;
            return;
        };
        *self.types.entry(kind.to_owned()).or_default() += 1;
        match kind {
            "connected" => told.connected += 1,
            "disconnected" => {
                told.disconnected += 1;
                told.ends.add(&event.data);
                let began = told.connected >= told.disconnected;
                if !began {
                    let example = || format!("{device}: an end before its beginning");
                    self.fault(Fault::Unpaired, example);
                }
            }
            "usage" => told.usage.add(&event.data),
            _ => {}
        }
    }

    fn finish(mut self) -> Findings {
        let mut devices: Vec<_> = std::mem::take(&mut self.devices).into_values().collect();
        devices.sort_unstable_by(|(one, _), (other, _)| one.device.cmp(&other.device));
        for (visits, told) in &devices {
            self.compare(visits, told);
        }
        Findings {
            devices: devices.len(),
            types: self.types,
            others: self.others,
            faults: self.faults,
        }
    }

    fn compare(&mut self, visits: &Visits, told: &Told) {
        let device = &visits.device;
        let Told {
            connected,
            disconnected,
            usage,
            ends,
        } = told;
        if connected != disconnected {
            let example = || format!("{device}: {connected} beginnings, {disconnected} ends");
            self.fault(Fault::Unpaired, example);
        }
        let (least, most) = (visits.connections, visits.connections + visits.uncertain);
        if !(least..=most).contains(connected) {
            let example = || format!("{device}: {connected} told, {least} to {most} made");
            self.fault(Fault::Connections, example);
        }
        if usage != ends {
            let example = || format!("{device}: {usage:?}, its ends say {ends:?}");
            self.fault(Fault::Usage, example);
        }
        if !is_what_was_answered(visits, ends) {
            let example = || format!("{device}: {ends:?}, it remembers {visits:?}");
            self.fault(Fault::Requests, example);
        }
    }
}

impl Auditor for Comparison {
    fn take(&mut self, record: &Found) {
        let Ok(event) = serde_json::from_slice::<Event>(record.payload) else {
            let text = String::from_utf8_lossy(record.payload);
            return self.fault(Fault::Strange, || format!("no event: {text:.100}"));
        };
        self.note(&event, record.device);
        if let Some(again) = self.ids.replace(event.id) {
            self.fault(Fault::Repeated, || {
                format!("{} of {}", again, record.device)
            });
        }
    }
}

/// Whether these counts are what a device was answered, requests without an answer counted or not.
fn is_what_was_answered(visits: &Visits, told: &Counts) -> bool {
    let Visits {
        accepted,
        refused,
        unknown,
        ..
    } = visits;
    let more_accepted = told.accepted.checked_sub(accepted.count);
    let more_refused = told.refused.checked_sub(refused.count);
    let (Some(more_accepted), Some(more_refused)) = (more_accepted, more_refused) else {
        return false;
    };
    more_accepted + more_refused <= unknown.count && are_bytes_of(accepted, unknown, told.bytes)
}

fn are_bytes_of(accepted: &Requests, unknown: &Requests, told: u64) -> bool {
    (accepted.bytes..=accepted.bytes + unknown.bytes).contains(&told)
}

/// Findings of an audit.
struct Findings {
    devices: usize,
    types: BTreeMap<String, u64>,
    others: u64,
    faults: Faults,
}

impl Findings {
    fn to_json(&self) -> Value {
        self.faults.report(json!({
            "devices": self.devices, "events": self.types, "of_others": self.others,
        }))
    }

    fn to_text(&self) -> String {
        let mut text = format!("{} devices, and what was told of them:\n", self.devices);
        for (kind, count) in &self.types {
            text += &format!("  {kind:<20}{count:>10}\n");
        }
        let others = self.others;
        let good = "good: beginnings and ends in pairs, and usage exact";
        format!(
            "{text}  {:<20}{others:>10}\n\n{}",
            "of others",
            self.faults.to_text(good)
        )
    }
}

/// Runs the audit and returns whether all is good.
pub(crate) fn run(options: &cli::Events) -> Result<bool> {
    let mut comparison = Comparison::new(visits::read(&options.visits)?);
    let cli::Events { topic, stream, .. } = options;
    read_sink(&options.sink, topic, stream, &mut comparison)?;
    let findings = comparison.finish();
    print!("{}", findings.to_text());
    write_report(&findings.to_json(), options.report.as_deref())?;
    Ok(findings.faults.are_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits() -> Visits {
        let requests = |count, bytes| Requests { count, bytes };
        let mut visits = Visits::of("load-000001".into());
        (visits.connections, visits.uncertain) = (1, 1);
        visits.accepted = requests(3, 30);
        visits.refused = requests(1, 10);
        visits.unknown = requests(1, 10);
        visits
    }

    fn faults(told: &[(&str, Value)]) -> Vec<u64> {
        let mut comparison = Comparison::new(vec![visits()]);
        for (place, (kind, data)) in told.iter().enumerate() {
            let event =
                json!({"id": place.to_string(), "type": format!("{PREFIX}{kind}"), "data": data});
            comparison.take(&Found {
                device: "load-000001",
                payload: event.to_string().as_bytes(),
            });
        }
        let findings = comparison.finish();
        let kinds = 0..FAULT_NAMES.len();
        let counts: Vec<u64> = kinds.map(|kind| findings.faults.count(kind)).collect();
        assert_eq!(findings.faults.are_none(), counts.iter().sum::<u64>() == 0);
        counts
    }

    /// All of a connection that was answered so often.
    fn connection(accepted: u64, refused: u64, bytes: u64) -> [(&'static str, Value); 3] {
        let counts = json!({"accepted": accepted, "refused": refused, "bytes": bytes});
        [
            ("connected", json!({"protocol": "h1"})),
            ("usage", counts.clone()),
            ("disconnected", counts),
        ]
    }

    #[test]
    fn what_a_device_remembers_is_good_with_or_without_what_it_cannot_know() {
        assert_eq!(faults(&connection(3, 1, 30)), [0; 6]);
        assert_eq!(faults(&connection(4, 1, 40)), [0; 6]);
        assert_eq!(faults(&connection(3, 2, 30)), [0; 6]);
        let both = [connection(3, 0, 30), connection(0, 1, 0)].concat();
        assert_eq!(faults(&both), [0; 6]);
    }

    #[test]
    fn each_difference_is_found() {
        let all = connection(3, 1, 30);
        let without = |place: usize| {
            let mut told = all.to_vec();
            told.remove(place);
            faults(&told)
        };
        assert_eq!(without(0), [0, 0, 2, 1, 0, 0]);
        assert_eq!(without(1), [0, 0, 0, 0, 1, 0]);
        assert_eq!(without(2), [0, 0, 1, 0, 1, 1]);
        assert_eq!(faults(&connection(2, 1, 30)), [0, 0, 0, 0, 0, 1]);
        assert_eq!(faults(&connection(4, 2, 30)), [0, 0, 0, 0, 0, 1]);
        assert_eq!(faults(&connection(3, 1, 41)), [0, 0, 0, 0, 0, 1]);
        let thrice = [
            connection(3, 1, 30),
            connection(0, 0, 0),
            connection(0, 0, 0),
        ];
        assert_eq!(faults(&thrice.concat()), [0, 0, 0, 1, 0, 0]);
        let reversed = [all[2].clone(), all[1].clone(), all[0].clone()];
        assert_eq!(faults(&reversed), [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn strange_and_repeated_events_are_found_and_those_of_others_left_alone() {
        let mut comparison = Comparison::new(Vec::new());
        let event = |kind: &str| format!(r#"{{"id":"{kind}","type":"{PREFIX}{kind}"}}"#);
        for (device, payload) in [
            ("", event("refused")),
            ("plc-7", event("connected")),
            ("plc-7", event("connected")),
            ("", event("usage")),
            ("plc-7", "21.5".into()),
        ] {
            let payload = payload.as_bytes();
            comparison.take(&Found { device, payload });
        }
        let findings = comparison.finish();
        assert_eq!((findings.faults.count(0), findings.faults.count(1)), (2, 1));
        assert_eq!(findings.others, 3);
    }
}
