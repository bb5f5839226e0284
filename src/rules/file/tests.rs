//! Rules files, good and faulty.

use std::fs;

use tempfile::TempDir;

use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("good.json", r#"{"type": "object"}"#);
    file("broken.json", "{\"type\":\n 7,}");
    file(
        "invalid.json",
        r#"{"properties": {"temp": {"type": "nmuber"}}}"#,
    );
    file("unknown.json", r#"{"$schema": "https://example.com/mine"}"#);
    file("outside.json", r#"{"$ref": "../other.json"}"#);
    file("hidden.json", r#"{"$ref": "..%2fother.json"}"#);
    file(
        "network.json",
        r#"{"$ref": "https://example.com/other.json"}"#,
    );
    file("missing.json", r#"{"$ref": "nowhere.json"}"#);
    file("far.json", r#"{"$ref": "unknown.json"}"#);
    file("hmac.key", KEY);
    file("short.key", &KEY[1..]);
    folder
}

fn read_in(folder: &TempDir, text: &str, headers: SinkHeaders) -> Result<Rules, RulesError> {
    let file = folder.path().join("rules.toml");
    fs::write(&file, text).unwrap();
    read(&file, &Arc::default(), headers)
}

#[test]
fn a_file_may_say_everything_or_nothing() {
    let folder = folder();
    let all = r##"
        schema = "good.json"
        on_violation = "tag"
        device_field = "/device"
        [[edit]]
        op = "remove"
        path = "/patient/ssn"
        [[edit]]
        op = "add"
        path = "/site"
        value = { name = "a", at = [1, 2.5, 0x10, true] }
        [[edit]]
        op = "replace"
        path = ""
        value = "x"
        [[edit]]
        op = "move"
        from = "/a"
        path = "/b"
        [[edit]]
        op = "copy"
        from = "/b"
        path = "/c"
        [[edit]]
        op = "hmac"
        path = "/patient/id"
        key_file = "hmac.key"
    "##;
    let rules = read_in(&folder, all, SinkHeaders::Kept).unwrap();
    assert_eq!(rules.edits.len(), 6);
    let Edit::Add { value, .. } = &rules.edits[1] else {
        panic!("{:?}", rules.edits)
    };
    let mut json = Vec::new();
    value.write(&mut json);
    assert_eq!(
        json, br#"{"name":"a","at":[1,2.5,16,true]}"#,
        "in the order of the file"
    );
    assert!(!format!("{rules:?}").contains("0001"), "a key is not shown");
    assert!(read_in(&folder, "", SinkHeaders::Dropped).is_ok());
}

#[test]
fn a_fault_names_file_line_and_key() {
    let folder = folder();
    let edit = |rest: &str| format!("# rules\n[[edit]]\n{rest}");
    for (text, line, says) in [
        (
            "schema = 'good.json'\nschema = 'good.json'",
            2,
            "duplicate key",
        ),
        ("schema = ", 1, ""),
        (
            "\n\nshcema = 'good.json'",
            3,
            "shcema: is no key here: there are schema, on_violation",
        ),
        ("schema = 7", 1, "schema: is no text in quotes"),
        ("schema = 'none.json'", 1, "schema: "),
        ("schema = 'broken.json'", 1, "broken.json: "),
        (
            "schema = 'invalid.json'",
            1,
            "invalid.json: at /properties/temp/type: ",
        ),
        ("schema = 'unknown.json'", 1, "unknown.json: at /$schema: "),
        (
            "schema = 'outside.json'",
            1,
            "files of the schema's folder only",
        ),
        (
            "schema = 'hidden.json'",
            1,
            "files of the schema's folder only",
        ),
        (
            "schema = 'network.json'",
            1,
            "files of the schema's folder only",
        ),
        ("schema = 'missing.json'", 1, "nowhere.json: No such file"),
        ("schema = 'far.json'", 1, "unknown.json: at /$schema: "),
        (
            "\non_violation = 'drop'",
            2,
            "on_violation: is neither \"reject\" nor \"tag\"",
        ),
        (
            "device_field = 'device'",
            1,
            "device_field: is no JSON Pointer",
        ),
        ("device_field = ''", 1, "device_field: is the whole record"),
        ("edit = 7", 1, "edit: is written as [[edit]]"),
        ("edit = [7]", 1, "edit: is written as [[edit]]"),
        (&edit("path = '/a'"), 2, "edit.op: is not there"),
        (
            &edit("op = 'test'\npath = '/a'"),
            3,
            "edit.op: is none of \"add\"",
        ),
        (&edit("op = 'remove'"), 2, "edit.path: is not there"),
        (
            &edit("op = 'remove'\npath = ''"),
            4,
            "edit.path: is the whole record",
        ),
        (
            &edit("op = 'remove'\npath = '/a'\nvalue = 1"),
            5,
            "edit.value: is no key here: there are op, path",
        ),
        (
            &edit("op = 'add'\npath = '/a'"),
            2,
            "edit.value: is not there",
        ),
        (
            &edit("op = 'add'\npath = '/a'\nvalue = inf"),
            5,
            "edit.value: has a date, an infinity",
        ),
        (
            &edit("op = 'add'\npath = '/a'\nvalue = 2026-01-01"),
            5,
            "edit.value: has a date",
        ),
        (
            &edit("op = 'move'\npath = '/a/b'\nfrom = '/a'"),
            4,
            "edit.path: is within what is moved",
        ),
        (
            &edit("op = 'copy'\npath = '/a'\nfrom = 'b'"),
            5,
            "edit.from: is no JSON Pointer",
        ),
        (
            &edit("op = 'hmac'\npath = '/a'\nkey_file = 'none.key'"),
            5,
            "none.key: No such file",
        ),
        (
            &edit("op = 'hmac'\npath = '/a'\nkey_file = 'short.key'"),
            5,
            "short.key: a key is 64 hex digits",
        ),
    ] {
        let error = read_in(&folder, text, SinkHeaders::Kept).unwrap_err();
        assert_eq!(error.line, Some(line), "{text}: {error}");
        assert!(error.reason.contains(says), "{text}: {error}");
        let begins = format!("{}/rules.toml, line {line}: ", folder.path().display());
        assert!(error.to_string().starts_with(&begins), "{error}");
        assert!(!error.to_string().contains(&KEY[1..]), "{error}");
    }
}

#[test]
fn a_key_in_the_place_of_its_file_is_not_shown() {
    let text = format!("[[edit]]\nop = 'hmac'\npath = '/a'\nkey_file = '{KEY}'");
    let error = read_in(&folder(), &text, SinkHeaders::Kept).unwrap_err();
    assert!(
        error.to_string().contains("edit.key_file: is a key"),
        "{error}"
    );
    assert!(!error.to_string().contains(KEY), "{error}");
}

#[test]
fn a_tag_needs_a_sink_with_headers() {
    let text = "schema = 'good.json'\non_violation = 'tag'";
    let error = read_in(&folder(), text, SinkHeaders::Dropped).unwrap_err();
    assert_eq!(error.line, Some(2));
    assert!(error.reason.contains("Kinesis"), "{error}");
}

#[test]
fn edits_are_bounded() {
    let edits = |count: usize| "[[edit]]\nop = 'remove'\npath = '/a'\n".repeat(count);
    assert!(read_in(&folder(), &edits(EDITS_MAX), SinkHeaders::Kept).is_ok());
    let error = read_in(&folder(), &edits(EDITS_MAX + 1), SinkHeaders::Kept).unwrap_err();
    assert!(error.reason.contains("more than 64"), "{error}");
}
