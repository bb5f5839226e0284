//! Load that can be audited: senders that post one reading after another and remember each answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::driver::Driver;
use super::{Client, eventually};

/// Senders at work. Each has a connection of its own and sends `{name}-{sender}-{number}`, numbers from 0.
pub struct Load {
    load: u64,
    name: String,
}

/// Outcome of each reading, by sender, in the order of sending.
pub struct Outcomes {
    name: String,
    pub senders: Vec<Vec<Outcome>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// The connection broke: the reading's fate is unknown.
    Broken(String),
}

impl Load {
    /// Starts a sender on each of these connections. Bodies are padded to `pad` bytes by spaces.
    pub fn start(name: &str, clients: &[Client], pad: usize) -> Self {
        Self::begin(name, clients, pad, false)
    }

    /// The same, by senders that connect anew when they are told to go, or when their connection ends. A reading whose
    /// answer did not come is [`Outcome::Broken`], unless the gateway has said that it did not look at it.
    pub fn roaming(name: &str, clients: &[Client], pad: usize) -> Self {
        Self::begin(name, clients, pad, true)
    }

    fn begin(name: &str, clients: &[Client], pad: usize, roams: bool) -> Self {
        let sessions: Vec<u64> = clients.iter().map(Client::session).collect();
        let fields = json!({ "sessions": sessions, "name": name, "pad": pad, "roams": roams });
        let answer = Driver::get().call("load", fields).expect("a load");
        Self {
            load: answer["load"].as_u64().expect("a number"),
            name: name.into(),
        }
    }

    /// Counts the answers of this status so far.
    pub fn seen(&self, status: u16) -> u64 {
        self.progress()
            .get(&status.to_string())
            .copied()
            .unwrap_or(0)
    }

    pub fn wait_for(&self, status: u16, count: u64) {
        eventually(&format!("{count} answers {status}"), || {
            self.seen(status) >= count
        });
    }

    /// Counts each outcome so far.
    pub fn progress(&self) -> BTreeMap<String, u64> {
        let answer = Driver::get()
            .call("progress", json!({ "load": self.load }))
            .expect("its progress");
        let seen = answer["seen"].as_object().expect("an object");
        seen.iter()
            .map(|(outcome, count)| (outcome.clone(), count.as_u64().expect("a count")))
            .collect()
    }

    /// Stops once every sender has its answer.
    pub fn stop(self) -> Outcomes {
        let answer = Driver::get()
            .call("stop", json!({ "load": self.load }))
            .expect("its outcomes");
        let outcome = |outcome: &Value| match outcome.as_u64() {
            Some(status) => Outcome::Status(status.try_into().expect("a status")),
            None => Outcome::Broken(outcome.as_str().expect("an error").into()),
        };
        let sender = |sender: &Value| {
            sender
                .as_array()
                .expect("a list")
                .iter()
                .map(outcome)
                .collect()
        };
        let senders = answer["outcomes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(sender)
            .collect();
        Outcomes {
            name: self.name,
            senders,
        }
    }
}

impl Outcomes {
    /// The readings of a sender that were answered 204, in their order.
    pub fn accepted_of(&self, sender: usize) -> Vec<String> {
        let outcomes = self.senders[sender].iter().enumerate();
        let accepted = outcomes.filter(|(_, outcome)| **outcome == Outcome::Status(204));
        accepted
            .map(|(number, _)| format!("{}-{sender}-{number}", self.name))
            .collect()
    }

    /// All readings that were answered 204.
    pub fn accepted(&self) -> Vec<String> {
        (0..self.senders.len())
            .flat_map(|sender| self.accepted_of(sender))
            .collect()
    }

    pub fn count(&self, status: u16) -> usize {
        self.senders
            .iter()
            .flatten()
            .filter(|outcome| **outcome == Outcome::Status(status))
            .count()
    }
}
