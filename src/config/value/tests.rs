//! Every kind of value: what it takes, what it refuses, and what it says then.

use proptest::prelude::*;

use super::*;
use crate::config::StreamConfig;

fn fault<T: std::fmt::Debug>(parsed: Parsed<T>) -> String {
    parsed.unwrap_err()
}

#[test]
fn switches_are_true_or_false() {
    assert_eq!([switch("true"), switch("false")], [Ok(true), Ok(false)]);
    for text in ["True", "1", "yes", " true"] {
        assert_eq!(fault(switch(text)), "is neither true nor false", "{text}");
    }
}

#[test]
fn counts_are_bounds() {
    assert_eq!([count("1", 9), count("9", 9)], [Ok(1), Ok(9)]);
    assert_eq!(fault(count("0", 9)), "is 0, which is no bound");
    assert_eq!(fault(count("10", 9)), "is more than 9");
    for text in ["-1", "1.5", "1k", "ten", "99999999999999999999"] {
        assert_eq!(
            fault(count(text, 9)),
            "is not a whole number, or too large",
            "{text}"
        );
    }
}

#[test]
fn sizes_have_units() {
    let texts = ["0", "7B", "7KiB", "7MiB", "7GiB"];
    assert_eq!(
        texts.map(|text| bytes(text).unwrap()),
        [0, 7, 7 << 10, 7 << 20, 7 << 30]
    );
    assert_eq!(fault(bytes("512")), "has no unit: B, KiB, MiB or GiB");
    for text in ["1KB", "1kib", "1M", "1 MiB", "1MiB ", "5s"] {
        assert_eq!(
            fault(bytes(text)),
            "has a unit that is none of B, KiB, MiB or GiB",
            "{text}"
        );
    }
    for text in ["MiB", "-1MiB", "+1MiB", "1.5MiB", "x"] {
        assert_eq!(
            fault(bytes(text)),
            "is not a whole number with a unit (B, KiB, MiB or GiB)",
            "{text}"
        );
    }
    for text in ["99999999999GiB", "99999999999999999999B"] {
        assert_eq!(fault(bytes(text)), "is too large", "{text}");
    }
}

#[test]
fn sizes_that_bound_are_not_0() {
    assert_eq!(
        [size("1B", 2 << 20), size("2MiB", 2 << 20)],
        [Ok(1), Ok(2 << 20)]
    );
    assert_eq!(
        [fault(size("0", 1)), fault(size("0KiB", 1))],
        ["is 0, which is no bound"; 2]
    );
    assert_eq!(fault(size("2097153B", 2 << 20)), "is more than 2MiB");
}

#[test]
fn durations_have_units() {
    let texts = ["0", "7ms", "7s", "7m", "7h", "7d"];
    let seconds = [0.0, 0.007, 7.0, 420.0, 25_200.0, 604_800.0];
    assert_eq!(
        texts.map(|text| duration(text).unwrap().as_secs_f64()),
        seconds
    );
    assert_eq!(fault(duration("10")), "has no unit: ms, s, m, h or d");
    assert_eq!(
        fault(duration("10us")),
        "has a unit that is none of ms, s, m, h or d"
    );
    assert_eq!(
        fault(duration("0.5s")),
        "is not a whole number with a unit (ms, s, m, h or d)"
    );
    assert_eq!(
        [fault(timeout("0")), fault(timeout("0s"))],
        ["is 0, which is no bound"; 2]
    );
    assert_eq!(
        [timeout("366d").is_ok(), timeout("367d").is_ok()],
        [true, false]
    );
}

#[test]
fn rates_know_0_and_fractions() {
    assert_eq!(
        ["0", "0.2", "50", "1e3"].map(|text| rate(text).unwrap()),
        [0.0, 0.2, 50.0, 1000.0]
    );
    for text in ["-1", "NaN", "inf", "2e9"] {
        assert_eq!(
            fault(rate(text)),
            "is not between 0 and 1000000000",
            "{text}"
        );
    }
    assert_eq!(fault(rate("5/s")), "is not a number");
    assert_eq!(
        quota(0.0, 0),
        Ok(Quota {
            rate: 0.0,
            burst: 0
        })
    );
    assert_eq!(
        fault(quota(0.1, 0)),
        "is a burst of 0, which lets nothing pass"
    );
    assert_eq!(fault(burst("1.5")), "is not a whole number");
}

#[test]
fn sources_of_the_id_come_once_each_in_order() {
    assert_eq!(
        id_sources("cn, san-uri"),
        Ok(vec![IdSource::Cn, IdSource::SanUri])
    );
    assert_eq!(
        id_sources("san-dns,fingerprint"),
        Ok(vec![IdSource::SanDns, IdSource::Fingerprint])
    );
    assert_eq!(
        fault(id_sources("cn,serial")),
        "names a source that is none of san-uri, san-dns, cn, fingerprint"
    );
    assert_eq!(fault(id_sources("cn,cn")), "names a source twice");
    assert_eq!(fault(id_sources(",")), "names no source");
}

#[test]
fn streams_have_names_and_targets() {
    let stream = |name: &str, target: &str| StreamConfig {
        name: name.into(),
        target: target.into(),
    };
    assert_eq!(
        streams("a, b=plant.b-1"),
        Ok(vec![stream("a", "a"), stream("b", "plant.b-1")])
    );
    for text in [
        "a b",
        "a=",
        "=a",
        "a/b",
        "..",
        "ü",
        "a=b=c",
        &"x".repeat(129),
    ] {
        assert_eq!(
            fault(streams(text)),
            "has a name that is not 1 to 128 characters of A-Za-z0-9._-",
            "{text}"
        );
    }
    assert_eq!(fault(streams("a,b=c,a=d")), "names a stream twice");
    assert_eq!(fault(streams(" , ")), "names no stream");
    let many: Vec<String> = (0..257).map(|index| index.to_string()).collect();
    assert_eq!(streams(&many[..256].join(",")).unwrap().len(), 256);
    assert_eq!(
        fault(streams(&many.join(","))),
        "names more than 256 streams"
    );
}

#[test]
fn access_is_by_stream_and_glob() {
    let known = streams("alarms,telemetry").unwrap();
    let access = stream_access("alarms: plant-*, plc-? ;telemetry:*;", Some(&known)).unwrap();
    let access: Vec<_> = access
        .iter()
        .map(|entry| (entry.stream.as_str(), entry.devices.join(" ")))
        .collect();
    assert_eq!(
        access,
        [
            ("alarms", "plant-* plc-?".to_owned()),
            ("telemetry", "*".to_owned())
        ]
    );
    assert_eq!(
        stream_access("alarms:", Some(&known)).unwrap()[0].devices,
        Vec::<String>::new()
    );
    assert_eq!(
        fault(stream_access("alarms", Some(&known))),
        "has an entry without a colon"
    );
    assert_eq!(
        fault(stream_access("alarm:*", Some(&known))),
        "names a stream that FOREBAY_STREAMS does not"
    );
    assert!(
        stream_access("alarm:*", None).is_ok(),
        "FOREBAY_STREAMS has a fault of its own"
    );
    assert!(
        fault(stream_access("alarms:a b", Some(&known)))
            .starts_with("has a glob that can match no device id")
    );
}

#[test]
fn rules_are_a_file_for_each_stream() {
    let known = streams("alarms,telemetry").unwrap();
    let rules = stream_rules(" alarms = /etc/a.toml;telemetry=b=c.toml; ", Some(&known)).unwrap();
    let rules: Vec<_> = rules
        .iter()
        .map(|rules| (rules.stream.as_str(), rules.file.to_str().unwrap()))
        .collect();
    assert_eq!(
        rules,
        [("alarms", "/etc/a.toml"), ("telemetry", "b=c.toml")]
    );
    for (text, says) in [
        ("alarms", "has an entry without ="),
        ("alarms=", "has a stream without a file"),
        ("alarm=a", "names a stream that FOREBAY_STREAMS does not"),
        ("alarms=a;alarms=b", "names a stream twice"),
        (";", "names no stream"),
    ] {
        assert_eq!(fault(stream_rules(text, Some(&known))), says, "{text}");
    }
    assert!(stream_rules("alarm=a", None).is_ok());
}

#[test]
fn no_list_of_what_is_allowed_is_empty() {
    assert_eq!(fault(stream_access(";", None)), "names no stream");
    assert_eq!(fault(files(", ,")), "names no file");
    assert_eq!(fault(authorities(",")), "names no host");
    assert_eq!(fault(device_classes(" ; ")), "names no class");
    assert_eq!(
        files("a.pem, /b/c.der"),
        Ok(vec!["a.pem".into(), "/b/c.der".into()])
    );
}

#[test]
fn classes_are_globs_with_a_rate_and_a_burst() {
    let classes = device_classes("gw-* = 500/1000; meter-?=0.2/5;open=0/0").unwrap();
    let classes: Vec<_> = classes
        .iter()
        .map(|class| {
            (
                class.devices.as_str(),
                class.requests.rate,
                class.requests.burst,
            )
        })
        .collect();
    assert_eq!(
        classes,
        [("gw-*", 500.0, 1000), ("meter-?", 0.2, 5), ("open", 0.0, 0)]
    );
    assert_eq!(fault(device_classes("gw-*")), "has a class without =");
    assert_eq!(
        fault(device_classes("gw-*=5")),
        "has a class without rate/burst"
    );
    assert_eq!(
        fault(device_classes("gw-*=x/5")),
        "has a class whose rate or burst is not a number"
    );
    assert_eq!(
        fault(device_classes("gw-*=5/0")),
        "has a class whose rate or burst is a burst of 0, which lets nothing pass"
    );
    assert!(fault(device_classes("=5/5")).starts_with("has a glob"));
    assert!(fault(device_classes("gw #=5/5")).starts_with("has a glob"));
}

#[test]
fn authorities_are_what_a_request_is_compared_with() {
    let names =
        authorities("Ingest.Example.com., *.plant.example ,10.0.0.1,[::0:1],2001:DB8::1,my_host,*")
            .unwrap();
    assert_eq!(
        names,
        [
            "ingest.example.com",
            "*.plant.example",
            "10.0.0.1",
            "::1",
            "2001:db8::1",
            "my_host",
            "*"
        ]
        .map(String::from)
    );
    for name in [
        "example.com:8443",
        "https://example.com",
        "a..b",
        "*example.com",
        "a.*.b",
        "*.",
        "ü.example",
        ".",
    ] {
        assert_eq!(
            fault(authorities(name)),
            "has a name that is no host name without a port",
            "{name}"
        );
    }
}

#[test]
fn versions_of_tls_are_two() {
    assert_eq!(
        [tls_version("1.2"), tls_version("1.3")],
        [Ok(TlsVersion::Tls12), Ok(TlsVersion::Tls13)]
    );
    assert_eq!(fault(tls_version("1.1")), "is neither 1.2 nor 1.3");
}

proptest! {
    #[test]
    fn sizes_and_durations_are_their_number_times_their_unit(number in 0..1_000_000_u64) {
        for (unit, factor) in [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1_u64 << 30)] {
            prop_assert_eq!(bytes(&format!("{number}{unit}")), Ok(number * factor));
        }
        for (unit, millis) in [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000_u64)] {
            prop_assert_eq!(duration(&format!("{number}{unit}")), Ok(Duration::from_millis(number * millis)));
        }
        let without_unit = number.to_string();
        prop_assert_eq!(bytes(&without_unit).is_ok(), number == 0);
        prop_assert_eq!(duration(&without_unit).is_ok(), number == 0);
    }

    #[test]
    fn no_text_makes_a_parser_panic_or_lets_0_bound(text in "\\PC{0,20}|[0-9a-zA-Z=:;,/*?. ]{0,30}|[0-9]{1,30}[a-zA-Z]{0,3}") {
        prop_assert!(count(&text, usize::MAX) != Ok(0));
        prop_assert!(size(&text, usize::MAX) != Ok(0));
        prop_assert!(timeout(&text) != Ok(Duration::ZERO));
        prop_assert!(rate(&text).is_ok_and(|rate| rate >= 0.0) || rate(&text).is_err());
        prop_assert!(!streams(&text).is_ok_and(|streams| streams.is_empty()));
        prop_assert!(!stream_access(&text, None).is_ok_and(|access| access.is_empty()));
        prop_assert!(!device_classes(&text).is_ok_and(|classes| classes.is_empty()));
        prop_assert!(!authorities(&text).is_ok_and(|names| names.is_empty()));
        prop_assert!(!id_sources(&text).is_ok_and(|sources| sources.is_empty()));
    }

    #[test]
    fn streams_come_back_as_written(names in prop::collection::btree_set("[A-Za-z0-9_-]{1,20}", 1..9), target in "[a-z.]{3,9}") {
        prop_assume!(target.bytes().any(|byte| byte != b'.'));
        let written: Vec<String> = names.iter().map(|name| format!("{name}={target}")).collect();
        let read = streams(&written.join(",")).unwrap();
        prop_assert_eq!(read.len(), names.len());
        prop_assert!(read.iter().zip(&names).all(|(stream, name)| stream.name == *name && stream.target == target));
    }
}
