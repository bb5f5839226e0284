//! Records judged by rules as they stand in files.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::schema::BACKTRACKS_MAX;
use super::*;

const BYTES_MAX: usize = 1024;

/// Rules in a folder of their own, with these files beside them.
fn rules_with(text: &str, files: &[(&str, &str)]) -> Rules {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let file = folder.path().join("rules.toml");
    fs::write(&file, text).unwrap();
    Rules::read(&file).unwrap()
}

fn with_schema(schema: &str) -> Rules {
    rules_with("schema = 's.json'", &[("s.json", schema)])
}

fn judged(rules: &Rules, record: &str) -> Result<Verdict, Fault> {
    let device = DeviceId::parse("press-7").unwrap();
    rules.judge(record.to_owned().into(), &device, BYTES_MAX)
}

fn passed(rules: &Rules, record: &str) -> String {
    let verdict = judged(rules, record).unwrap();
    assert_eq!(verdict.violation, None);
    String::from_utf8(verdict.payload.to_vec()).unwrap()
}

fn place(rules: &Rules, record: &str) -> String {
    match judged(rules, record) {
        Err(Fault::SchemaViolation(place)) => place.to_string(),
        other => panic!("{record}: {other:?}"),
    }
}

#[test]
fn a_record_that_nothing_changes_goes_on_byte_for_byte() {
    let rules = rules_with("device_field = '/device'", &[]);
    let record = " { \"device\" : \"press-7\", \"t\": 1.50 }\n";
    assert_eq!(passed(&rules, record), record);
    let escaped = r#"{"devi\u0063e":"press\u002d7"}"#;
    assert_eq!(passed(&rules, escaped), escaped);
    assert_eq!(passed(&rules_with("", &[]), "[1, 2]"), "[1, 2]");
    assert_eq!(judged(&rules_with("", &[]), "hello"), Err(Fault::NotJson));
}

#[test]
fn the_device_is_checked_or_added_as_the_last_member() {
    let rules = rules_with("device_field = '/meta/device'", &[]);
    assert_eq!(
        passed(&rules, r#"{"meta": {"z": 1, "a": 2}, "t": 1.50}"#),
        r#"{"meta":{"z":1,"a":2,"device":"press-7"},"t":1.50}"#
    );
    for record in [
        r#"{"meta":{"device":"press-8"}}"#,
        r#"{"meta":{"device":7}}"#,
        r#"{"meta":{"device":null}}"#,
        r#"{"meta":{"device":["press-7"]}}"#,
        r#"{"meta":[]}"#,
        r#"{"meta":null}"#,
        r#"{"t":1}"#,
        "[]",
        "7",
    ] {
        assert_eq!(
            judged(&rules, record),
            Err(Fault::DeviceMismatch),
            "{record}"
        );
    }
}

#[test]
fn the_device_is_there_before_the_schema_and_not_json_before_the_device() {
    let schema = r#"{"required": ["device"], "additionalProperties": false, "properties": {"device": {"const": "press-7"}}}"#;
    let rules = rules_with(
        "schema = 's.json'\ndevice_field = '/device'",
        &[("s.json", schema)],
    );
    assert_eq!(passed(&rules, "{}"), r#"{"device":"press-7"}"#);
    assert_eq!(
        judged(&rules, r#"{"device":"other","more":1}"#),
        Err(Fault::DeviceMismatch)
    );
    assert_eq!(
        judged(&rules, r#"{"device":"other","device":"press-7"}"#),
        Err(Fault::NotJson)
    );
}

#[test]
fn a_violation_is_told_by_its_place_in_the_schema() {
    let schema = r##"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["temp"],
        "properties": {
            "temp": {"type": "number", "maximum": 100},
            "unit": {"enum": ["C", "F"]},
            "site": {"$ref": "#/$defs/site"},
            "tags": {"uniqueItems": true, "items": {"type": "string"}}
        },
        "additionalProperties": {"type": "integer"},
        "$defs": {"site": {"type": "string", "minLength": 2}}
    }"##;
    let rules = with_schema(schema);
    let huge = format!(r#"{{"temp":-{}}}"#, "9".repeat(400));
    assert_eq!(passed(&rules, &huge), huge);
    for (record, at) in [
        ("7", "/type"),
        ("{}", "/required"),
        (r#"{"temp":"hot"}"#, "/properties/temp/type"),
        (r#"{"temp":1e400}"#, "/properties/temp/maximum"),
        (r#"{"temp":1,"unit":"K"}"#, "/properties/unit/enum"),
        (r#"{"temp":1,"unit":7}"#, "/properties/unit/enum"),
        (
            r#"{"temp":1,"site":"x"}"#,
            "/properties/site/$ref/minLength",
        ),
        (
            r#"{"temp":1,"tags":["a","b","a"]}"#,
            "/properties/tags/uniqueItems",
        ),
        (
            r#"{"temp":1,"tags":["a",7]}"#,
            "/properties/tags/items/type",
        ),
        (
            r#"{"temp":1,"secret name":"x"}"#,
            "/additionalProperties/type",
        ),
    ] {
        assert_eq!(place(&rules, record), at, "{record}");
    }
    for record in [
        r#"{"temp":1,"more":1.0}"#,
        r#"{"temp":1,"unit":"C","site":"öx"}"#,
    ] {
        assert_eq!(passed(&rules, record), record);
    }
}

#[test]
fn older_drafts_go_by_their_own_words() {
    let schema = |draft: &str| {
        format!(
            r#"{{"$schema":"http://json-schema.org/{draft}/schema#","items":[{{"type":"integer"}}]}}"#
        )
    };
    for draft in ["draft-04", "draft-06", "draft-07"] {
        let rules = with_schema(&schema(draft));
        assert_eq!(place(&rules, r#"["x"]"#), "/items/0/type", "{draft}");
        assert_eq!(passed(&rules, "[1,\"x\"]"), "[1,\"x\"]");
    }
    let rules = with_schema(&schema("draft-04"));
    assert_eq!(
        place(&rules, "[1.0]"),
        "/items/0/type",
        "to draft 4, 1.0 is no integer"
    );
}

#[test]
fn a_schema_refers_to_files_of_its_folder() {
    let files = [
        (
            "schemas/s.json",
            r#"{"properties": {"a": {"$ref": "common/base.json#/$defs/a"}, "b": {"$ref": "b%20c.json"}}}"#,
        ),
        (
            "schemas/common/base.json",
            r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}}"##,
        ),
        ("schemas/b c.json", r#"{"type": "null"}"#),
    ];
    let rules = rules_with("schema = 'schemas/s.json'", &files);
    assert_eq!(place(&rules, r#"{"a":1}"#), "/properties/a/$ref/$ref/type");
    assert_eq!(place(&rules, r#"{"b":1}"#), "/properties/b/$ref/type");
}

#[test]
fn a_schema_that_names_itself_finds_its_neighbours() {
    let files = [
        (
            "s.json",
            r#"{"$id": "https://example.com/v1/s.json", "$ref": "other.json"}"#,
        ),
        (
            "other.json",
            r#"{"$id": "https://example.com/v1/other.json", "type": "string"}"#,
        ),
    ];
    let rules = rules_with("schema = 's.json'", &files);
    assert_eq!(place(&rules, "1"), "/$ref/type");
}

#[test]
fn a_tagged_record_passes_and_is_edited_all_the_same() {
    let rules = rules_with(
        "schema = 's.json'\non_violation = 'tag'\n[[edit]]\nop = 'remove'\npath = '/ssn'",
        &[("s.json", r#"{"properties": {"ssn": {"type": "string"}}}"#)],
    );
    let verdict = judged(&rules, r#"{ "ssn": 7, "t": 1 }"#).unwrap();
    assert_eq!(verdict.violation.as_deref(), Some("/properties/ssn/type"));
    assert_eq!(verdict.payload, r#"{"t":1}"#);
    assert_eq!(
        passed(&rules, r#"{ "t": 1 }"#),
        r#"{"t":1}"#,
        "anew, although nothing is there"
    );
    assert_eq!(judged(&rules, "x"), Err(Fault::NotJson));
}

#[test]
fn an_edit_does_not_make_a_record_longer_than_one_may_be() {
    let rules = rules_with("device_field = '/d'", &[]);
    let fits = |length: usize| {
        let text = "x".repeat(length - r#"{"t":"","d":"press-7"}"#.len());
        judged(&rules, &format!(r#"{{"t":"{text}"}}"#))
    };
    assert_eq!(fits(BYTES_MAX).unwrap().payload.len(), BYTES_MAX);
    assert_eq!(fits(BYTES_MAX + 1), Err(Fault::RecordTooLarge));
}

#[test]
fn a_pattern_that_backtracks_gives_up() {
    // Each letter that nothing stands before is a step back.
    let rules = with_schema(r#"{"pattern": "(?<=ab)c"}"#);
    let text = |letters: usize| format!("\"{}abc\"", "c".repeat(letters));
    assert_eq!(passed(&rules, &text(3)), text(3));
    assert_eq!(place(&rules, &text(2 * BACKTRACKS_MAX)), "/pattern");
}

#[test]
fn a_location_is_cut_where_it_has_no_end() {
    let schema = r##"{"type": "object", "properties": {"a-name-of-a-property": {"$ref": "#"}}}"##;
    let record = r#"{"a-name-of-a-property":"#.repeat(40) + "1" + &"}".repeat(40);
    let rules = with_schema(schema);
    let place = place(&rules, &record);
    assert!(place.starts_with("/properties/a-name-of-a-property/$ref/properties/"));
    assert_eq!(place.len(), 1024);
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(record in prop::collection::vec(any::<u8>(), 0..60)) {
        let rules = rules_with("device_field = '/device'", &[]);
        let device = DeviceId::parse("press-7").unwrap();
        if let Ok(verdict) = rules.judge(record.into(), &device, BYTES_MAX) {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&verdict.payload).is_ok());
        }
    }
}
