//! The front doors as OpenAPI documents of their own: they are contracts of others, of which these
//! are the parts that Forebay keeps.
//!
//! `forebay openapi --door NAME` prints one; docs/openapi-NAME.json is a copy. Statuses and codes
//! come from the answers that each door gives; the fields of its requests are written here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{encoding, idempotency_key, trace_parent};
use crate::http::reply::doors::Visit;
use crate::http::reply::every::every_refusal;
use crate::http::reply::problem;
use crate::ingest::doors::{Door, Signal};
use crate::ingest::{IDEMPOTENCY_KEY_CHARS_MAX, Refusal};
use crate::record::{RECORD_ID_CHARS_MAX, Timestamp};

/// The names of the doors, as `FOREBAY_FRONT_DOORS` has them.
pub const DOOR_NAMES: [&str; 3] = ["iot-core", "iot-hub", "otlp"];

/// Returns the document of a door, indented, with a line end; `None` for a name that no door has.
pub fn door_document(name: &str) -> Option<String> {
    let (title, paths) = match name {
        "iot-core" => ("publishing as with AWS IoT Core", topics()),
        "iot-hub" => ("device-to-cloud messages as with Azure IoT Hub", hub()),
        "otlp" => ("OTLP over HTTP", otlp()),
        _ => return None,
    };
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Forebay: {title}"),
            "summary": format!("The front door {name}, where FOREBAY_FRONT_DOORS names it."),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{
            "url": "https://{host}:{port}",
            "variables": { "host": { "default": "localhost" }, "port": { "default": "8443" } },
        }],
        "security": [{ "device": [] }],
        "paths": paths,
        "components": { "securitySchemes": { "device": {
            "type": "mutualTLS",
            "description": "The device's certificate. Its id stands there, and nowhere in the request.",
        }}},
    });
    Some(format!("{document:#}\n"))
}

fn topics() -> Value {
    let told = json!({ "application/json": { "schema": {
        "type": "object",
        "required": ["message", "traceId"],
        "properties": { "message": { "type": "string" }, "traceId": { "type": "string" } },
    }}});
    let mut topic = path(
        "topic",
        "A topic of MQTT, percent-encoded, with `/` or `%2F`; without wildcards and NUL. A filter of FOREBAY_TOPICS names its stream.",
    );
    topic["schema"]["pattern"] = json!(r"^[^+#\u0000]+$");
    let parameters = [
        topic,
        json!({
            "name": "qos", "in": "query", "required": false,
            "description": "Either is durable.",
            "schema": { "type": "integer", "enum": [0, 1], "default": 0 },
        }),
        idempotency_key(IDEMPOTENCY_KEY_CHARS_MAX),
        trace_parent(),
        encoding(),
    ];
    let mut responses = refusals(Door::IotCore, &told);
    let taken = json!({ "description": "The record is safe; traceId is its id.", "content": told });
    responses.insert("200".into(), taken);
    json!({ "/topics/{topic}": { "post": {
        "operationId": "publish",
        "parameters": parameters,
        "requestBody": any_body(),
        "responses": responses,
    }}})
}

fn hub() -> Value {
    let problems = json!({ "application/problem+json": { "schema": {
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
    }}});
    let mut responses = refusals(Door::IotHub, &problems);
    responses.insert(
        "204".into(),
        json!({ "description": "The record is safe." }),
    );
    json!({ "/devices/{id}/messages/events": { "post": {
        "operationId": "sendDeviceEvent",
        "parameters": hub_parameters(),
        "requestBody": any_body(),
        "responses": responses,
    }}})
}

fn hub_parameters() -> [Value; 8] {
    let mut id = property("iothub-messageid", "The record's id.");
    id["schema"] = json!({ "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": RECORD_ID_CHARS_MAX });
    [
        path(
            "id",
            "The device's id, percent-encoded or not: that of its certificate.",
        ),
        json!({
            "name": "api-version", "in": "query", "required": true,
            "description": "Any version.",
            "schema": { "type": "string", "minLength": 1 }, "example": "2020-03-13",
        }),
        id,
        property(
            "iothub-contenttype",
            "The record's content type, in the place of the request's.",
        ),
        property(
            "iothub-correlationid",
            "Goes on as a header, as do all others of `iothub-`.",
        ),
        idempotency_key(IDEMPOTENCY_KEY_CHARS_MAX),
        trace_parent(),
        encoding(),
    ]
}

fn property(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "header", "required": false,
        "description": description, "schema": { "type": "string" },
    })
}

fn otlp() -> Value {
    let mut paths = Map::new();
    for (signal, path) in [
        (Signal::Logs, "/v1/logs"),
        (Signal::Metrics, "/v1/metrics"),
        (Signal::Traces, "/v1/traces"),
    ] {
        let messages = json!({
            "application/x-protobuf": { "schema": { "type": "string", "format": "binary" } },
            "application/json": { "schema": { "type": "object" } },
        });
        // What is sent is not looked at.
        let mut exported = messages.clone();
        exported["application/json"]["schema"] = json!({});
        let mut responses = refusals(Door::Otlp(signal), &messages);
        let taken = json!({
            "description": "The record is safe, or the request was empty: an empty message of the request's encoding.",
            "content": messages,
        });
        responses.insert("200".into(), taken);
        let operation = json!({
            "operationId": format!("export{}", path.replace("/v1/", "-")),
            "parameters": [idempotency_key(IDEMPOTENCY_KEY_CHARS_MAX), trace_parent(), encoding()],
            "requestBody": { "required": true, "content": exported },
            "responses": responses,
        });
        paths.insert(path.into(), json!({ "post": operation }));
    }
    paths.into()
}

fn path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true,
        "description": description, "schema": { "type": "string", "minLength": 1 },
    })
}

fn any_body() -> Value {
    json!({ "required": true, "description": "One record, of any type: these, or another one.", "content": {
        "application/json": { "schema": {} },
        "application/octet-stream": { "schema": { "type": "string", "format": "binary", "minLength": 1 } },
    }})
}

/// Returns a door's answers to refused requests, by status: their codes, and their form.
fn refusals(door: Door, content: &Value) -> Map<String, Value> {
    let mut codes = BTreeMap::<String, Vec<&str>>::new();
    let visit = Visit::through(door);
    for refusal in every_refusal() {
        if !can_refuse(door, &refusal) || visit.verdict(Err(refusal.clone())).is_ok() {
            continue;
        }
        let problem = problem(&refusal);
        let answer = visit.refused(&refusal, &problem, Timestamp(0));
        let known = codes.entry(answer.status().as_str().into()).or_default();
        if !known.contains(&problem.code) {
            known.push(problem.code);
        }
    }
    let mut responses = Map::new();
    for (status, codes) in codes {
        let description = format!("`{}`", codes.join("`, `"));
        let response = json!({ "description": description, "content": content });
        responses.insert(status, response);
    }
    responses
}

/// Whether a door that is open can refuse a request so: a record comes alone there, its path leads
/// somewhere unless it names a signal, and only OTLP has types of its own.
fn can_refuse(door: Door, refusal: &Refusal) -> bool {
    use Refusal::*;
    match refusal {
        MalformedRecords | TooManyRecords | Records(_) => false,
        NotFound | UnsupportedMediaType => matches!(door, Door::Otlp(_)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(name: &str) -> String {
        let document = door_document(name).expect("a door");
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let mut codes = String::new();
        for path in document["paths"].as_object().expect("paths").values() {
            for answer in path["post"]["responses"]
                .as_object()
                .expect("them")
                .values()
            {
                codes += answer["description"].as_str().expect("codes");
            }
        }
        codes
    }

    #[test]
    fn a_door_lists_no_code_that_it_cannot_give() {
        let [core, hub, otlp] = DOOR_NAMES.map(codes);
        for (code, is_of) in [
            ("malformed-records", [false, false, false]),
            ("too-many-records", [false, false, false]),
            ("unsupported-media-type", [false, false, true]),
            ("not-found", [false, false, true]),
            ("empty-body", [true, true, false]),
            // By the path or by the rules of a stream.
            ("device-mismatch", [true, true, true]),
            ("head-too-large", [true, true, true]),
            ("record-too-large", [true, true, true]),
            ("sink-refused", [true, true, true]),
        ] {
            let listed = [&core, &hub, &otlp].map(|codes| codes.contains(&format!("`{code}`")));
            assert_eq!(listed, is_of, "{code}");
        }
    }
}
