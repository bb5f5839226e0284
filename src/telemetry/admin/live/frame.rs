//! One second's news, as an event of one JSON object.
//!
//! `metrics` has every series of `/metrics` by the name that it has there, read at the same time; a
//! counter that is not among them is 0. The page makes its rates of two frames. What comes from
//! devices (ids, names in certificates) is text in JSON strings, which the page shows as text.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::record::Timestamp;
use crate::telemetry::admin::Status;

/// The most devices that are told, of each kind.
const DEVICES_TOLD_MAX: usize = 10;

/// Makes the event that all who watch are told now.
pub(super) fn make(status: &Status) -> Bytes {
    let state = state(status);
    let metrics = Value::Object(series(&status.metrics.render()));
    let top = status.top.report_of(DEVICES_TOLD_MAX);
    let now = Timestamp::now();
    let expiring = status.expiring.report_of(DEVICES_TOLD_MAX, now);
    let events = status.audit.recent();
    let events: Vec<&str> = events.iter().map(|line| line.trim_end()).collect();
    let events = events.join(",");
    format!(
        "data: {{\"state\":{state},\"metrics\":{metrics},\"top\":{top},\"expiring\":{expiring},\"events\":[{events}]}}\n\n"
    )
    .into()
}

fn state(status: &Status) -> Value {
    let (is_ready, reason) = match status.readiness() {
        Ok(away) => (true, away),
        Err(reason) => (false, reason),
    };
    let mut streams = Vec::new();
    for (name, is_up, reason) in status.health.streams() {
        streams.push(json!({ "name": name, "up": is_up, "reason": reason.as_deref() }));
    }
    json!({
        "at_ms": Timestamp::now().0,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": is_ready,
        "draining": status.is_leaving(),
        "reason": reason,
        "streams": streams,
    })
}

/// The series of a text in Prometheus' format, by name and labels.
fn series(text: &str) -> Map<String, Value> {
    let mut series = Map::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let value: f64 = value.parse().unwrap_or_default();
        if value != 0.0 || !is_counter(name) {
            series.insert(name.into(), value.into());
        }
    }
    series
}

fn is_counter(series: &str) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    name.ends_with("_total") || name.ends_with("_bucket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_zero_are_left_out_and_gauges_are_not() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{of=\"b c\"} 7\na_total{of=\"d\"} 0\n\n\
                    up{of=\"_total\"} 0\nb_bucket{le=\"+Inf\"} 0\nseconds 0.5\n";
        let told = json!({ "a_total{of=\"b c\"}": 7.0, "up{of=\"_total\"}": 0.0, "seconds": 0.5 });
        assert_eq!(Value::Object(series(text)), told);
    }
}
