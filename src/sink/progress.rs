//! Progress of a call: the records that have arrived before the last outcome is known.
//!
//! A batch has records of many partitions or shards, and one of these may be slow, or away.
//! Delivery looks here which records have arrived already, so that they need not wait for the
//! others.

use std::cell::OnceCell;
#[cfg(test)]
use std::{cell::RefCell, rc::Rc};

/// The progress of one call of [`deliver`](super::Sink::deliver). Sinks that answer for all records
/// at once say nothing here.
#[derive(Default)]
pub struct Progress(OnceCell<Box<dyn Arrivals>>);

/// The sink's own record of one call.
pub(crate) trait Arrivals {
    /// Whether the record at this position is known to be delivered.
    fn has_arrived(&self, position: usize) -> bool;
}

/// The records of a call that have arrived, as a test's sink notes them. Clones share them.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Arrived(Rc<RefCell<Vec<bool>>>);

#[cfg(test)]
impl Arrived {
    pub(crate) fn none_of(records: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![false; records])))
    }

    pub(crate) fn note(&self, position: usize) {
        self.0.borrow_mut()[position] = true;
    }
}

#[cfg(test)]
impl Arrivals for Arrived {
    fn has_arrived(&self, position: usize) -> bool {
        self.0.borrow()[position]
    }
}

impl Progress {
    /// Follows the sink's arrivals from now on. A second call that the sink makes of a part of the
    /// records, numbered anew, is not followed.
    #[cfg(any(feature = "kafka", feature = "kinesis", test))]
    pub(crate) fn follow(&self, arrivals: impl Arrivals + 'static) {
        let _ = self.0.set(Box::new(arrivals));
    }

    /// Whether the record at this position is known to be delivered.
    pub(crate) fn has_arrived(&self, position: usize) -> bool {
        let arrivals = self.0.get();
        arrivals.is_some_and(|arrivals| arrivals.has_arrived(position))
    }
}
