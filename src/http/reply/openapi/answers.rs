//! The answers of the contract: each status with its codes, examples and header fields.
//!
//! `document` puts them into its place. The codes of a status are collected from every refusal and
//! the answer that it gets; written here is only the meaning of the fields, and those of a 204 and
//! of every answer over TCP.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use crate::http::reply::every::every_refusal;
use crate::http::reply::{Refusal, problem, refused};
use crate::words::Scope;

/// Returns the answer to a reading that is safe.
pub(crate) fn accepted() -> Value {
    json!({
        "description": "The reading is safe: the device may forget it.",
        "headers": {
            "forebay-certificate-expires": {
                "description": "An HTTP-date, once the device's certificate expires soon: renew it.",
                "schema": { "type": "string" },
                "example": "Wed, 23 Dec 2026 14:29:17 GMT",
            },
            "alt-svc": alt_svc_reference(),
        },
    })
}

pub(crate) fn alt_svc() -> Value {
    json!({
        "description": "Where HTTP/3 is served, if it is; on answers over TCP.",
        "schema": { "type": "string" },
        "example": "h3=\":8443\"; ma=86400",
    })
}

fn alt_svc_reference() -> Value {
    json!({ "$ref": "#/components/headers/alt-svc" })
}

pub(crate) fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "urn:forebay:problem: and the code" },
            "title": { "type": "string", "description": "For people; may change" },
            "status": { "type": "integer", "enum": by_status().keys().collect::<Vec<_>>() },
            "code": { "type": "string", "enum": codes(&every_refusal().collect::<Vec<_>>()) },
            "detail": { "type": "string", "description": "For people; may change" },
            "records": records_schema(),
        },
    })
}

/// Returns the schema of the outcomes of many readings; a refusal of the whole request has none of
/// it.
fn records_schema() -> Value {
    let index = json!({ "type": "integer", "minimum": 0 });
    json!({
        "type": "object",
        "description": "Of many readings in one request, by their indices from 0: nothing but `rejected` is lost where `retry` is \
            sent again. Without it nothing of the request was taken.",
        "required": ["accepted", "retry", "rejected"],
        "properties": {
            "accepted": { "type": "integer", "minimum": 0, "description": "How many are safe" },
            "retry": { "type": "array", "items": index, "description": "May be sent again" },
            "rejected": { "type": "array", "description": "Refused for good", "items": {
                "type": "object",
                "required": ["index", "code"],
                "properties": { "index": index, "code": { "type": "string" } },
            }},
        },
    })
}

/// Returns the answers to refused requests, by their status.
pub(crate) fn refusals() -> Map<String, Value> {
    by_status()
        .iter()
        .map(|(status, refusals)| (status.to_string(), response(*status, refusals)))
        .collect()
}

fn by_status() -> BTreeMap<u16, Vec<Refusal>> {
    let mut statuses = BTreeMap::<u16, Vec<Refusal>>::new();
    for refusal in every_refusal() {
        statuses
            .entry(problem(&refusal).status.as_u16())
            .or_default()
            .push(refusal);
    }
    statuses
}

/// Returns the codes of these refusals, each once, in the alphabet's order.
fn codes(refusals: &[Refusal]) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for problem in refusals.iter().map(problem) {
        codes.push(problem.code);
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Returns the answers with one status, as one response of the document.
fn response(status: u16, refusals: &[Refusal]) -> Value {
    json!({
        "description": description(refusals),
        "headers": fields(refusals),
        "content": { "application/problem+json": {
            "schema": { "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "status": { "const": status }, "code": { "enum": codes(refusals) } } },
            ]},
            "examples": examples(refusals),
        }},
    })
}

fn description(refusals: &[Refusal]) -> String {
    let mut lines = Vec::new();
    for problem in refusals.iter().map(problem) {
        let line = format!("`{}`: {}", problem.code, problem.title);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join("; ")
}

/// Returns an example of a body for each code.
fn examples(refusals: &[Refusal]) -> Map<String, Value> {
    let example = |refusal: &Refusal| {
        let problem = problem(refusal);
        let answer = refused(refusal, &problem);
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        (problem.code.to_owned(), json!({ "value": body }))
    };
    refusals.iter().map(example).collect()
}

/// Returns the header fields that these answers have; those that each of them has are required.
fn fields(refusals: &[Refusal]) -> Map<String, Value> {
    let heads: Vec<HeaderMap> = refusals.iter().map(head).collect();
    let mut fields = Map::from_iter([("alt-svc".to_owned(), alt_svc_reference())]);
    for (name, value) in heads.iter().flatten() {
        let is_in_each = heads.iter().all(|head| head.contains_key(name));
        fields.insert(name.to_string(), field(name.as_str(), value, is_in_each));
    }
    fields
}

/// Returns the header fields of an answer, beside those that the document has elsewhere.
fn head(refusal: &Refusal) -> HeaderMap {
    let answer = refused(refusal, &problem(refusal));
    let mut head = answer.headers().clone();
    head.remove(CONTENT_TYPE);
    head
}

/// Describes a header field: its meaning, and an example.
fn field(name: &str, value: &HeaderValue, is_required: bool) -> Value {
    let mut example = json!(value.to_str().unwrap_or_default());
    let (description, schema) = match name {
        "retry-after" => {
            example = json!(5); // that of a 503 is random: it would make another document each time
            (
                "Whole seconds to wait at least",
                json!({ "type": "integer", "minimum": 1 }),
            )
        }
        "ratelimit" => (
            "The bucket that was empty, what is left in it, and the seconds until the same request passes",
            pattern("r=[0-9]+;t=[0-9]+"),
        ),
        "ratelimit-policy" => (
            "The bucket that was empty, what it holds when it is full, and the seconds that it takes to fill",
            pattern("q=[0-9]+;w=[0-9]+"),
        ),
        "accept-encoding" => (
            "The codings that a body may have",
            json!({ "type": "string" }),
        ),
        "allow" => (
            "How readings are sent",
            json!({ "type": "string", "const": example }),
        ),
        _ => ("", json!({ "type": "string" })), // one that is new: tests/deploy/test_contract.py wants to know what it means
    };
    json!({ "description": description, "required": is_required, "schema": schema, "example": example })
}

/// Returns the name of a bucket that a 429 can be for, and these parameters.
fn pattern(parameters: &str) -> Value {
    let buckets = [Scope::Device, Scope::DeviceBytes, Scope::Address]
        .map(Scope::label)
        .join("|");
    json!({ "type": "string", "pattern": format!("^\"({buckets})\";{parameters}$") })
}
