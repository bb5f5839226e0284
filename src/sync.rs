//! The primitives under the hand-over queue, the table of limits, permits and the commit queue of
//! the spool. `tests/loom*.rs` put loom's in their place and compile the same source against them.

pub(crate) use crossbeam_queue::ArrayQueue;
pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
