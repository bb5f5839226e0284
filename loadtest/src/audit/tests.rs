//! The audit finds what is wrong, and nothing where nothing is.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::payload::Template;
use crate::random::Random;

const RUN: RunId = RunId(7);

fn payload(run: RunId, device: u32, sequence: u32) -> Vec<u8> {
    Template::new(run, 344)
        .unwrap()
        .render(device, sequence, &mut Random::new(u64::from(sequence)))
        .to_vec()
}

fn entry(device: u32, sequence: u32, status: u16) -> Entry {
    Entry {
        device,
        sequence,
        digest: digest(&payload(RUN, device, sequence)),
        status: Status(status),
        latency_us: 0,
    }
}

/// Records that a sink holds: the device that the gateway names, and the payload.
type Sink = Vec<(String, Vec<u8>)>;

fn sink_of(entries: &[Entry]) -> Sink {
    let there = entries.iter().filter(|entry| entry.status == Status::SAFE);
    there
        .map(|entry| {
            (
                device_name(entry.device),
                payload(RUN, entry.device, entry.sequence),
            )
        })
        .collect()
}

/// Lost, duplicated, reordered, corrupted, unexpected.
fn faults(entries: &[Entry], sink: &Sink) -> [u64; 5] {
    let mut comparison = Comparison::new(RUN, entries.to_vec()).unwrap();
    sink.iter()
        .for_each(|(device, payload)| comparison.take(&Found { device, payload }));
    let findings = comparison.finish();
    let counts = [0, 1, 2, 3, 4].map(|kind| findings.faults.count(kind));
    assert_eq!(findings.faults.are_none(), counts == [0; 5]);
    counts
}

fn ledger() -> impl Strategy<Value = Vec<Entry>> {
    let statuses = prop::sample::select(vec![204_u16, 204, 204, 204, 0, 1, 429, 503, 504]);
    prop::collection::vec((0..4_u32, statuses), 2..60).prop_map(|sent| {
        let mut next = [0_u32; 4];
        let mut entries: Vec<Entry> = sent
            .into_iter()
            .map(|(device, status)| {
                next[device as usize] += 1;
                entry(device, next[device as usize] - 1, status)
            })
            .collect();
        // At least one that must be there.
        entries.push(entry(9, 0, 204));
        entries
    })
}

proptest! {
    #[test]
    fn a_faithful_sink_passes(entries in ledger(), arrived in prop::collection::vec(any::<bool>(), 60)) {
        let is_there = |(entry, arrived): &(&Entry, &bool)| {
            entry.status == Status::SAFE || (entry.status.is_unknown() && **arrived)
        };
        let there: Vec<Entry> = entries.iter().zip(arrived.iter().chain([&true])).filter(is_there)
            .map(|(entry, _)| Entry { status: Status::SAFE, ..*entry }).collect();
        let mut sink = sink_of(&there);
        sink.push(("load-000001".into(), payload(RunId(8), 1, 0)));
        sink.push(("plc-7".into(), b"something".to_vec()));
        prop_assert_eq!(faults(&entries, &sink), [0; 5]);
    }

    #[test]
    fn what_is_missing_is_lost(entries in ledger(), which: Index) {
        let mut sink = sink_of(&entries);
        sink.remove(which.index(sink.len()));
        prop_assert_eq!(faults(&entries, &sink), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn what_comes_again_is_duplicated(entries in ledger(), which: Index, to: Index) {
        let mut sink = sink_of(&entries);
        let copy = sink[which.index(sink.len())].clone();
        let from = sink.iter().position(|record| *record == copy).unwrap();
        sink.insert(from + 1 + to.index(sink.len() - from), copy);
        prop_assert_eq!(faults(&entries, &sink), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn what_was_changed_is_corrupted(entries in ledger(), which: Index, at: Index, bit in 0..7_u8) {
        let mut sink = sink_of(&entries);
        let place = which.index(sink.len());
        // In the padding: elsewhere it may become another request's.
        let padding = sink[place].1.len() - 40;
        sink[place].1[padding + at.index(30)] ^= 1 << bit;
        let counts = faults(&entries, &sink);
        // A quote or a control character makes it unreadable: then it is also missing.
        prop_assert!(counts == [0, 0, 0, 1, 0] || counts == [1, 0, 0, 1, 0], "{counts:?}");
    }
}

#[test]
fn a_swap_within_a_device_is_reordered() {
    let entries = [entry(1, 0, 204), entry(1, 1, 204), entry(2, 0, 204)];
    let mut sink = sink_of(&entries);
    sink.swap(1, 2);
    assert_eq!(faults(&entries, &sink), [0; 5]);
    sink.swap(0, 2);
    assert_eq!(faults(&entries, &sink), [0, 0, 1, 0, 0]);
    // Nobody waited for the first one's 204.
    let entries = [entry(1, 0, 504), entry(1, 1, 204), entry(2, 0, 204)];
    assert_eq!(faults(&entries, &sink), [0; 5]);
}

#[test]
fn what_was_refused_or_is_nobodys_is_unexpected() {
    let entries = [entry(1, 0, 429), entry(1, 1, 204)];
    let sink = vec![
        (device_name(1), payload(RUN, 1, 0)),
        (device_name(1), payload(RUN, 1, 1)),
        (device_name(1), payload(RUN, 1, 2)),
    ];
    assert_eq!(faults(&entries, &sink), [0, 0, 0, 0, 2]);
}

#[test]
fn a_reading_under_another_devices_name_is_corrupted() {
    let entries = [entry(1, 0, 204)];
    assert_eq!(
        faults(&entries, &vec![(device_name(2), payload(RUN, 1, 0))]),
        [0, 0, 0, 1, 0]
    );
}

#[test]
fn a_ledger_that_names_a_request_twice_is_refused() {
    assert!(Comparison::new(RUN, vec![entry(1, 0, 204), entry(1, 0, 503)]).is_err());
}
