//! The alarm of delivery: raised by a task that panics, so that the gateway drains and ends with an
//! error.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use tokio::task::{JoinHandle, spawn_local};

/// The callback that is told which task has panicked. Clones share it.
#[derive(Clone)]
pub(crate) struct Alarm(Rc<dyn Fn(&'static str)>);

impl Alarm {
    pub(crate) fn new(tell: impl Fn(&'static str) + 'static) -> Self {
        Self(Rc::new(tell))
    }

    /// Returns an alarm without a listener.
    pub(crate) fn silent() -> Self {
        Self::new(|_| ())
    }

    pub(crate) fn raise(&self, what: &'static str) {
        (self.0)(what);
    }

    /// Runs a task, and raises the alarm if it panics: there is no result then.
    pub(crate) async fn guard<T>(
        self,
        what: &'static str,
        task: impl Future<Output = T>,
    ) -> Option<T> {
        #[cfg(test)]
        let task = crate::jitter::seeded::in_any_order(task);
        let result = AssertUnwindSafe(task).catch_unwind().await.ok();
        if result.is_none() {
            self.raise(what);
        }
        result
    }

    /// Starts a task that must not end by a panic.
    pub(crate) fn spawn_guarded(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + 'static,
    ) -> JoinHandle<Option<()>> {
        spawn_local(self.clone().guard(what, task))
    }
}
