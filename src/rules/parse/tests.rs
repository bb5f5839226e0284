//! Texts that are JSON here, and texts that are not.

use proptest::prelude::*;

use super::*;

fn written(json: &[u8]) -> Option<String> {
    let mut bytes = Vec::new();
    parse(json).ok()?.write(&mut bytes);
    Some(String::from_utf8(bytes).unwrap())
}

fn nested(open: usize) -> String {
    "[".repeat(open) + &"]".repeat(open)
}

#[test]
fn order_numbers_and_text_stay() {
    let digits = "7".repeat(400);
    for json in [
        r#"{"z":1,"a":{"y":2,"b":3},"":[]}"#,
        r#"[1.0,1.50,-0,-0.0E+2,1e400,1e-400]"#,
        &digits,
        r#""ü\"\\\n""#,
        "null",
    ] {
        assert_eq!(written(json.as_bytes()).as_deref(), Some(json));
    }
    assert_eq!(written(b" [ 1 ,\r\n\t{ } ] \n").as_deref(), Some("[1,{}]"));
    assert_eq!(
        written(br#""\u00e9\/\ud83d\ude00""#).as_deref(),
        Some("\"é/😀\"")
    );
}

#[test]
fn what_no_reader_could_agree_upon_is_not_json() {
    for json in [
        &br#"{"a":1,"a":2}"#[..],
        br#"{"a":1,"\u0061":2}"#,
        br#"[{"x":{"a":1,"b":2,"a":1}}]"#,
        br#""\ud800""#,
        br#""\udc00""#,
        br#""\ud800\u0041""#,
        br#"{"\ud800":1}"#,
        b"\"\xff\"",
        b"\xef\xbb\xbf{}",
        b"",
        b" ",
        b"{} {}",
        b"{},",
        b"[1,]",
        b"{\"a\":1,}",
        b"{\"a\"}",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"NaN",
        b"-",
        b"1e",
        b"'a'",
        b"[1",
        b"{\"a\":",
        b"\"a",
        b"nul",
        b"\"\n\"",
        b"]",
        b"//\n1",
        b"\0",
    ] {
        assert_eq!(
            parse(json),
            Err(Fault::NotJson),
            "{}",
            String::from_utf8_lossy(json)
        );
    }
}

#[test]
fn twins_are_found_among_many_members() {
    let members: Vec<String> = (0..1000).map(|name| format!("\"{name}\":0")).collect();
    let object = |members: &[String]| format!("{{{}}}", members.join(","));
    assert!(parse(object(&members).as_bytes()).is_ok());
    let twins = [&members[..], &members[500..501]].concat();
    assert_eq!(parse(object(&twins).as_bytes()), Err(Fault::NotJson));
}

#[test]
fn arrays_and_objects_are_open_to_a_bound() {
    assert!(parse(nested(OPEN_MAX).as_bytes()).is_ok());
    for open in [OPEN_MAX + 1, 10_000, 1_000_000] {
        assert_eq!(parse(nested(open).as_bytes()), Err(Fault::NotJson));
        assert_eq!(
            parse("{\"a\":".repeat(open).as_bytes()),
            Err(Fault::NotJson)
        );
    }
    let many = format!("[{}]", vec![nested(OPEN_MAX - 1); 100].join(","));
    assert!(
        parse(many.as_bytes()).is_ok(),
        "those that are closed do not count"
    );
}

/// JSON of any shape, its numbers and its strings written in any way.
fn any_json() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?";
    let text =
        "\"([ !#-\\[\\]-~äß€]|\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude0[0-9])*\"";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        number,
        text
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let member = ("[a-z]{1,3}", inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::btree_map("[a-z]{1,3}", member, 0..6).prop_map(|members| {
                let member = |(name, (_, value)): (&String, &(String, String))| {
                    format!("\"{name}\": {value}")
                };
                let members: Vec<String> = members.iter().map(member).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_says_the_same_and_is_written_so_again(json in any_json()) {
        let compact = written(json.as_bytes()).expect("it is JSON");
        prop_assert_eq!(written(compact.as_bytes()).unwrap(), compact.clone());
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text);
        match read(&json) {
            Ok(value) => prop_assert_eq!(read(&compact).unwrap(), value),
            Err(_) => prop_assert!(read(&compact).is_err(), "a number beyond all doubles stays one"),
        }
    }

    #[test]
    fn numbers_stay_to_the_last_digit(number in "-?(0|[1-9][0-9]{0,450})(\\.[0-9]{1,450})?([eE][+-]?[0-9]{1,9})?") {
        prop_assert_eq!(written(number.as_bytes()), Some(number));
    }

    #[test]
    fn nothing_is_taken_that_others_do_not_take(bytes in r#"[\[\]{}":,\\ud8e01. a-]{0,30}"#) {
        let is_taken = parse(bytes.as_bytes()).is_ok();
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(&bytes).is_ok();
        prop_assert!(is_json || !is_taken);
    }
}
