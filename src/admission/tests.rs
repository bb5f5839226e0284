//! The memory budget and its shares, step by step and by any history of permits.

use proptest::prelude::*;

use super::budget::SHARE;
use super::*;
use crate::lifecycle::Lifecycle;

const BODY_BYTES_MAX: usize = 4 * 1024;
const STREAM: StreamIndex = StreamIndex(0);

fn admission(bytes_max: usize) -> Admission {
    Admission::new(
        bytes_max,
        BODY_BYTES_MAX,
        Arc::new(Health::up(1)),
        Phases::serving(),
    )
}

/// A permit for a payload that has come whole.
fn whole(
    admission: &Admission,
    device: &DeviceMemory,
    payload_bytes: usize,
) -> Result<Permit, Shed> {
    let mut permit = admission.reserve(STREAM, device, Some(payload_bytes))?;
    admission.grow(&mut permit, payload_bytes)?;
    Ok(permit)
}

#[test]
fn the_budget_holds_and_a_dropped_permit_comes_back() {
    let admission = admission(BODY_BYTES_MAX + 3 * RECORD_OVERHEAD_BYTES);
    let [one, other] = [DeviceMemory::default(), DeviceMemory::default()];
    let mut large = whole(&admission, &one, BODY_BYTES_MAX).unwrap();
    assert_eq!(
        whole(&admission, &other, RECORD_OVERHEAD_BYTES + 1).unwrap_err(),
        Shed::MemoryBudget
    );
    let small = whole(&admission, &other, RECORD_OVERHEAD_BYTES).unwrap();
    assert_eq!(other.held_bytes(), 2 * RECORD_OVERHEAD_BYTES);
    drop(small);
    large.shrink_to(RECORD_OVERHEAD_BYTES);
    assert_eq!(admission.reserved_bytes(), RECORD_OVERHEAD_BYTES);
    drop(large);
    assert_eq!(admission.reserved_bytes(), 0);
    assert_eq!((one.held_bytes(), other.held_bytes()), (0, 0));
}

/// Whatever was declared: what counts is what has come.
#[test]
fn a_head_alone_costs_next_to_nothing() {
    let admission = admission(1 << 20);
    let device = DeviceMemory::default();
    let undeclared = admission.reserve(STREAM, &device, None).unwrap();
    assert_eq!(undeclared.bytes(), RECORD_OVERHEAD_BYTES);
    let declared = admission
        .reserve(STREAM, &device, Some(BODY_BYTES_MAX))
        .unwrap();
    assert_eq!(
        declared.bytes(),
        RECORD_OVERHEAD_BYTES + DECLARED_BYTES_AT_ONCE_MAX
    );
}

/// A body that cannot come in is refused before it is sent.
#[test]
fn what_is_declared_must_have_room() {
    let admission = admission(2 * BODY_BYTES_MAX);
    let [one, other] = [DeviceMemory::default(), DeviceMemory::default()];
    let _half = whole(&admission, &one, BODY_BYTES_MAX).unwrap();
    let before = admission.reserved_bytes();
    assert_eq!(
        admission
            .reserve(STREAM, &other, Some(BODY_BYTES_MAX))
            .unwrap_err(),
        Shed::MemoryBudget
    );
    assert_eq!(admission.reserved_bytes(), before);
}

#[test]
fn a_device_holds_an_eighth_at_most_and_the_next_one_finds_room() {
    const BYTES_MAX: usize = 1 << 20;
    let admission = admission(BYTES_MAX);
    let mut permits = Vec::new();
    for _ in 0..20 {
        let left = BYTES_MAX - admission.reserved_bytes();
        let device = DeviceMemory::default();
        let refusal = loop {
            match whole(&admission, &device, BODY_BYTES_MAX) {
                Ok(permit) => permits.push(permit),
                Err(refusal) => break refusal,
            }
        };
        assert!((1..=left / SHARE).contains(&device.held_bytes()));
        assert_eq!(refusal, Shed::DeviceShare, "there is room for others");
    }
    assert!(admission.reserved_bytes() < BYTES_MAX - BYTES_MAX / 16);
}

#[test]
fn a_sink_that_is_away_and_a_gateway_in_a_hurry_shed() {
    let (health, lifecycle) = (Arc::new(Health::up(1)), Lifecycle::new());
    let phases = lifecycle.phases();
    let admission = Admission::new(1 << 20, BODY_BYTES_MAX, health.clone(), phases);
    let device = DeviceMemory::default();
    health.set_down(STREAM, "gone".into());
    assert_eq!(
        admission.reserve(STREAM, &device, None).unwrap_err(),
        Shed::SinkAway
    );
    health.set_up(STREAM, None);
    lifecycle.advance(Phase::Draining);
    assert!(admission.reserve(STREAM, &device, None).is_ok());
    lifecycle.advance(Phase::Hurrying);
    assert_eq!(
        admission.reserve(STREAM, &device, None).unwrap_err(),
        Shed::Draining
    );
}

/// A step of a device that touches the budget.
#[derive(Clone, Debug)]
enum Step {
    /// A head of this device, with what it declares.
    Begin(usize, Option<usize>),
    /// One of the permits is to hold so much.
    Grow(usize, usize),
    Shrink(usize, usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = 0..=BODY_BYTES_MAX;
    prop_oneof![
        (0..3_usize, prop::option::of(bytes.clone()))
            .prop_map(|(device, declared)| Step::Begin(device, declared)),
        (any::<usize>(), bytes.clone()).prop_map(|(permit, bytes)| Step::Grow(permit, bytes)),
        (any::<usize>(), bytes).prop_map(|(permit, bytes)| Step::Shrink(permit, bytes)),
        any::<usize>().prop_map(Step::End),
    ]
}

proptest! {
    /// After each step the counts are the sums of the permits, and no bound is exceeded by a
    /// growth.
    #[test]
    fn counts_are_sums_and_bounds_hold(
        bytes_max in BODY_BYTES_MAX + RECORD_OVERHEAD_BYTES..10 * BODY_BYTES_MAX,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let admission = admission(bytes_max);
        let devices = [(); 3].map(|()| DeviceMemory::default());
        let mut permits: Vec<(usize, Permit)> = Vec::new();
        for step in steps {
            let grown = match step {
                Step::Begin(device, declared) => match admission.reserve(STREAM, &devices[device], declared) {
                    Ok(permit) => {
                        permits.push((device, permit));
                        Some(device)
                    }
                    Err(_) => None,
                },
                Step::Grow(permit, bytes) if !permits.is_empty() => {
                    let index = permit % permits.len();
                    let (device, permit) = &mut permits[index];
                    let before = permit.bytes();
                    let grown = admission.grow(permit, bytes);
                    prop_assert!(grown.is_ok() || permit.bytes() == before, "a refusal changes nothing");
                    (grown.is_ok() && permit.bytes() > before).then_some(*device)
                }
                Step::Shrink(permit, bytes) if !permits.is_empty() => {
                    let index = permit % permits.len();
                    permits[index].1.shrink_to(bytes);
                    None
                }
                Step::End(permit) if !permits.is_empty() => {
                    permits.swap_remove(permit % permits.len());
                    None
                }
                _ => None,
            };
            let held = |device| permits.iter().filter(|permit| permit.0 == device).map(|permit| permit.1.bytes()).sum::<usize>();
            let in_all = permits.iter().map(|permit| permit.1.bytes()).sum::<usize>();
            prop_assert_eq!(admission.reserved_bytes(), in_all);
            prop_assert!(in_all <= bytes_max);
            for (index, device) in devices.iter().enumerate() {
                prop_assert_eq!(device.held_bytes(), held(index));
            }
            if let Some(device) = grown {
                let left = bytes_max - (in_all - held(device));
                let share = (left / SHARE).max(BODY_BYTES_MAX + RECORD_OVERHEAD_BYTES);
                prop_assert!(held(device) <= share);
            }
        }
        drop(permits);
        prop_assert_eq!(admission.reserved_bytes(), 0);
    }
}
