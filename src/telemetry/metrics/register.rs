//! Registering metrics: a name, its help and its labels stand in one place, once.
//!
//! The other files of the room call it while a recorder is in place; the handles that it gives are
//! kept. A name that is registered twice is one metric with two handles.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// The labels of one series: names and values.
type Labels<const N: usize> = [(&'static str, String); N];

pub(super) fn counter(name: &'static str, help: &'static str) -> Counter {
    debug_assert!(name.ends_with("_total"), "{name}: a counter says so");
    describe_counter!(name, help);
    counter!(name)
}

pub(super) fn gauge(name: &'static str, help: &'static str) -> Gauge {
    debug_assert!(!name.ends_with("_total"), "{name}: no counter");
    describe_gauge!(name, help);
    gauge!(name)
}

/// A counter for each of the series.
pub(super) fn counters<const N: usize>(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = Labels<N>>,
) -> Vec<Counter> {
    debug_assert!(name.ends_with("_total"), "{name}: a counter says so");
    describe_counter!(name, help);
    let series = series.into_iter();
    series.map(|labels| counter!(name, &labels)).collect()
}

/// A gauge for each of the series.
pub(super) fn gauges<const N: usize>(
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = Labels<N>>,
) -> Vec<Gauge> {
    debug_assert!(!name.ends_with("_total"), "{name}: no counter");
    describe_gauge!(name, help);
    let series = series.into_iter();
    series.map(|labels| gauge!(name, &labels)).collect()
}

/// The series that one label tells apart, by all of its values.
pub(super) fn each<V: AsRef<str>>(
    label: &'static str,
    values: &[V],
) -> impl Iterator<Item = Labels<1>> {
    let labels = move |value: &V| [(label, value.as_ref().to_owned())];
    values.iter().map(labels)
}
