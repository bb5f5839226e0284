//! The `date` of answers (RFC 9110 section 6.6.1).

use std::cell::{Cell, RefCell};

use http::header::HeaderValue;

use crate::record::Timestamp;

/// The second for which something was written last.
#[derive(Default)]
pub(crate) struct Second(Cell<u64>);

impl Second {
    /// Whether `at` is in another second, which is the one from now on.
    pub(crate) fn has_passed(&self, at: Timestamp) -> bool {
        let second = at.0 / 1000;
        self.0.replace(second) != second
    }
}

/// The date that all connections of a worker send, written once a second.
pub(crate) struct Date {
    second: Second,
    value: RefCell<HeaderValue>,
}

impl Default for Date {
    fn default() -> Self {
        Self {
            second: Second::default(),
            value: RefCell::new(Timestamp(0).http_date()),
        }
    }
}

impl Date {
    /// Returns the field's value in an answer that is made `at` this time.
    pub(crate) fn at(&self, at: Timestamp) -> HeaderValue {
        if self.second.has_passed(at) {
            *self.value.borrow_mut() = at.http_date();
        }
        self.value.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let date = Date::default();
        assert_eq!(date.at(Timestamp(999)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(
            date.at(Timestamp(1_767_268_800_999)),
            "Thu, 01 Jan 2026 12:00:00 GMT"
        );
        assert_eq!(
            date.at(Timestamp(1_767_268_801_000)),
            "Thu, 01 Jan 2026 12:00:01 GMT"
        );
    }
}
