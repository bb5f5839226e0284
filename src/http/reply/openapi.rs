//! The wire as an OpenAPI 3.1 document, made from the table of answers that devices are answered by.
//!
//! `forebay openapi` prints it, the admin address serves it, and docs/openapi.json is a copy that a test holds to this.
//! Statuses, codes, texts and fields come from [`super::refused`]; only what the code does not know by itself is
//! written here: the two paths, the request's fields, the certificate.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};

use super::every::every_refusal;
use super::{Refusal, problem, refused};
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
            "schemas": { "Problem": problem_schema() },
            "responses": responses(),
        },
    });
    format!("{document:#}\n")
}

fn info() -> Value {
    json!({
        "title": "Forebay",
        "summary": "Devices post readings over mutual TLS; a 204 means that the reading is safe.",
        "description": "Whatever is not 204 is a problem (RFC 9457): go by status and code. \
            docs/protocol.md says when a device tries again.",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    })
}

fn operation(id: &str, summary: &str, path_parameters: &[Value]) -> Value {
    let parameters: Vec<Value> =
        path_parameters.iter().cloned().chain([idempotency_key(), trace_parent(), encoding()]).collect();
    let mut answers = Map::new();
    answers.insert("204".into(), accepted());
    for status in by_status().keys() {
        answers.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    json!({
        "operationId": id,
        "summary": summary,
        "tags": ["readings"],
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "description": "One reading: 1 byte to FOREBAY_BODY_BYTES_MAX (256 KiB unless set), of any format. It reaches the \
                stream byte for byte.",
            "content": {
                "application/json": { "schema": {}, "example": { "temperature": 21.5 } },
                "application/octet-stream": { "schema": { "type": "string", "format": "binary", "minLength": 1 } },
            },
        },
        "responses": answers,
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

fn accepted() -> Value {
    let field = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "description": "The reading is safe: the device may forget it.",
        "headers": {
            "forebay-certificate-expires": field("An HTTP-date, once the device's certificate expires soon: renew it."),
            "alt-svc": field("Where HTTP/3 is served, on answers over TCP."),
        },
    })
}

fn problem_schema() -> Value {
    let mut codes: Vec<&str> = every_refusal().map(|refusal| problem(&refusal).code).collect();
    codes.sort_unstable();
    codes.dedup();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "urn:forebay:problem: and the code" },
            "title": { "type": "string", "description": "For people; may change" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "code": { "type": "string", "enum": codes },
            "detail": { "type": "string", "description": "For people; may change" },
        },
    })
}

/// Refusals by the status that answers them.
fn by_status() -> BTreeMap<u16, Vec<Refusal>> {
    let mut statuses = BTreeMap::<u16, Vec<Refusal>>::new();
    for refusal in every_refusal() {
        statuses.entry(problem(&refusal).status.as_u16()).or_default().push(refusal);
    }
    statuses
}

fn responses() -> Map<String, Value> {
    by_status().into_iter().map(|(status, refusals)| (status.to_string(), response(&refusals))).collect()
}

/// All answers with one status.
fn response(refusals: &[Refusal]) -> Value {
    let (mut lines, mut examples, mut fields) = (Vec::new(), Map::new(), Map::new());
    for refusal in refusals {
        let (problem, answer) = (problem(refusal), refused(refusal));
        let line = format!("`{}`: {}", problem.code, problem.title);
        if !lines.contains(&line) {
            lines.push(line);
        }
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        examples.insert(problem.code.to_owned(), json!({ "value": body }));
        for (name, value) in answer.headers().iter().filter(|(name, _)| *name != CONTENT_TYPE) {
            fields.insert(name.to_string(), field(name, value));
        }
    }
    json!({
        "description": lines.join("; "),
        "headers": fields,
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "examples": examples,
        }},
    })
}

fn field(name: &HeaderName, value: &HeaderValue) -> Value {
    if name == RETRY_AFTER {
        // Random: an example of it would make another document each time.
        return json!({ "description": "Whole seconds", "schema": { "type": "string", "pattern": "^[0-9]+$" } });
    }
    json!({ "schema": { "type": "string" }, "example": value.to_str().unwrap_or_default() })
}
