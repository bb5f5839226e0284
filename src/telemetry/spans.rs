//! Spans of requests, where the gateway was built with `otlp` and the environment names a
//! collector; else nothing.

use super::access::Exchange;
use crate::record::TraceParent;

/// A worker's sender of spans to the collector.
#[derive(Clone, Default)]
pub(crate) struct Spans {
    #[cfg(feature = "otlp")]
    pub(crate) tracer: Option<super::otlp::Tracer>,
}

#[cfg(feature = "otlp")]
impl Spans {
    /// Whether anybody wants to know.
    pub(crate) fn are_on(&self) -> bool {
        self.tracer.is_some()
    }

    /// A request has been answered; the SDK's sampler decides whether it becomes a span.
    pub(crate) fn record(&self, exchange: &Exchange<'_>, trace: Option<&TraceParent>) {
        self.tracer
            .iter()
            .for_each(|tracer| tracer.record(exchange, trace));
    }
}

#[cfg(not(feature = "otlp"))]
impl Spans {
    pub(crate) fn are_on(&self) -> bool {
        false
    }

    pub(crate) fn record(&self, _: &Exchange<'_>, _: Option<&TraceParent>) {}
}
