//! Can anything be made safe? Written by delivery, read by every request.
//!
//! Where records are answered before they are safe, memory takes them while nothing can be made safe: then requests are not
//! refused for it, though the gateway is not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

/// Whether records are taken, and if not, why.
#[derive(Debug)]
pub struct Health {
    up: AtomicBool,
    reason: ArcSwapOption<String>,
    memory_takes: bool,
}

impl Health {
    pub fn up() -> Self {
        Self {
            up: AtomicBool::new(true),
            reason: ArcSwapOption::empty(),
            memory_takes: false,
        }
    }

    pub fn down(reason: String) -> Self {
        Self {
            up: AtomicBool::new(false),
            reason: ArcSwapOption::from_pointee(reason),
            memory_takes: false,
        }
    }

    /// Memory takes records whatever happens.
    pub fn with_memory(self) -> Self {
        Self {
            up: AtomicBool::new(true),
            memory_takes: true,
            ..self
        }
    }

    /// Whether records are taken.
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
        self.up.store(self.memory_takes, Ordering::Relaxed);
        self.reason.store(Some(Arc::new(reason)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_records_while_the_gateway_is_not_ready() {
        let health = Health::down("not asked yet".into()).with_memory();
        assert!(health.is_up() && health.reason().is_some());
        health.set_up();
        assert!(health.is_up() && health.reason().is_none());
        health.set_down("gone".into());
        assert!(health.is_up() && health.reason().is_some());
    }
}
