//! The wire as an OpenAPI 3.1 document, made from the table of answers that devices are answered
//! by.
//!
//! `forebay openapi` prints it, the admin address serves it, and docs/openapi.json is a copy that a
//! test holds to this. Statuses, codes, texts and fields come from [`super::refused`]; only what
//! the code does not know by itself is written here: the two paths and the request's fields, the
//! certificate, and in [`answers`] what fields of answers mean.

mod answers;

use serde_json::{Map, Value, json};

use crate::record::RECORD_ID_CHARS_MAX;

/// The document, indented, with a line end.
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
            "/v1/telemetry": { "post": operation("postReading", "One reading for the default stream", &[]) },
            "/v1/streams/{stream}": {
                "post": operation("postReadingToStream", "One reading for a stream that this device may write", &[stream()]),
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

fn operation(id: &str, summary: &str, path_parameters: &[Value]) -> Value {
    let parameters: Vec<Value> = path_parameters
        .iter()
        .cloned()
        .chain([idempotency_key(), trace_parent(), encoding()])
        .collect();
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
        "requestBody": {
            "required": true,
            "description": "One reading: 1 byte to FOREBAY_BODY_BYTES_MAX (256 KiB unless set), of any format. It reaches the \
                stream byte for byte, and its content-type goes with it; a stream that has rules takes JSON only, and may change it. Send content-length.",
            "content": {
                "application/json": { "schema": {}, "example": { "temperature": 21.5 } },
                "application/octet-stream": { "schema": { "type": "string", "format": "binary", "minLength": 1 } },
            },
        },
        "responses": responses,
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

fn idempotency_key() -> Value {
    json!({
        "name": "idempotency-key", "in": "header", "required": false,
        "description": "Names the record for good. Passed on, not remembered: consumers drop duplicates by it.",
        "schema": { "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": RECORD_ID_CHARS_MAX },
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
        "description": "Bodies are not decompressed.",
        "schema": { "type": "string", "const": "identity" },
    })
}
