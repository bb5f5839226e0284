//! What is known of a call's records before the last of them is known.
//!
//! A batch has records of many partitions or shards, and one of these may be slow, or away. Delivery
//! looks here which records have arrived already, so that they need not wait for the others.

use std::cell::OnceCell;
#[cfg(test)]
use std::{cell::RefCell, rc::Rc};

/// The progress of one call of [`deliver`](super::Sink::deliver). Sinks that answer for all records
/// at once say nothing here.
#[derive(Default)]
pub struct Progress(OnceCell<Box<dyn Arrivals>>);

/// A sink's own knowledge of one call.
pub(crate) trait Arrivals {
    /// Whether the record at this position is delivered, as far as is known now.
    fn has_arrived(&self, position: usize) -> bool;
}

/// Which records of a call have arrived, as a test's sink notes it. Clones share it.
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
    /// The sink knows it from now on. What one call says later of a part of its records, numbered
    /// anew, is not followed.
    #[cfg(any(feature = "kafka", feature = "kinesis", test))]
    pub(crate) fn follow(&self, arrivals: impl Arrivals + 'static) {
        let _ = self.0.set(Box::new(arrivals));
    }

    /// Whether the record at this position is delivered, as far as is known now.
    pub(crate) fn has_arrived(&self, position: usize) -> bool {
        let arrivals = self.0.get();
        arrivals.is_some_and(|arrivals| arrivals.has_arrived(position))
    }
}
