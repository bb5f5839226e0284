//! The primitives under the hand-over queue and the table of limits. `tests/loom*.rs` put loom's in their place and
//! compile the same source against them.

pub use arc_swap::ArcSwap;
pub use crossbeam_queue::ArrayQueue;
pub use futures_util::task::AtomicWaker;
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard};
