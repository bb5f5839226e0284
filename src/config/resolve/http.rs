//! The settings of requests: bodies, records, codings, and their time-outs.

use super::{BODY_BYTES_LIMIT, MEMORY_HEADROOM_BYTES, Reader};
use crate::config::{Config, ContentEncodings, HttpConfig, value};

/// The most records in one request, and the most bytes of them.
const RECORDS_LIMIT: usize = 10_000;
const RECORDS_BYTES_LIMIT: usize = 16 << 20;

impl Reader<'_> {
    pub(super) fn http(&mut self) -> HttpConfig {
        HttpConfig {
            body_bytes_max: self.size("FOREBAY_BODY_BYTES_MAX", BODY_BYTES_LIMIT),
            records_bytes_max: self.size("FOREBAY_RECORDS_BYTES_MAX", RECORDS_BYTES_LIMIT),
            records_max: self.count("FOREBAY_RECORDS_MAX", RECORDS_LIMIT),
            content_encodings: self.value(
                "FOREBAY_CONTENT_ENCODINGS",
                value::content_encodings,
                ContentEncodings::default(),
            ),
            authorities: self.value("FOREBAY_AUTHORITIES", value::authorities, Vec::new()),
            header_timeout: self.timeout("FOREBAY_HEADER_TIMEOUT"),
            body_timeout: self.timeout("FOREBAY_BODY_TIMEOUT"),
            body_rate_min: self.value("FOREBAY_BODY_RATE_MIN", value::bytes, 0),
            idle_timeout: self.timeout("FOREBAY_IDLE_TIMEOUT"),
        }
    }

    /// Bounds a body of records by the memory budget: silently where its bound is the default one.
    pub(super) fn fit_records(&mut self, config: &mut Config) {
        const NAME: &str = "FOREBAY_RECORDS_BYTES_MAX";
        let fits = config
            .memory_bytes_max
            .saturating_sub(MEMORY_HEADROOM_BYTES);
        if config.http.records_bytes_max <= fits {
            return;
        }
        if self.is_given(NAME) && !self.is_default(NAME) {
            self.fault(NAME, "is more than FOREBAY_MEMORY_MAX has room for");
        }
        config.http.records_bytes_max = fits;
    }
}
