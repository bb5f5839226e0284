//! Tests of the buckets and their table. They stand outside their files, which
//! `tests/loom_limits.rs` compiles against loom.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::config::{DeviceClass, Quota};

const SECOND: u64 = 1_000_000_000;
const OFF: Quota = Quota {
    rate: 0.0,
    burst: 0,
};

fn at(seconds: f64) -> Nanos {
    Nanos((seconds * SECOND as f64) as u64)
}

fn after(now: Nanos, wait: Duration) -> Nanos {
    Nanos(now.0 + wait.as_nanos() as u64)
}

fn quota(rate: f64, burst: u64) -> Quota {
    Quota { rate, burst }
}

fn take(bucket: &Bucket, rule: &Rule, cost: u64, now: Nanos) -> Result<(), Shortfall> {
    bucket.take(rule, cost, now).expect("in no table")
}

fn config(devices_max: usize) -> LimitsConfig {
    LimitsConfig {
        device_requests: quota(1.0, 2),
        device_bytes: quota(100.0, 1000),
        device_classes: Vec::new(),
        address_requests: OFF,
        address_handshakes: OFF,
        gateway_requests: OFF,
        devices_max,
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn refused(denied: Result<(), Denied>) -> Refused {
    match denied {
        Err(Denied::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

proptest! {
    #[test]
    fn a_bucket_grants_at_most_its_burst_and_its_rate(
        rate in 0.01..1e7_f64,
        burst in 1..10_000_u64,
        steps in prop::collection::vec((0..2 * SECOND, 1..50_u64), 1..200),
    ) {
        let (bucket, rule) = (Bucket::full_from(Nanos(0)), Rule::new(quota(rate, burst)));
        let (mut now, mut granted) = (Nanos(0), 0);
        for (wait_ns, cost) in steps {
            now = Nanos(now.0 + (wait_ns as f64 / rate.max(1.0)) as u64);
            granted += if take(&bucket, &rule, cost, now).is_ok() { cost } else { 0 };
            let entitled = burst as f64 + rate * now.0 as f64 / SECOND as f64;
            // A nanosecond for each token of the burst, and never a whole token.
            let slack = (burst as f64 * rate / SECOND as f64).min(1.0);
            prop_assert!(granted as f64 <= (entitled + slack) * (1.0 + 1e-12), "{granted} of {entitled}");
        }
    }

    #[test]
    fn a_refused_take_changes_nothing_and_passes_when_it_said(
        rate in 0.01..1e7_f64,
        burst in 1..10_000_u64,
        costs in prop::collection::vec(1..10_000_u64, 1..50),
    ) {
        let (bucket, rule, now) = (Bucket::full_from(Nanos(0)), Rule::new(quota(rate, burst)), at(1.0));
        for cost in costs {
            let Err(refusal) = take(&bucket, &rule, cost, now) else { continue };
            prop_assert!(refusal.remaining < cost && refusal.remaining <= burst);
            prop_assert_eq!(take(&bucket, &rule, cost, now), Err(refusal));
            if !rule.exceeds_burst(cost) {
                let passes_at = after(now, refusal.retry_after);
                prop_assert!(take(&bucket, &rule, cost, Nanos(passes_at.0 - 1)).is_err());
                let twin = Bucket::full_from(bucket.evict(Nanos(u64::MAX - 1)).unwrap());
                prop_assert!(take(&twin, &rule, cost, passes_at).is_ok());
                bucket.restore(twin.evict(Nanos(u64::MAX - 1)).unwrap());
                return Ok(());
            }
        }
    }

    #[test]
    fn no_quota_cost_or_instant_overflows(rate: f64, burst: u64, cost: u64, instants: [u64; 3]) {
        let (bucket, rule) = (Bucket::full_from(Nanos(0)), Rule::new(quota(rate, burst)));
        for now in instants {
            let _ = take(&bucket, &rule, cost, Nanos(now));
        }
    }
}

#[test]
fn a_full_bucket_holds_its_burst_to_the_token() {
    for rate in [0.2, 1.0, 3.0, 7.0, 50.0, 333.3, 1e6] {
        for burst in [1, 3, 100, 997] {
            let (bucket, rule) = (Bucket::full_from(Nanos(0)), Rule::new(quota(rate, burst)));
            let granted = (0..2 * burst)
                .filter(|_| take(&bucket, &rule, 1, at(1.0)).is_ok())
                .count();
            assert_eq!(granted as u64, burst, "at {rate}/s");
            let whole = Bucket::full_from(Nanos(0));
            assert_eq!(take(&whole, &rule, burst, at(1.0)), Ok(()), "at {rate}/s");
        }
    }
}

#[test]
fn a_rate_of_zero_switches_a_limit_off_whatever_its_burst() {
    for burst in [0, 1, u64::MAX] {
        let (bucket, rule) = (Bucket::full_from(Nanos(0)), Rule::new(quota(0.0, burst)));
        assert!((0..1000).all(|_| take(&bucket, &rule, u64::MAX, Nanos(0)).is_ok()));
        assert!(!rule.exceeds_burst(u64::MAX));
    }
}

#[test]
fn a_cost_above_the_burst_never_passes_and_takes_nothing() {
    let (bucket, rule) = (Bucket::full_from(Nanos(0)), Rule::new(quota(1e6, 100)));
    assert!(rule.exceeds_burst(101) && !rule.exceeds_burst(100));
    assert!(take(&bucket, &rule, 101, at(1e6)).is_err());
    assert_eq!(take(&bucket, &rule, 100, at(1e6)), Ok(()));
}

#[test]
fn a_refusal_says_in_whole_seconds_when_to_come_back() {
    let limits = Limits::new(&LimitsConfig {
        device_requests: quota(50.0, 100),
        ..config(10)
    });
    let device = limits.device(&id("a"), at(1.0)).unwrap();
    assert!((0..100).all(|_| device.take_request(at(1.0)).is_ok()));
    let refused = refused(device.take_request(at(1.0)));
    assert_eq!(refused.rate_limit_policy(), "\"device\";q=100;w=2");
    assert_eq!(refused.rate_limit(), "\"device\";r=0;t=1");
    assert!(refused.retry_after() <= Duration::from_millis(20));
    assert_eq!(device.take_request(at(1.02)), Ok(()));
}

#[test]
fn requests_and_bytes_are_two_buckets() {
    let limits = Limits::new(&config(10));
    let device = limits.device(&id("a"), at(0.0)).unwrap();
    assert_eq!(device.take_bytes(at(0.0), 900), Ok(()));
    let refused = refused(device.take_bytes(at(0.0), 200));
    assert_eq!(
        (refused.scope, refused.shortfall.remaining),
        (Scope::DeviceBytes, 100)
    );
    assert!(device.bytes_exceed_burst(1001) && !device.bytes_exceed_burst(1000));
    assert_eq!(device.take_request(at(0.0)), Ok(()));
}

#[test]
fn the_first_matching_class_sets_the_request_rate_only() {
    let class = |devices: &str, burst| DeviceClass {
        devices: devices.into(),
        requests: quota(1.0, burst),
    };
    let classes = vec![class("gw-*", 5), class("gw-1", 7), class("*-slow", 1)];
    let limits = Limits::new(&LimitsConfig {
        device_classes: classes,
        ..config(10)
    });
    for (name, burst) in [("gw-1", 5), ("meter-slow", 1), ("other", 2)] {
        let device = limits.device(&id(name), at(0.0)).unwrap();
        let granted = (0..20)
            .filter(|_| device.take_request(at(0.0)).is_ok())
            .count();
        assert_eq!(granted, burst, "{name}");
        assert!(!device.bytes_exceed_burst(1000) && device.bytes_exceed_burst(1001));
    }
}

#[test]
fn connections_of_one_device_share_its_buckets() {
    let limits = Limits::new(&config(10));
    let [one, other] = [(); 2].map(|()| limits.device(&id("a"), at(0.0)).unwrap());
    assert_eq!(
        (one.take_request(at(0.0)), other.take_request(at(0.0))),
        (Ok(()), Ok(()))
    );
    assert_eq!(
        refused(one.take_request(at(0.0))),
        refused(other.take_request(at(0.0)))
    );
    assert_eq!(limits.devices_len(), 1);
}

#[test]
fn a_full_table_forgets_full_buckets_only() {
    let limits = Limits::new(&config(2));
    let [a, b] = ["a", "b"].map(|name| limits.device(&id(name), at(0.0)).unwrap());
    a.take_request(at(0.0)).unwrap();
    b.take_bytes(at(0.0), 300).unwrap();
    assert_eq!(limits.device(&id("c"), at(0.9)).err(), Some(TableFull));
    assert!(
        limits.device(&id("a"), at(0.9)).is_ok(),
        "a known device needs no room"
    );
    let c = limits
        .device(&id("c"), at(1.0))
        .expect("a's bucket is full again");
    c.take_request(at(1.0)).unwrap();
    assert_eq!(
        a.take_request(at(1.0)),
        Err(Denied::TableFull(TableFull)),
        "both places hold spent buckets"
    );
    assert_eq!(limits.devices_len(), 2);
    a.take_request(at(3.0))
        .expect("b is full since its third second");
}

#[test]
fn a_refusal_for_want_of_room_does_not_look_at_every_bucket_again() {
    let limits = Limits::new(&config(2));
    let [a, b] = ["a", "b"].map(|name| limits.device(&id(name), at(0.0)).unwrap());
    a.take_bytes(at(0.0), 500).unwrap();
    b.take_bytes(at(0.0), 900).unwrap();
    assert!(limits.device(&id("c"), at(0.0)).is_err());
    assert_eq!(limits.devices.none_full_before(), at(5.0));
    assert!(limits.device(&id("c"), Nanos(at(5.0).0 - 1)).is_err());
    assert!(limits.device(&id("c"), at(5.0)).is_ok());
}

#[test]
fn a_newcomer_looks_at_a_part_of_a_large_table_and_the_next_one_goes_on() {
    let devices_max = 20_000;
    let limits = Limits::new(&config(devices_max));
    for number in 0..devices_max {
        let device = limits.device(&id(&number.to_string()), at(0.0)).unwrap();
        if number + 1 < devices_max {
            device.take_request(at(0.0)).unwrap();
        }
    }
    assert!(
        limits.device(&id("first"), at(0.0)).is_err(),
        "the one full bucket stands last"
    );
    assert!(limits.device(&id("second"), at(0.0)).is_ok());
}

#[test]
fn a_device_finds_its_bucket_again_after_it_was_forgotten() {
    let limits = Limits::new(&config(1));
    let [one, other] = [(); 2].map(|()| limits.device(&id("a"), at(1.0)).unwrap());
    limits
        .device(&id("b"), at(1.0))
        .expect("a is full and may be forgotten");
    assert_eq!(
        (one.take_request(at(1.0)), other.take_request(at(1.0))),
        (Ok(()), Ok(()))
    );
    refused(one.take_request(at(1.0)));
    refused(other.take_request(at(1.0)));
}

#[test]
fn eviction_grants_nothing_to_a_take_with_an_older_instant() {
    let limits = Limits::new(&LimitsConfig {
        device_requests: quota(1.0, 1),
        ..config(2)
    });
    let [a, _b] = ["a", "b"].map(|name| limits.device(&id(name), at(0.0)).unwrap());
    a.take_request(at(0.0)).unwrap();
    limits
        .device(&id("c"), at(1.0))
        .expect("a is full from its first second on");
    assert_eq!(refused(a.take_request(at(0.5))).scope, Scope::Device);
    assert_eq!(a.take_request(at(1.0)), Ok(()));
}

/// Each of them has taken a token, so that none can be forgotten.
#[test]
fn so_many_addresses_have_a_bucket_that_is_not_full() {
    let limits = Limits::new(&LimitsConfig {
        address_handshakes: quota(0.001, 1),
        ..config(1)
    });
    let addresses_max = u32::try_from(ADDRESSES_MAX).unwrap();
    let address = |number: u32| limits.address(Ipv4Addr::from(number).into(), at(0.0));
    for number in 0..addresses_max {
        let taken = address(number).unwrap().take_handshake(at(0.0));
        assert_eq!(taken, Ok(()), "{number}");
    }
    assert!(address(addresses_max).is_err());
}

#[test]
fn addresses_have_buckets_for_handshakes_and_requests_and_the_gateway_its_own() {
    let one = quota(1.0, 1);
    let spent = LimitsConfig {
        address_requests: one,
        address_handshakes: one,
        gateway_requests: one,
        ..config(9)
    };
    let limits = Limits::new(&spent);
    let address = |text: &str| limits.address(text.parse().unwrap(), at(0.0)).unwrap();
    let device = limits.device(&id("a"), at(0.0)).unwrap();
    assert_eq!(address("192.0.2.1").take_handshake(at(0.0)), Ok(()));
    assert_eq!(
        refused(address("::ffff:192.0.2.1").take_handshake(at(0.0))).scope,
        Scope::Handshake
    );
    assert_eq!(
        limits.take_request(&device, &address("2001:db8::1"), at(0.0)),
        Ok(())
    );
    let same_site = address("2001:db8::ffff:2");
    assert_eq!(
        refused(limits.take_request(&device, &same_site, at(0.0))).scope,
        Scope::Address
    );
    let other_site = address("2001:db8:0:1::1");
    assert_eq!(
        refused(limits.take_request(&device, &other_site, at(0.0))).scope,
        Scope::Device
    );
    let fresh = limits.device(&id("b"), at(0.0)).unwrap();
    assert_eq!(
        refused(limits.take_request(&fresh, &other_site, at(0.0))).scope,
        Scope::Gateway
    );
    assert_eq!(
        refused(other_site.take_request(at(0.0))).scope,
        Scope::Address,
        "asked before the gateway, it paid"
    );
}

/// Four threads ask for more than four devices may have, in a table of two, each thread on its own
/// reading of the clock.
#[test]
fn threads_that_evict_each_other_grant_no_token_twice() {
    const TURNS: usize = 5_000;
    const STEP_NS: u64 = 4 * SECOND / 1000;
    let limits = Limits::new(&LimitsConfig {
        device_requests: quota(100.0, 5),
        ..config(2)
    });
    let granted: [AtomicU64; 4] = Default::default();
    let clock = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let now = || Nanos(clock.fetch_add(STEP_NS, Ordering::Relaxed));
            let (limits, granted) = (&limits, &granted);
            scope.spawn(move || {
                take_in_turns(
                    limits,
                    (0..TURNS).map(|turn| scattered(thread, turn)),
                    now,
                    granted,
                )
            });
        }
    });
    let entitled = 5 + 100 * clock.into_inner() / SECOND;
    for granted in granted.map(AtomicU64::into_inner) {
        assert!((1..=entitled).contains(&granted), "{granted} of {entitled}");
    }
    assert_eq!(limits.devices_len(), 2);
}

/// Twenty thousand devices and places for a thousand: each takes whatever it can get, coming back
/// in another order every time.
#[test]
fn a_fleet_that_is_too_large_gains_nothing_by_eviction() {
    const DEVICES: usize = 20_000;
    const ROUNDS: usize = 20;
    const ROUND_SECONDS: f64 = 4.0;
    let limits = Limits::new(&LimitsConfig {
        device_requests: quota(0.5, 3),
        ..config(1000)
    });
    let ids: Vec<_> = (0..DEVICES)
        .map(|number| id(&format!("meter-{number}")))
        .collect();
    let mut granted = vec![0; DEVICES];
    let mut evictions = 0;
    for turn in 0..ROUNDS * DEVICES {
        let now = at(ROUND_SECONDS * turn as f64 / DEVICES as f64);
        // A step that shares no factor with the number of devices visits each of them once a round.
        let which = turn * (7919 + 2 * (turn / DEVICES)) % DEVICES;
        let Ok(device) = limits.device(&ids[which], now) else {
            continue;
        };
        evictions += usize::from(turn > 1000);
        granted[which] += (0..8).filter(|_| device.take_request(now).is_ok()).count();
        assert!(limits.devices_len() <= 1000);
    }
    let entitled = 3 + (0.5 * ROUND_SECONDS) as usize * ROUNDS;
    assert!(
        evictions > DEVICES / 4,
        "the table was too full to tell: {evictions}"
    );
    assert!(
        granted.iter().all(|granted| *granted <= entitled),
        "{:?} of {entitled}",
        granted.iter().max()
    );
}

/// A device of four, irregular enough that each is silent now and then for as long as its bucket
/// takes to refill.
fn scattered(thread: usize, turn: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (thread, turn).hash(&mut hasher);
    (hasher.finish() % 4) as usize
}

/// Takes eight requests for each device in `turns`, at one instant.
fn take_in_turns(
    limits: &Limits,
    turns: impl Iterator<Item = usize>,
    now: impl Fn() -> Nanos,
    granted: &[AtomicU64; 4],
) {
    let mut devices = ["a", "b", "c", "d"].map(|name| (id(name), None::<DeviceLimits>));
    for which in turns {
        let ((name, handle), now) = (&mut devices[which], now());
        *handle = handle.take().or_else(|| limits.device(name, now).ok());
        let passed = (0..8).filter(|_| {
            handle
                .as_ref()
                .is_some_and(|handle| handle.take_request(now).is_ok())
        });
        granted[which].fetch_add(passed.count() as u64, Ordering::Relaxed);
    }
}

#[test]
fn limits_are_shared_by_workers() {
    fn shared<T: Send + Sync>() {}
    shared::<Limits>();
}

/// The records of a request beyond the first are paid for all at once, or not at all; whoever is
/// refused comes back when the request can pay for its head again, too.
#[test]
fn further_records_are_paid_for_together() {
    let limits = Limits::new(&LimitsConfig {
        device_requests: quota(10.0, 20),
        ..config(10)
    });
    let device = limits.device(&id("meter-1"), Nanos(0)).unwrap();
    device.take_request(Nanos(0)).unwrap();
    device.take_further(Nanos(0), 14).unwrap();
    // Five are left of twenty.
    device.take_request(Nanos(0)).unwrap();
    let Err(Denied::Refused(refused)) = device.take_further(Nanos(0), 9) else {
        panic!("four are left");
    };
    assert_eq!(
        (refused.scope, refused.shortfall.remaining),
        (Scope::Device, 4)
    );
    // Ten are needed, four are there, and one comes in 100 ms.
    let wait = refused.retry_after().as_millis();
    assert!((599..=601).contains(&wait), "{wait}");
    let later = Nanos(refused.retry_after().as_nanos() as u64);
    device.take_request(later).unwrap();
    device.take_further(later, 9).unwrap();
}

#[test]
fn refusals_are_noticed_once_a_minute_and_none_is_forgotten() {
    let limits = Limits::new(&config(10));
    let [one, same] = [(); 2].map(|()| limits.device(&id("plc-7"), at(0.0)).unwrap());
    let other = limits.device(&id("plc-8"), at(0.0)).unwrap();
    assert_eq!(one.note_refusal(at(5.0)), Some(1), "the first one");
    for second in 0..60 {
        let connection = [&one, &same][second % 2];
        assert_eq!(connection.note_refusal(at(5.0 + second as f64)), None);
    }
    assert_eq!(other.note_refusal(at(6.0)), Some(1));
    assert_eq!(same.note_refusal(at(65.0)), Some(61));
    assert_eq!(one.note_refusal(at(65.5)), None);
    assert_eq!(one.note_refusal(at(10_000.0)), Some(2));
}
