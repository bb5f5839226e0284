//! The edits of a record: those of RFC 6902 that change something, and `hmac`.
//!
//! They are applied in order, once the record has been judged. A path that is not there is no
//! fault: the edit does nothing. What `copy` makes is bounded, or a handful of them would make a
//! gigabyte.

use std::borrow::Cow;

use super::Fault;
use super::key::Key;
use super::pointer::Pointer;
use super::value::Value;

/// One `[[edit]]` of a rules file.
#[derive(Debug)]
pub(super) enum Edit {
    Remove {
        path: Pointer,
    },
    Add {
        path: Pointer,
        value: Value<'static>,
    },
    Replace {
        path: Pointer,
        value: Value<'static>,
    },
    Move {
        from: Pointer,
        path: Pointer,
    },
    Copy {
        from: Pointer,
        path: Pointer,
    },
    Hmac {
        path: Pointer,
        key: Box<Key>,
    },
}

/// Applies the edits in their order; a record that grows beyond `bytes_max` by copies is too large.
pub(super) fn apply<'a>(
    edits: &'a [Edit],
    record: &mut Value<'a>,
    bytes_max: usize,
) -> Result<(), Fault> {
    let mut copied_bytes = 0;
    for edit in edits {
        if let Edit::Copy { from, path } = edit {
            copied_bytes += copy(record, from, path, bytes_max - copied_bytes)?;
        } else {
            apply_one(edit, record);
        }
        debug_assert!(
            copied_bytes <= bytes_max,
            "each copy was within what was left"
        );
    }
    Ok(())
}

fn apply_one<'a>(edit: &'a Edit, record: &mut Value<'a>) {
    match edit {
        Edit::Remove { path } => drop(path.take(record)),
        Edit::Add { path, value } => drop(path.add(record, value.clone())),
        Edit::Replace { path, value } => replace(record, path, value.clone()),
        Edit::Move { from, path } => shift(record, from, path),
        Edit::Hmac { path, key } => hide(record, path, key),
        Edit::Copy { .. } => unreachable!("copies are counted by the caller"),
    }
}

fn replace<'a>(record: &mut Value<'a>, path: &Pointer, value: Value<'a>) {
    if let Some(old) = path.find_mut(record) {
        *old = value;
    }
}

/// Moves a value, where there is one and a place for it: it is never lost on the way.
fn shift<'a>(record: &mut Value<'a>, from: &Pointer, path: &Pointer) {
    if from == path {
        return;
    }
    let Some((value, at)) = from.take(record) else {
        return;
    };
    if let Err(value) = path.add(record, value) {
        from.put_back(record, value, at);
    }
}

/// Copies a value that has `bytes_max` bytes at most, and tells how many it has.
fn copy<'a>(
    record: &mut Value<'a>,
    from: &Pointer,
    path: &Pointer,
    bytes_max: usize,
) -> Result<usize, Fault> {
    let Some(value) = from.find(record) else {
        return Ok(0);
    };
    let bytes = value.bytes_min();
    if bytes > bytes_max {
        return Err(Fault::RecordTooLarge);
    }
    let value = value.clone();
    drop(path.add(record, value));
    Ok(bytes)
}

/// Puts the code of a value in its place.
fn hide<'a>(record: &mut Value<'a>, path: &Pointer, key: &Key) {
    let Some(value) = path.find_mut(record) else {
        return;
    };
    let code = match &*value {
        Value::String(text) => key.code(text.as_bytes()),
        value => {
            let mut json = Vec::new();
            value.write(&mut json);
            key.code(&json)
        }
    };
    *value = Value::String(Cow::Owned(code));
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    const KEY: &[u8] = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn at(path: &str) -> Pointer {
        Pointer::parse(path).unwrap()
    }

    fn value(json: &'static str) -> Value<'static> {
        parse(json.as_bytes()).unwrap()
    }

    fn edited(json: &str, edits: &[Edit]) -> Result<String, Fault> {
        let mut record = parse(json.as_bytes()).unwrap();
        apply(edits, &mut record, 4096)?;
        let mut written = Vec::new();
        record.write(&mut written);
        Ok(String::from_utf8(written).unwrap())
    }

    fn remove(path: &str) -> Edit {
        Edit::Remove { path: at(path) }
    }

    fn add(path: &str, json: &'static str) -> Edit {
        let (path, value) = (at(path), value(json));
        Edit::Add { path, value }
    }

    fn shift(from: &str, path: &str) -> Edit {
        let (from, path) = (at(from), at(path));
        Edit::Move { from, path }
    }

    fn copy(from: &str, path: &str) -> Edit {
        let (from, path) = (at(from), at(path));
        Edit::Copy { from, path }
    }

    fn hmac(path: &str) -> Edit {
        let key = Box::new(Key::parse(KEY).unwrap());
        Edit::Hmac {
            path: at(path),
            key,
        }
    }

    #[test]
    fn each_edit_does_what_the_standard_says() {
        let replace = |path, json| Edit::Replace {
            path: at(path),
            value: value(json),
        };
        let cases = [
            (r#"{"a":1,"b":2,"c":3}"#, remove("/b"), r#"{"a":1,"c":3}"#),
            ("[1,2,3]", remove("/0"), "[2,3]"),
            (r#"{"a":1}"#, add("/b", "[2]"), r#"{"a":1,"b":[2]}"#),
            (r#"{"a":1,"b":2}"#, add("/a", "3"), r#"{"a":3,"b":2}"#),
            ("[1,3]", add("/1", "2"), "[1,2,3]"),
            ("[1,2]", add("/-", "3"), "[1,2,3]"),
            ("[1,2]", add("/2", "3"), "[1,2,3]"),
            ("[1]", add("", "{}"), "{}"),
            (
                r#"{"a":1,"b":2}"#,
                replace("/a", "null"),
                r#"{"a":null,"b":2}"#,
            ),
            (
                r#"{"a":{"x":1},"b":{}}"#,
                shift("/a/x", "/b/y"),
                r#"{"a":{},"b":{"y":1}}"#,
            ),
            ("[1,2,3]", shift("/0", "/-"), "[2,3,1]"),
            (r#"{"a":1,"b":2}"#, shift("/a", "/b"), r#"{"b":1}"#),
            (r#"{"a":1,"b":2}"#, shift("/a", "/a"), r#"{"a":1,"b":2}"#),
            (r#"{"a":[1]}"#, copy("/a", "/b"), r#"{"a":[1],"b":[1]}"#),
        ];
        for (before, edit, after) in cases {
            assert_eq!(edited(before, &[edit]).unwrap(), after, "{before}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_is_no_fault_and_nothing_is_lost() {
        let edits = [
            remove("/x/y"),
            remove("/a/3"),
            add("/x/y", "1"),
            add("/a/3", "1"),
            add("/b/c", "1"),
            Edit::Replace {
                path: at("/x"),
                value: Value::Null,
            },
            shift("/x", "/y"),
            shift("/b", "/x/y"),
            shift("/a/0", "/a/7"),
            copy("/x", "/y"),
            copy("/a", "/x/y"),
            hmac("/x"),
        ];
        let before = r#"{"a":[1,2],"b":"text"}"#;
        assert_eq!(edited(before, &edits).unwrap(), before);
    }

    #[test]
    fn numbers_order_and_text_stay_through_edits() {
        let long = "1".repeat(400);
        let before =
            format!(r#"{{ "z" : {long}.50e-3 , "a":[ -0.0, 1E+2 ],"x":"\u00fc\/\n", "gone": 1 }}"#);
        let after = format!(r#"{{"z":{long}.50e-3,"a":[-0.0,1E+2],"x":"ü/\n"}}"#);
        assert_eq!(edited(&before, &[remove("/gone")]).unwrap(), after);
    }

    /// The codes are those of Python's `hmac`.
    #[test]
    fn a_code_is_that_of_a_texts_characters_or_of_json() {
        let code = |json: &str| edited(json, &[hmac("/v")]).unwrap();
        let key = Box::new(Key::parse(KEY).unwrap());
        let expected = |text: &str| format!(r#"{{"v":"{}"}}"#, key.code(text.as_bytes()));
        assert_eq!(code(r#"{"v":"\u00fc\""}"#), expected("ü\""));
        assert_eq!(code(r#"{"v": 1.50}"#), expected("1.50"));
        assert_eq!(
            code(r#"{"v": [1, {"b" :2.0, "a":null}] }"#),
            expected(r#"[1,{"b":2.0,"a":null}]"#)
        );
    }

    #[test]
    fn copies_do_not_make_a_record_without_end() {
        let edits: Vec<Edit> = (0..64).map(|_| copy("", "/a")).collect();
        let before = r#"{"a":"0123456789"}"#;
        assert!(matches!(edited(before, &edits), Err(Fault::RecordTooLarge)));
    }
}
