//! The cost of limits: a take, a refusal, a lookup, a million devices; and of learning who a device
//! is.
//!
//! Prints the memory that a device takes, everything included, and fails above 128 bytes.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::internals::config::{IdSource, LimitsConfig, Quota};
use forebay::internals::identity::Identity;
use forebay::internals::limits::{Bucket, Rule};
use forebay::internals::limits::{Clock, DeviceLimits, Limits, Nanos, TableFull};
use forebay::internals::record::DeviceId;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

const DEVICES: usize = 1_000_000;
const BYTES_PER_DEVICE_MAX: u64 = 128;
const NOW: Nanos = Nanos(1);
/// A bucket that a bench does not drain.
const WIDE: Quota = Quota {
    rate: 1e9,
    burst: 1 << 40,
};
const NARROW: Quota = Quota {
    rate: 1e-6,
    burst: 1,
};
const OFF: Quota = Quota {
    rate: 0.0,
    burst: 0,
};

fn limits(device_requests: Quota, devices_max: usize) -> Limits {
    Limits::new(&LimitsConfig {
        device_requests,
        device_bytes: WIDE,
        device_classes: Vec::new(),
        address_requests: OFF,
        address_handshakes: OFF,
        gateway_requests: WIDE,
        devices_max,
    })
}

fn device_id(number: usize) -> DeviceId {
    DeviceId::parse(&format!("spiffe://plant.example/device-{number:07}")).expect("an id")
}

fn bucket(criterion: &mut Criterion) {
    let clock = Clock::new();
    let mut group = criterion.benchmark_group("bucket");
    let (wide, bucket) = (Rule::new(WIDE), Bucket::full_from(Nanos(0)));
    group.bench_function("take", |bench| {
        bench.iter(|| bucket.take(&wide, black_box(1), NOW))
    });
    group.bench_function("take and read the clock", |bench| {
        bench.iter(|| bucket.take(&wide, 1, clock.now()))
    });
    let (narrow, empty) = (Rule::new(NARROW), Bucket::full_from(Nanos(0)));
    let _ = empty.take(&narrow, 1, NOW);
    group.bench_function("refuse", |bench| {
        bench.iter(|| empty.take(&narrow, black_box(1), NOW))
    });
    group.finish();
}

/// A second thread takes from the same bucket all the while, as on the gateway's own bucket.
fn contended(criterion: &mut Criterion) {
    let limits = limits(WIDE, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = limits.take_gateway(NOW);
            }
        });
        criterion.bench_function("gateway bucket, two threads", |bench| {
            bench.iter(|| limits.take_gateway(NOW))
        });
        done.store(true, Ordering::Relaxed);
    });
}

/// Resident memory of this process, in bytes (proc(5), statm, pages of 4 KiB).
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}

fn fill(limits: &Limits) {
    for number in 0..DEVICES {
        let device = limits
            .device(&device_id(number), NOW)
            .expect("there is room");
        let _ = device.take_request(NOW);
    }
}

fn million_devices(criterion: &mut Criterion) {
    let before = resident_bytes();
    let limits = limits(
        Quota {
            rate: 1e-3,
            burst: 1 << 40,
        },
        DEVICES,
    );
    fill(&limits);
    let per_device = (resident_bytes() - before) / DEVICES as u64;
    println!(
        "memory: {per_device} bytes a device at {} devices",
        limits.devices_len()
    );
    assert!(per_device <= BYTES_PER_DEVICE_MAX);

    let mut group = criterion.benchmark_group("1,000,000 devices");
    let handles: Vec<DeviceLimits> = (0..DEVICES)
        .map(|number| limits.device(&device_id(number), NOW).expect("known"))
        .collect();
    let mut random = random_indices();
    group.bench_function("take through a random handle", |bench| {
        bench.iter(|| handles[random.next().expect("endless")].take_request(NOW))
    });
    let ids: Vec<DeviceId> = (0..DEVICES).map(device_id).collect();
    group.bench_function("look a random device up", |bench| {
        bench.iter(|| {
            limits
                .device(&ids[random.next().expect("endless")], NOW)
                .map(drop)
        })
    });
    let newcomer = device_id(DEVICES);
    group.bench_function("refuse a device for want of room", |bench| {
        bench.iter(|| assert_eq!(limits.device(&newcomer, NOW).err(), Some(TableFull)))
    });
    group.finish();
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
fn random_indices() -> impl Iterator<Item = usize> {
    let mut state = 0_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as usize % DEVICES
    })
}

fn identity(criterion: &mut Criterion) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "plc-7");
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://plant.example/plc-7".try_into().expect("ASCII"),
    )];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let identity = Identity::new(vec![IdSource::SanUri, IdSource::SanDns, IdSource::Cn]);
    criterion.bench_function("identity of a certificate", |bench| {
        bench.iter(|| identity.device(certificate.der()).expect("a device"))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = million_devices, bucket, contended, identity
}
criterion_main!(benches);
