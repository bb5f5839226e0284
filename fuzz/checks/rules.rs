//! Any bytes in the place of a record whose stream has rules.

use std::fs;
use std::sync::LazyLock;

use bytes::Bytes;
use forebay::internals::record::DeviceId;
use forebay::internals::rules::{Fault, Rules, Verdict};

const BYTES_MAX: usize = 1 << 20;

const SCHEMA: &str = r##"{
    "type": ["object", "array", "string", "number"],
    "properties": {
        "a": {"type": "integer", "multipleOf": 3},
        "b": {"enum": [1, "x", null, {"a": 1.0}]},
        "c": {"$ref": "#"},
        "d": {"pattern": "^(?=.*x)[a-z]*$", "maxLength": 9}
    },
    "patternProperties": {"^e": {"uniqueItems": true}},
    "propertyNames": {"maxLength": 20},
    "items": {"maximum": 1e300}
}"##;

const EDITS: &str = r#"
[[edit]]
op = "remove"
path = "/a"
[[edit]]
op = "move"
from = "/b"
path = "/c/b"
[[edit]]
op = "copy"
from = "/c"
path = "/d/-"
[[edit]]
op = "add"
path = "/e/0"
value = [1, 2.5, {}]
[[edit]]
op = "replace"
path = "/f"
value = "x"
[[edit]]
op = "hmac"
path = "/g"
key_file = "key"
"#;

/// Rules that only look, rules that add the device, and rules that do everything.
static RULES: LazyLock<[Rules; 3]> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("forebay-rules-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("schema.json"), SCHEMA).expect("a file");
    fs::write(folder.join("key"), "0f".repeat(32)).expect("a file");
    let file = folder.join("rules.toml");
    let everything =
        format!("schema = 'schema.json'\non_violation = 'tag'\ndevice_field = '/device'\n{EDITS}");
    let rules = ["", "device_field = '/device'", &everything].map(|text| {
        fs::write(&file, text).expect("a file");
        Rules::read(&file).expect("the rules are good")
    });
    fs::remove_dir_all(&folder).expect("the folder is there");
    rules
});

static DEVICE: LazyLock<DeviceId> = LazyLock::new(|| DeviceId::parse("press-7").expect("an id"));

fn judge(rules: &Rules, record: impl Into<Bytes>) -> Result<Verdict, Fault> {
    rules.judge(record.into(), &DEVICE, BYTES_MAX)
}

/// What is taken is JSON also to others, and goes on as it came unless a rule says otherwise; what is written anew passes as it
/// is, and is written so again.
pub fn check(data: &[u8]) {
    let [look, own, everything] = &*RULES;
    let record = Bytes::copy_from_slice(data);
    match judge(look, record.clone()) {
        Ok(verdict) => assert_eq!((verdict.payload, verdict.violation), (record.clone(), None)),
        Err(fault) => {
            assert_eq!(fault, Fault::NotJson);
            assert_eq!(judge(own, record.clone()), Err(Fault::NotJson));
            return assert_eq!(judge(everything, record), Err(Fault::NotJson));
        }
    }
    if let Ok(verdict) = judge(own, record.clone()) {
        let again = judge(own, verdict.payload.clone());
        assert_eq!(again, Ok(verdict), "the device is there now");
    }
    match judge(everything, record) {
        Ok(verdict) => assert!(judge(look, verdict.payload).is_ok(), "it is JSON still"),
        Err(fault) => assert!(matches!(
            fault,
            Fault::DeviceMismatch | Fault::RecordTooLarge
        )),
    }
}
