//! Can anything be made safe? Written by delivery, read by every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

/// Whether records are taken, and if not, why.
#[derive(Debug)]
pub struct Health {
    up: AtomicBool,
    reason: ArcSwapOption<String>,
}

impl Health {
    pub fn up() -> Self {
        Self {
            up: AtomicBool::new(true),
            reason: ArcSwapOption::empty(),
        }
    }

    pub fn down(reason: String) -> Self {
        Self {
            up: AtomicBool::new(false),
            reason: ArcSwapOption::from_pointee(reason),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Why nothing can be made safe; `None` while it can.
    pub fn reason(&self) -> Option<Arc<String>> {
        self.reason.load_full()
    }

    pub fn set_up(&self) {
        self.reason.store(None);
        self.up.store(true, Ordering::Relaxed);
    }

    pub fn set_down(&self, reason: String) {
        self.up.store(false, Ordering::Relaxed);
        self.reason.store(Some(Arc::new(reason)));
    }
}
