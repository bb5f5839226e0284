//! Bodies that were put together are cut at their seams, and those that cannot be cut give nothing.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn texts(body: &[u8], places: Result<Vec<Place>, Uncut>) -> Result<Vec<&[u8]>, Uncut> {
    let places = places?;
    Ok(places.into_iter().map(|place| &body[place]).collect())
}

fn lines(body: &str) -> Vec<&str> {
    let cut = texts(body.as_bytes(), cut_lines(body.as_bytes(), 100)).unwrap();
    cut.iter()
        .map(|text| std::str::from_utf8(text).unwrap())
        .collect()
}

fn array(body: &str) -> Result<Vec<&str>, Uncut> {
    let cut = texts(body.as_bytes(), cut_array(body.as_bytes(), 100))?;
    Ok(cut
        .iter()
        .map(|text| std::str::from_utf8(text).unwrap())
        .collect())
}

fn delimited(body: &[u8]) -> Result<Vec<&[u8]>, Uncut> {
    texts(body, cut_delimited(body, 100))
}

#[test]
fn lines_end_in_lf_or_cr_lf_and_empty_ones_are_none() {
    assert_eq!(lines("1\n2\r\n\n\r\n 3 \n4"), ["1", "2", " 3 ", "4"]);
    assert_eq!(lines("1\r2\n"), ["1\r2"]);
    assert_eq!(lines("\n\r\n\n"), [""; 0]);
    assert_eq!(cut(Form::Lines, b"\n\r\n", 10), Err(Uncut::Empty));
}

#[test]
fn elements_are_their_own_text() {
    assert_eq!(
        array(" [1 , {\"a\":[2, 3]},\n\"]\"\t] "),
        Ok(vec!["1", "{\"a\":[2, 3]}", "\"]\""])
    );
    assert_eq!(array("[]"), Ok(vec![]));
    assert_eq!(cut(Form::Array, b" [ ] ", 10), Err(Uncut::Empty));
    // As they were written, however a reader would take them.
    let digits = "9".repeat(400);
    for kept in [
        &*digits,
        "1e999",
        "-0.0",
        "{\"a\":1,\"a\":2}",
        "\"\\ud83d\"",
        "\"\u{2028}\"",
    ] {
        assert_eq!(array(&format!("[{kept}]")), Ok(vec![kept]));
    }
}

#[test]
fn what_is_not_one_array_is_malformed() {
    for body in [
        "",
        "1",
        "{}",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1]]",
        "[1] [2]",
        "[01]",
        "[\"\n\"]",
        "[tru]",
        "[\"\\x\"]",
        "\u{feff}[1]",
        "[1]\0",
        "[NaN]",
    ] {
        assert_eq!(array(body), Err(Uncut::Malformed), "{body:?}");
    }
    assert_eq!(cut_array(b"[\"\xff\"]", 10), Err(Uncut::Malformed));
}

/// Nothing overflows, whatever the depth.
#[test]
fn depth_is_no_matter() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert_eq!(array(&deep), Ok(vec![&deep[1..deep.len() - 1]]));
    assert_eq!(array(&"[".repeat(100_000)), Err(Uncut::Malformed));
    let objects = "[".to_owned() + &"{\"a\":".repeat(10_000);
    assert_eq!(array(&objects), Err(Uncut::Malformed));
}

#[test]
fn lengths_are_leb128() {
    assert_eq!(delimited(b"\x01a\x02bc"), Ok(vec![&b"a"[..], b"bc"]));
    // Longer than it need be, as protobuf's readers take it.
    assert_eq!(delimited(b"\x81\x00a"), Ok(vec![&b"a"[..]]));
    let long = [&[0xac, 0x02][..], &[b'x'; 300]].concat();
    assert_eq!(delimited(&long), Ok(vec![&long[2..]]));
    for body in [
        &b"\x00"[..],
        b"\x80\x00",
        b"\x02a",
        b"\x01a\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02a",
        b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00a",
    ] {
        assert_eq!(delimited(body), Err(Uncut::Malformed), "{body:?}");
    }
    let ten_bytes = b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00a";
    assert_eq!(delimited(ten_bytes), Ok(vec![&b"a"[..]]));
}

#[test]
fn one_record_too_many_is_too_many() {
    let of = |form, body: &[u8]| cut(form, body, 2).map(|places| places.len());
    for (form, two, three) in [
        (Form::Lines, &b"1\n2\n"[..], &b"1\n2\n3"[..]),
        (Form::Array, b"[1,2]", b"[1,2,3"),
        (Form::Delimited, b"\x011\x012", b"\x011\x012\x013"),
    ] {
        assert_eq!(of(form, two), Ok(2));
        assert_eq!(of(form, three), Err(Uncut::TooMany));
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn lines_are_cut_where_they_were_joined(
        records in prop::collection::vec("[^\r\n]{1,20}", 0..20),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\n\n", "\r\n\r\n"]), 20),
    ) {
        let mut body = String::new();
        for (record, end) in records.iter().zip(&ends) {
            body += record;
            body += end;
        }
        prop_assert_eq!(lines(&body), records);
    }

    #[test]
    fn elements_are_cut_where_they_were_joined(elements in prop::collection::vec(json(), 0..10)) {
        for body in [
            serde_json::to_string(&elements).unwrap(),
            serde_json::to_string_pretty(&elements).unwrap(),
        ] {
            let cut = array(&body).unwrap();
            let parsed: Vec<Value> = cut.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(&parsed, &elements);
        }
    }

    #[test]
    fn delimited_records_are_cut_where_they_were_joined(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..10),
    ) {
        let mut body = Vec::new();
        for record in &records {
            prost::encode_length_delimiter(record.len(), &mut body).unwrap();
            body.extend_from_slice(record);
        }
        prop_assert_eq!(delimited(&body).unwrap(), records);
    }

    /// Any bytes are cut within their bounds, in order, or not at all.
    #[test]
    fn any_bytes_are_cut_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for form in [Form::Lines, Form::Array, Form::Delimited] {
            if let Ok(places) = cut(form, &body, 50) {
                prop_assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }
    }
}
