//! The causes of a client's error: the errors behind it, the first cause last.
//!
//! An HTTP client's own words say mostly that there was no answer; the end of the chain says why.

use std::error::Error;

/// Returns the error and all that are behind it.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// Returns the text of the first cause, which says most.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let first = causes(error).last();
    first.expect("an error is behind itself").to_string()
}
