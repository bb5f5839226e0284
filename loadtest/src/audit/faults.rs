//! The differences that an audit has found, by their kinds, with a few examples of each.

use serde_json::{Map, Value, json};

/// Examples of each kind of difference that are shown.
const EXAMPLES_MAX: u64 = 5;

/// Differences of some kinds, which have names.
pub(crate) struct Faults {
    names: &'static [&'static str],
    counts: Vec<u64>,
    /// The kind of each, and what it is.
    examples: Vec<(usize, String)>,
}

impl Faults {
    /// None so far.
    pub(crate) fn of(names: &'static [&'static str]) -> Self {
        Self {
            names,
            counts: vec![0; names.len()],
            examples: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, kind: usize, example: impl FnOnce() -> String) {
        self.counts[kind] += 1;
        if self.counts[kind] <= EXAMPLES_MAX {
            self.examples.push((kind, example()));
        }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    #[cfg(test)]
    pub(crate) fn count(&self, kind: usize) -> u64 {
        self.counts[kind]
    }

    /// Adds the differences to the facts of a report, and whether all is `good`.
    pub(crate) fn report(&self, mut facts: Value) -> Value {
        facts["faults"] = self.counts_to_json();
        facts["examples"] = self.examples_to_json();
        facts["good"] = self.are_none().into();
        facts
    }

    fn counts_to_json(&self) -> Value {
        let named = self.names.iter().zip(&self.counts);
        let counts = named.map(|(name, count)| ((*name).to_owned(), json!(count)));
        Value::Object(Map::from_iter(counts))
    }

    fn examples_to_json(&self) -> Value {
        let mut examples = Vec::new();
        for (kind, what) in &self.examples {
            examples.push(json!({"fault": self.names[*kind], "what": what}));
        }
        examples.into()
    }

    /// Writes each kind with its count and its examples below it, and the verdict: `good` is the one
    /// without differences.
    pub(crate) fn to_text(&self, good: &str) -> String {
        let mut text = String::new();
        for (kind, (name, count)) in self.names.iter().zip(&self.counts).enumerate() {
            text += &format!("  {name:<11}{count:>10}\n");
            let examples = self.examples.iter().filter(|(of, _)| *of == kind);
            for (_, what) in examples {
                text += &format!("             {what}\n");
            }
        }
        let verdict = if self.are_none() { good } else { "NOT GOOD" };
        text + "\n" + verdict + "\n"
    }
}
