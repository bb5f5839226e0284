//! The cost of a stream's rules for a reading of 344 bytes: a schema of ten fields, the device's
//! field, one removal; each alone and all of them.

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::internals::record::DeviceId;
use forebay::internals::rules::Rules;

const READING: &str = r#"{"device":"urn:plant:press-7","seq":184467,"at":"2026-11-23T14:29:17.144Z","temperature":21.50,"pressure":101325.25,"humidity":0.4375,"vibration":[0.013,0.027,0.019],"state":"running","firmware":"2.14.3","site":{"line":4,"cell":"b-12","operator":"night"},"note":"a text of a length that readings have, with an \u00fc and no more than that"}"#;

const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["device", "seq", "at", "temperature"],
    "properties": {
        "device": {"type": "string", "maxLength": 128},
        "seq": {"type": "integer", "minimum": 0},
        "at": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T"},
        "temperature": {"type": "number", "minimum": -80, "maximum": 400},
        "pressure": {"type": "number", "exclusiveMinimum": 0},
        "humidity": {"type": "number", "minimum": 0, "maximum": 1},
        "vibration": {"type": "array", "items": {"type": "number"}, "maxItems": 16},
        "state": {"enum": ["running", "idle", "down"]},
        "firmware": {"type": "string", "minLength": 1},
        "site": {"type": "object", "required": ["line"], "properties": {"line": {"type": "integer"}}}
    }
}"#;

const WITH_SCHEMA: &str = "schema = 'schema.json'\n";
const WITH_DEVICE: &str = "device_field = '/device'\n";
const WITH_REMOVAL: &str = "[[edit]]\nop = 'remove'\npath = '/site/operator'\n";

fn rules(text: &str) -> Rules {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    fs::write(folder.path().join("schema.json"), SCHEMA).expect("a file");
    fs::write(&file, text).expect("a file");
    Rules::read(&file).expect("the rules are good")
}

fn judge(criterion: &mut Criterion) {
    let device = DeviceId::parse("urn:plant:press-7").expect("an id");
    let reading = Bytes::from_static(READING.as_bytes());
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(1));
    let all = [WITH_SCHEMA, WITH_DEVICE, WITH_REMOVAL].concat();
    for (name, text) in [
        ("JSON alone", ""),
        ("device field", WITH_DEVICE),
        ("removal", WITH_REMOVAL),
        ("schema", WITH_SCHEMA),
        ("all", &all),
    ] {
        let rules = rules(text);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let verdict = rules.judge(black_box(reading.clone()), &device, 256 << 10);
                verdict.expect("it passes")
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = judge
}
criterion_main!(benches);
