//! The wire as an OpenAPI 3.1 document, made from the table of answers that devices get.
//!
//! `forebay openapi` prints it, the admin address serves it, and docs/openapi.json is a copy that a
//! test holds to this. Statuses, codes, texts and fields come from [`super::refused`]; only facts
//! that the code does not know by itself are written here: the four paths and the request's fields,
//! the certificate, and in [`answers`] the meaning of the answers' fields.

mod answers;
pub(crate) mod doors;

use serde_json::{Map, Value, json};

use crate::ingest::{IDEMPOTENCY_KEY_CHARS_MAX, RECORDS_KEY_CHARS_MAX};

/// Returns the document, indented, with a line end.
pub fn document() -> String {
    let document = json!({
        "openapi": "3.1.0",
        "info": info(),
        "servers": [{
            "url": "https://{host}:{port}",
            "description": "One port: TCP for HTTP/1.1 and HTTP/2, UDP for HTTP/3.",
            "variables": { "host": { "default": "localhost" }, "port": { "default": "8443" } },
        }],
        "security": [{ "device": [] }],
        "tags": [{ "name": "readings", "description": "What devices post." }],
        "paths": {
            "/v1/telemetry": { "post": one("postReading", "One reading for the default stream", &[]) },
            "/v1/telemetry/records": { "post": many("postReadings", "Many readings for the default stream", &[]) },
            "/v1/streams/{stream}": {
                "post": one("postReadingToStream", "One reading for a stream that this device may write", &[stream()]),
            },
            "/v1/streams/{stream}/records": {
                "post": many("postReadingsToStream", "Many readings for a stream that this device may write", &[stream()]),
            },
        },
        "components": {
            "securitySchemes": { "device": {
                "type": "mutualTLS",
                "description": "The device's certificate. Its id stands there, and nowhere in the request.",
            }},
            "schemas": { "Problem": answers::problem_schema() },
            "headers": { "alt-svc": answers::alt_svc() },
            "responses": answers::refusals(),
        },
    });
    format!("{document:#}\n")
}

fn info() -> Value {
    json!({
        "title": "Forebay",
        "summary": "Devices post readings over mutual TLS; a 204 means that the reading is safe.",
        "description": "Whatever is not 204 is a problem (RFC 9457): go by status and code. \
            docs/protocol.md says when a device tries again. What the codec of HTTP/2 or HTTP/3 cannot parse it may answer by \
            itself: a 400 or 431 without a body, or an error of the stream or the connection.",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    })
}

/// Returns the operation that takes one reading.
fn one(id: &str, summary: &str, path_parameters: &[Value]) -> Value {
    let fields = [
        idempotency_key(IDEMPOTENCY_KEY_CHARS_MAX),
        trace_parent(),
        encoding(),
    ];
    let parameters = [path_parameters, &fields].concat();
    operation(id, summary, parameters, one_reading())
}

/// Returns the operation that takes many readings.
fn many(id: &str, summary: &str, path_parameters: &[Value]) -> Value {
    let fields = [
        idempotency_key(RECORDS_KEY_CHARS_MAX),
        trace_parent(),
        encoding(),
        record_type(),
    ];
    let parameters = [path_parameters, &fields].concat();
    operation(id, summary, parameters, many_readings())
}

fn operation(id: &str, summary: &str, parameters: Vec<Value>, body: Value) -> Value {
    let mut responses = Map::new();
    responses.insert("204".into(), answers::accepted());
    for status in answers::refusals().keys() {
        responses.insert(
            status.clone(),
            json!({ "$ref": format!("#/components/responses/{status}") }),
        );
    }
    json!({
        "operationId": id,
        "summary": summary,
        "tags": ["readings"],
        "parameters": parameters,
        "requestBody": body,
        "responses": responses,
    })
}

fn one_reading() -> Value {
    json!({
        "required": true,
        "description": "One reading: 1 byte to FOREBAY_BODY_BYTES_MAX (256 KiB unless set), of any format. It reaches the \
            stream byte for byte, and its content-type goes with it; a stream that has rules takes JSON only, and may change \
            it. Send content-length.",
        "content": {
            "application/json": { "schema": {}, "example": { "temperature": 21.5 } },
            "application/octet-stream": { "schema": { "type": "string", "format": "binary", "minLength": 1 } },
        },
    })
}

fn many_readings() -> Value {
    json!({
        "required": true,
        "description": "1 to FOREBAY_RECORDS_MAX readings (1000 unless set), FOREBAY_RECORDS_BYTES_MAX (1 MiB unless set) in \
            all, and no more than the device's burst. Each is a record of its own: an element of the array, a line, or so many \
            bytes as the unsigned LEB128 before them says.",
        "content": {
            "application/json": {
                "schema": { "type": "array", "minItems": 1, "items": {} },
                "example": [{ "temperature": 21.5 }, { "temperature": 21.7 }],
            },
            "application/x-ndjson": {
                "schema": { "type": "string", "pattern": "[^\\r\\n]|\\r(?!\\n)" },
                "example": "{\"temperature\":21.5}\n{\"temperature\":21.7}\n",
            },
            "application/vnd.forebay.records": { "schema": { "type": "string", "format": "binary" } },
        },
    })
}

fn stream() -> Value {
    json!({
        "name": "stream", "in": "path", "required": true,
        "description": "A name of FOREBAY_STREAMS. One that is unknown and one that is not for this device are answered alike.",
        "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]+$", "minLength": 1, "maxLength": 128 },
        "example": "telemetry",
    })
}

fn idempotency_key(chars_max: usize) -> Value {
    json!({
        "name": "idempotency-key", "in": "header", "required": false,
        "description": "Names the record for good; of many, the first is named KEY/0. Passed on, not remembered: consumers drop \
            duplicates by it.",
        "schema": { "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": chars_max },
        "example": "boot-17-000042",
    })
}

fn trace_parent() -> Value {
    json!({
        "name": "traceparent", "in": "header", "required": false,
        "description": "W3C Trace Context. Passed on with the record; one that is not well-formed is as none.",
        "schema": { "type": "string" },
        "example": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    })
}

fn encoding() -> Value {
    json!({
        "name": "content-encoding", "in": "header", "required": false,
        "description": "Also `gzip` and `zstd`, as FOREBAY_CONTENT_ENCODINGS allows: bodies as they are described here are not encoded.",
        "schema": { "type": "string", "const": "identity" },
    })
}

fn record_type() -> Value {
    json!({
        "name": "forebay-record-type", "in": "header", "required": false,
        "description": "The content type of each reading of application/vnd.forebay.records.",
        "schema": { "type": "string" },
        "example": "application/x-protobuf",
    })
}
