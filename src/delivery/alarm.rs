//! Tells the gateway what has ended that must not end: it then drains, and ends with an error.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use tokio::task::{JoinHandle, spawn_local};

/// Whom delivery tells. Clones tell the same one.
#[derive(Clone)]
pub(crate) struct Alarm(Rc<dyn Fn(&'static str)>);

impl Alarm {
    pub(crate) fn new(tell: impl Fn(&'static str) + 'static) -> Self {
        Self(Rc::new(tell))
    }

    /// Tells nobody.
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
