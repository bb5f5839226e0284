//! Targets of paths, and the parts of a request that go on with its record.

use super::*;
use crate::config::{OpenDoors, OtlpStreams};

const STREAMS: [&str; 3] = ["telemetry", "alarms", "otlp"];

fn streams() -> Vec<StreamConfig> {
    let stream = |name: &str| StreamConfig {
        name: name.into(),
        target: name.into(),
    };
    STREAMS.map(stream).into()
}

fn doors(open: OpenDoors) -> FrontDoors {
    let topics = [("dt/+/telemetry", "telemetry"), ("alarms/#", "alarms")];
    let route = |(filter, stream): (&str, &str)| TopicRoute {
        filter: Filter::parse(filter).unwrap(),
        stream: stream.into(),
    };
    let config = DoorsConfig {
        open,
        topics: topics.map(route).into(),
        otlp_streams: OtlpStreams {
            logs: None,
            metrics: None,
            traces: Some("otlp".into()),
        },
    };
    FrontDoors::new(&config, &streams())
}

fn all() -> FrontDoors {
    doors(OpenDoors {
        iot_core: true,
        iot_hub: true,
        otlp: true,
    })
}

fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed(_) => "malformed",
        Refusal::StreamForbidden => "stream-forbidden",
        Refusal::DeviceMismatch => "device-mismatch",
        Refusal::NotFound => "not-found",
        _ => "another",
    }
}

/// Returns the stream, or the refusal.
fn led(path: &str) -> Result<(&'static str, String), &'static str> {
    let (doors, device) = (all(), DeviceId::parse("urn:plant/7").unwrap());
    let door = doors.find(path).map_err(|refusal| code(&refusal))?;
    let led = doors.lead(door, path, &device);
    let (stream, headers) = led.map_err(|refusal| code(&refusal))?;
    let headers: Vec<_> = headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
    Ok((STREAMS[stream.get()], headers.join(",")))
}

#[test]
fn paths_lead_where_the_table_says() {
    for (path, stream, headers) in [
        (
            "/topics/dt/7/telemetry",
            "telemetry",
            "topic=dt/7/telemetry",
        ),
        (
            "/topics/dt%2f7%2Ftelemetry",
            "telemetry",
            "topic=dt/7/telemetry",
        ),
        ("/topics/alarms", "alarms", "topic=alarms"),
        (
            "/topics/alarms/a/records",
            "alarms",
            "topic=alarms/a/records",
        ),
        ("/devices/urn:plant/7/messages/events", "telemetry", ""),
        ("/devices/urn%3Aplant%2f7/messages/events", "telemetry", ""),
        ("/v1/traces", "otlp", ""),
    ] {
        assert_eq!(led(path), Ok((stream, headers.into())), "{path}");
    }
    for (path, refusal) in [
        ("/topics/dt/7", "stream-forbidden"),
        ("/topics/$aws/things", "stream-forbidden"),
        ("/topics/", "malformed"),
        ("/topics/alarms/%23", "malformed"),
        ("/topics/alarms/+", "malformed"),
        ("/topics/alarms/%00", "malformed"),
        ("/topics/alarms/%ff", "malformed"),
        ("/topics/alarms/%2", "malformed"),
        ("/topics", "not-found"),
        ("/devices/urn:plant/8/messages/events", "device-mismatch"),
        ("/devices//messages/events", "device-mismatch"),
        (
            "/devices/urn%253Aplant%2f7/messages/events",
            "device-mismatch",
        ),
        ("/devices/%ff/messages/events", "device-mismatch"),
        ("/devices/urn:plant/7/messages/events/records", "not-found"),
        ("/devices/urn:plant/7/messages/devicebound", "not-found"),
        ("/v1/logs", "not-found"),
        ("/v1/traces/records", "not-found"),
        ("/v1/traces/", "not-found"),
    ] {
        assert_eq!(led(path), Err(refusal), "{path}");
    }
}

#[test]
fn a_door_that_is_shut_has_no_paths() {
    let paths = ["/topics/alarms", "/devices/a/messages/events", "/v1/traces"];
    let shut = doors(OpenDoors::default());
    for path in paths {
        assert_eq!(shut.of_path(path), Door::Own, "{path}");
        assert!(matches!(shut.find(path), Err(Refusal::NotFound)), "{path}");
    }
    let hub = doors(OpenDoors {
        iot_hub: true,
        ..OpenDoors::default()
    });
    let of = paths.map(|path| hub.of_path(path));
    assert_eq!(of, [Door::Own, Door::IotHub, Door::Own]);
}

#[test]
fn a_query_has_its_parameters() {
    for (query, value) in [
        ("qos=1", Some("1")),
        ("retain=true&qos=0", Some("0")),
        ("qos=&x", Some("")),
        ("qos", Some("")),
        ("qos=a=b", Some("a=b")),
        ("QOS=1", None),
        ("xqos=1", None),
        ("", None),
    ] {
        assert_eq!(parameter(query, "qos").unwrap(), value, "{query}");
    }
    for query in ["qos=1&qos=2", "qos=1&qos=1", "qos&a&qos"] {
        let read = parameter(query, "qos");
        assert!(matches!(read, Err(Refusal::Malformed(_))), "{query}");
    }
}

const HUB_PATH: &str = "/devices/a/messages/events";

fn hub_head(fields: &[(&'static str, &'static str)]) -> RequestHead<'static> {
    let mut head = RequestHead::new("POST", HUB_PATH, None);
    head.query = "api-version=2020-03-13";
    head.keeps_properties = true;
    for (name, value) in fields {
        head.note(name, value.as_bytes());
    }
    head
}

#[test]
fn properties_of_a_message_go_on_with_it() {
    let head = hub_head(&[
        ("IoTHub-app-Line", "7"),
        ("iothub-correlationid", "c"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-contenttype", "application/json"),
        ("iothub-messageid", "m-1"),
        ("x-iothub-app-a", "b"),
        ("iothub", "c"),
        ("dt-subject", "s"),
        ("content-type", "text/plain"),
    ]);
    let mut headers = Headers::default();
    let extras = Door::IotHub.read(&head, &mut headers).unwrap();
    assert_eq!(extras.id, RecordId::from_key(b"m-1"));
    assert_eq!(extras.content_type, Some(&b"application/json"[..]));
    let told: Vec<_> = headers.iter().collect();
    let expected = [
        ("iothub-app-line", "7"),
        ("iothub-correlationid", "c"),
        ("iothub-contentencoding", "utf-8"),
        ("dt-subject", "s"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_message_has_one_id_of_128_characters_at_most() {
    let id = |fields: &[_]| {
        let read = Door::IotHub.read(&hub_head(fields), &mut Headers::default());
        read.map(|extras| extras.id)
    };
    let long: &'static str = "m".repeat(128).leak();
    assert_eq!(
        id(&[("iothub-messageid", long)]).unwrap(),
        RecordId::from_key(long.as_bytes())
    );
    let longer: &'static str = "m".repeat(129).leak();
    for fields in [
        &[("iothub-messageid", longer)][..],
        &[("iothub-messageid", "")],
        &[("iothub-messageid", "a b")],
        &[("iothub-messageid", "a"), ("iothub-messageid", "a")],
    ] {
        assert!(
            matches!(id(fields), Err(Refusal::InvalidIdempotencyKey)),
            "{fields:?}"
        );
    }
}

/// A type that cannot go on as it was sent is told of: a record without one would be another record.
#[test]
fn a_message_has_one_type_of_visible_characters() {
    for fields in [
        &[("iothub-contenttype", "text/\u{e4}")][..],
        &[("iothub-contenttype", "a\u{7f}")],
        &[("iothub-contenttype", "a"), ("iothub-contenttype", "a")],
    ] {
        let read = Door::IotHub.read(&hub_head(fields), &mut Headers::default());
        assert!(matches!(read, Err(Refusal::Malformed(_))), "{fields:?}");
    }
}

#[test]
fn a_version_is_asked_for() {
    for query in ["", "api-version", "api-version=", "version=1"] {
        let mut head = RequestHead::new("POST", HUB_PATH, None);
        head.query = query;
        let read = Door::IotHub.read(&head, &mut Headers::default());
        assert!(matches!(read, Err(Refusal::Malformed(_))), "{query}");
    }
}

/// A door that is shut costs nothing, whatever is sent to where it would be.
#[test]
fn properties_are_kept_for_a_door_that_is_open() {
    let mut head = RequestHead::new("POST", HUB_PATH, None);
    head.note("iothub-app-a", b"b");
    assert!(head.properties().is_empty());
    assert_eq!(hub_head(&[("iothub-app-a", "b")]).properties().len(), 1);
}

#[test]
fn fields_are_properties_on_paths_of_their_door_only() {
    assert!(is_property("iothub-x", "/devices/a/messages/events"));
    assert!(!is_property("iothub-x", "/v1/telemetry"));
    assert!(!is_property("iothub\u{e4}x", "/devices/a/messages/events"));
}

#[test]
fn a_door_bounds_bodies_where_its_bound_is_lower() {
    let none = Headers::default();
    assert_eq!(Door::Own.body_bytes_max(&none, 1 << 20), 1 << 20);
    assert_eq!(Door::IotCore.body_bytes_max(&none, 1 << 20), 128 << 10);
    assert_eq!(Door::IotCore.body_bytes_max(&none, 1000), 1000);
    let mut many = Headers::default();
    many.add("iothub-app-x", &"x".repeat(HEADERS_BYTES_FREE));
    assert_eq!(Door::IotHub.body_bytes_max(&many, 1000), 988);
    many.add("iothub-app-y", &"x".repeat(HEADERS_BYTES_FREE));
    assert_eq!(Door::IotHub.body_bytes_max(&many, 1000), 0);
}
