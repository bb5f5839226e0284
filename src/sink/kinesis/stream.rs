//! One stream as AWS sees it: the service that has it, and its shards.
//!
//! `dispatch`, `call` and `verify` share it. It asks AWS for the shards at each `verify`, and when
//! an answer names another shard than expected; the last list holds until the next.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::failure::Failure;
use super::service::Service;
use super::shards::Shards;
use crate::sink::Partitions;

/// Bounds the time for all pages of the list of shards.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Stream {
    pub service: Service,
    pub name: Arc<str>,
    shards: watch::Sender<Arc<Shards>>,
    /// The overloaded ones of these shards.
    overloaded: Mutex<(Arc<Shards>, BTreeSet<u32>)>,
    has_warned: Once,
}

impl Stream {
    pub(crate) fn new(service: Service, name: &str) -> Self {
        let shards = Arc::new(Shards::unknown());
        Self {
            service,
            name: name.into(),
            overloaded: Mutex::new((shards.clone(), BTreeSet::new())),
            shards: watch::Sender::new(shards),
            has_warned: Once::new(),
        }
    }

    /// Returns the shards as they were known last.
    pub(crate) fn shards(&self) -> Arc<Shards> {
        self.shards.borrow().clone()
    }

    /// Notes that these of the shards are overloaded, and no others.
    pub(crate) fn set_overloaded(&self, shards: &Arc<Shards>, overloaded: &BTreeSet<u32>) {
        debug_assert!(overloaded.last() < Some(&(shards.len() as u32)));
        let known = &mut *self.lock_overloaded();
        if !Arc::ptr_eq(&known.0, shards) || known.1 != *overloaded {
            *known = (shards.clone(), overloaded.clone());
        }
    }

    /// Returns the shards as they are known now; `None` while they are not.
    pub(crate) fn partitions(&self) -> Option<Partitions> {
        let shards = self.shards();
        let (of_shards, overloaded) = &*self.lock_overloaded();
        let away = match Arc::ptr_eq(of_shards, &shards) {
            true => overloaded.clone(),
            false => BTreeSet::new(),
        };
        Some(Partitions {
            spread: shards.spread()?,
            away,
            // A call that is not answered says nothing of its shards.
            may_be_silent: false,
        })
    }

    fn lock_overloaded(&self) -> MutexGuard<'_, (Arc<Shards>, BTreeSet<u32>)> {
        self.overloaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the shards. In the midst of a reshard they stay as they were.
    pub(crate) async fn list_shards(&self) -> Result<Arc<Shards>, Failure> {
        let slow = |_| Failure::NoAnswer("timeout".into());
        let listed = timeout(LIST_TIMEOUT, self.service.list_shards(&self.name));
        let listed = listed.await.map_err(slow)??;
        if let Some(shards) = Shards::of(&listed).map(Arc::new) {
            self.shards.send_if_modified(|current| {
                let is_new = **current != *shards;
                if is_new {
                    tracing::info!(
                        stream = &*self.name,
                        shards = shards.len(),
                        "the stream's shards are known"
                    );
                    *current = shards;
                }
                is_new
            });
        }
        Ok(self.shards())
    }

    /// Warns once.
    pub(crate) fn warn_of_one_shard(&self) {
        self.has_warned.call_once(|| {
            tracing::warn!(
                stream = &*self.name,
                "the shards may not be listed: when one is full, all are slowed down; allow kinesis:ListShards"
            );
        });
    }
}
