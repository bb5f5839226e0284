//! The primitives under the hand-over queue. `tests/loom.rs` puts loom's in their place and compiles the same
//! `handover.rs` against them.

pub use crossbeam_queue::ArrayQueue;
pub use futures_util::task::AtomicWaker;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicUsize, Ordering};
