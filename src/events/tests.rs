//! Events while there is room, while there is none, and when there is some again.

use proptest::prelude::*;
use serde_json::Value;

use super::room::EVENTS_WAITING_MAX;
use super::*;
use crate::batcher::{Queues, in_flight_batches_max};
use crate::config::{AckConfig, AckMode, BatchConfig};
use crate::handover::{self, Receiver};
use crate::record::{Batch, Settled};
use crate::telemetry::metrics::Metrics;
use crate::words::{Disconnect, Protocol, Scope};

const STREAM: StreamIndex = StreamIndex(0);

/// A reporter, and what delivery gets of it.
struct Bench {
    reporter: Rc<Reporter>,
    batches: Receiver<Batch>,
    metrics: Metrics,
    _settled: Receiver<Settled>,
}

fn bench(usage_interval: Option<Duration>) -> Bench {
    let limits = BatchConfig {
        bytes_max: usize::MAX,
        records_max: usize::MAX,
        linger: Duration::from_millis(5),
    };
    let ack = AckConfig {
        mode: AckMode::Durable,
        timeout: Duration::from_secs(10),
    };
    let (delivery, batches) = handover::channel(in_flight_batches_max(1));
    let (home, settled) = handover::channel(in_flight_batches_max(1));
    let metrics = Metrics::new(1, &["fleet".into()], vec![]);
    let batcher = Batcher::new(1, limits, ack, Queues { delivery, home }, metrics.worker(0));
    let batcher = Rc::new(batcher.with_own_stream(Some(STREAM)));
    let config = EventsConfig {
        stream: STREAM,
        replica: "gw-1".into(),
        usage_interval,
    };
    let events = Events::new(&config, metrics.events());
    Bench {
        reporter: Rc::new(Reporter::new(&events, batcher)),
        batches,
        metrics,
        _settled: settled,
    }
}

/// An event as its stream has it.
#[derive(Debug)]
struct Told {
    key: Option<String>,
    kind: String,
    data: Value,
}

impl Bench {
    fn open(&self, device: &str) -> Presence {
        self.reporter.open(&Opening {
            device: &DeviceId::parse(device).unwrap(),
            protocol: Protocol::H1,
            address: [127, 0, 0, 1].into(),
            is_resumed: false,
            serial: &[7],
            not_after: Timestamp(0),
        })
    }

    /// Takes the events that were posted and not delivered; there is room for as many again.
    fn deliver(&mut self) -> Vec<Told> {
        self.reporter.batcher.send_posted();
        let mut all = Vec::new();
        while let Some(batch) = self.batches.try_recv() {
            assert!(batch.is_answered(), "nobody waits for it");
            all.extend(batch.records().iter().map(told));
        }
        all
    }

    fn dropped(&self) -> u64 {
        let text = self.metrics.render();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("forebay_events_dropped_total "));
        value.unwrap().parse().unwrap()
    }
}

fn told(record: &Record) -> Told {
    let event: Value = serde_json::from_slice(&record.payload).unwrap();
    assert_eq!(event["id"], record.id.as_str(&mut [0; 36]));
    assert_eq!(event["subject"].as_str(), record.key());
    assert_eq!(record.content_type.as_deref(), Some(CONTENT_TYPE));
    let kind = event["type"].as_str().unwrap();
    Told {
        key: record.key().map(str::to_owned),
        kind: kind.strip_prefix("forebay.device.").unwrap().to_owned(),
        data: event["data"].clone(),
    }
}

fn kinds(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.kind.as_str()).collect()
}

fn accepted(told: &[Told], kind: &str) -> u64 {
    let of_kind = told.iter().filter(|told| told.kind == kind);
    of_kind
        .map(|told| told.data["accepted"].as_u64().unwrap())
        .sum()
}

#[test]
fn a_connection_is_told_of_in_its_order() {
    let mut bench = bench(Some(Duration::from_secs(60)));
    let presence = bench.open("plc-7");
    presence.count(true, 5);
    presence.note_expiry();
    presence.note_limited(Scope::Address, 3);
    presence.tell_news();
    presence.note_expiry();
    presence.tell_news();
    presence.count(false, 0);
    presence.close(Disconnect::Lost);
    let told = bench.deliver();
    let expected = [
        "connected",
        "limited",
        "certificate-expires",
        "usage",
        "disconnected",
    ];
    assert_eq!(kinds(&told), expected);
    assert!(told.iter().all(|told| told.key.as_deref() == Some("plc-7")));
    let limited = serde_json::json!({ "scope": "address", "refused": 3 });
    assert_eq!(told[1].data, limited);
    for told in &told[3..] {
        let counts = ["accepted", "refused", "bytes"].map(|name| told.data[name].as_u64());
        assert_eq!(counts, [Some(1), Some(1), Some(5)], "{told:?}");
    }
    assert_eq!(told[4].data["reason"], "lost");
}

#[test]
fn a_certificate_that_is_turned_away_has_no_key() {
    let mut bench = bench(None);
    bench.reporter.refused("expired", &[0, 0xab]);
    let told = bench.deliver();
    assert_eq!(
        (kinds(&told), told[0].key.as_deref()),
        (vec!["refused"], None)
    );
    assert_eq!(told[0].data["certificate_serial"], "ab");
}

#[test]
fn without_an_interval_there_is_no_usage() {
    let mut bench = bench(None);
    let presence = bench.open("plc-7");
    presence.count(true, 5);
    presence.close(Disconnect::Closed);
    assert_eq!(kinds(&bench.deliver()), ["connected", "disconnected"]);
}

/// While the stream of events is away, `connected` and `disconnected` are lost, but no usage is.
#[test]
fn where_there_is_no_room_events_are_dropped_and_usage_is_carried_over() {
    let mut bench = bench(Some(Duration::from_secs(60)));
    let stays = bench.open("stays");
    stays.count(true, 1);
    let mut held: Vec<_> = std::iter::from_fn(|| bench.reporter.events.room.take()).collect();
    assert_eq!(held.len(), EVENTS_WAITING_MAX - 1);
    for _ in 0..3 {
        let comes = bench.open("comes");
        comes.count(true, 1);
        comes.close(Disconnect::Closed);
    }
    bench.reporter.tell_part(0, 1);
    bench.reporter.tell_carried();
    assert_eq!(
        (bench.dropped(), kinds(&bench.deliver())),
        (6, vec!["connected"])
    );
    held.clear();
    stays.count(true, 1);
    bench.reporter.tell_carried();
    bench.reporter.tell_part(0, 1);
    bench.reporter.tell_part(0, 1);
    let told = bench.deliver();
    let key_and_sum = |told: &Told| (told.key.clone().unwrap(), told.data["accepted"].as_u64());
    let expected = [("comes".into(), Some(3)), ("stays".into(), Some(2))];
    assert_eq!(told.iter().map(key_and_sum).collect::<Vec<_>>(), expected);
}

/// A worker that ends leaves nothing untold, be there room or not.
#[test]
fn what_is_carried_is_told_at_the_end() {
    let mut bench = bench(Some(Duration::from_secs(60)));
    let presence = bench.open("plc-7");
    presence.count(true, 1);
    let _held: Vec<_> = std::iter::from_fn(|| bench.reporter.events.room.take()).collect();
    presence.close(Disconnect::Drain);
    bench.reporter.tell_rest();
    assert_eq!(kinds(&bench.deliver()), ["connected", "usage"]);
}

/// A step of connections or of room; steps come in any order.
#[derive(Clone, Debug)]
enum Step {
    Open(u8),
    Count(usize, bool),
    Close(usize),
    Look,
    Fill,
    Free,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..4_u8).prop_map(Step::Open),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(place, fits)| Step::Count(place, fits)),
        2 => any::<usize>().prop_map(Step::Close),
        2 => Just(Step::Look),
        1 => Just(Step::Fill),
        1 => Just(Step::Free),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Each accepted request is in one usage event, whatever connections and room do.
    #[test]
    fn usage_adds_up_to_what_was_accepted(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = bench(Some(Duration::from_secs(60)));
        let (mut open, mut held, mut sent) = (Vec::new(), Vec::new(), 0);
        for step in steps {
            match step {
                Step::Open(device) => open.push(bench.open(&format!("device-{device}"))),
                Step::Count(place, fits) if !open.is_empty() => {
                    let presence: &Presence = &open[place % open.len()];
                    presence.count(fits, 0);
                    sent += u64::from(fits);
                }
                Step::Close(place) if !open.is_empty() => {
                    open.swap_remove(place % open.len()).close(Disconnect::Closed);
                }
                Step::Look => {
                    bench.reporter.tell_carried();
                    bench.reporter.tell_part(0, 1);
                }
                Step::Fill => held.extend(std::iter::from_fn(|| bench.reporter.events.room.take())),
                Step::Free => held.clear(),
                Step::Count(..) | Step::Close(_) => {}
            }
        }
        for presence in open {
            presence.close(Disconnect::Drain);
        }
        bench.reporter.tell_rest();
        prop_assert_eq!(accepted(&bench.deliver(), "usage"), sent);
        prop_assert!(bench.reporter.open.borrow().is_empty());
    }
}
