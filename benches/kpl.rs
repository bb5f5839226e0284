//! The cost of KPL aggregation for a reading: the encoding, most of which is the MD5 at the format's
//! end.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::internals::sink::{UserRecord, encode};

/// Readings that fit into an aggregate of 50 KiB.
const RECORDS: usize = 119;
const PAYLOAD: [u8; 344] = [b'x'; 344];
const RECORD_ID: &str = "0192d3c4-7a3f-7c11-b2a1-3e5d6f708192";

fn encoding(criterion: &mut Criterion) {
    let devices: Vec<String> = (0..RECORDS)
        .map(|number| format!("urn:dev:meter-{number:07}"))
        .collect();
    let record = |device| UserRecord {
        partition_key: device,
        id: RECORD_ID,
        data: &PAYLOAD,
    };
    let records: Vec<_> = devices.iter().map(|device| record(device)).collect();
    let mut group = criterion.benchmark_group("kpl");
    for (name, records) in [
        ("encode one reading", &records[..1]),
        ("encode a full aggregate", &records),
    ] {
        group.throughput(Throughput::Elements(records.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| encode(u128::MAX, black_box(records)))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = encoding
}
criterion_main!(benches);
