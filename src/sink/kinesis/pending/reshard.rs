//! Reshards: sorts the waiting records anew when the stream has other shards than before.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::queue::Queue;
use super::super::shards::Shards;
use super::Pending;

impl Pending {
    /// Sorts the waiting records by these shards. A shard that was there before keeps its pace.
    pub(crate) fn reshard(&mut self, shards: Arc<Shards>, now: Instant) {
        if Arc::ptr_eq(&shards, &self.shards) {
            return;
        }
        let ready = self.replace_queues(&shards, now);
        self.turns.clear();
        self.paced.clear();
        self.overload.forget();
        for (key, device) in &mut self.devices {
            device.shard = shards.find(*key);
            self.queues[device.shard].load += device.load();
        }
        self.shards = shards;
        for key in ready {
            if let Some(shard) = self.devices.get(&key).map(|device| device.shard) {
                self.make_ready(key, shard);
            }
        }
        debug_assert_eq!(self.waiting, self.waiting_in_queues(), "a record stays one");
    }

    /// Makes an empty queue for each shard, and returns the devices that were ready in the old
    /// ones.
    fn replace_queues(&mut self, shards: &Shards, now: Instant) -> Vec<u128> {
        let mut ready = Vec::new();
        let mut before = HashMap::new();
        for mut queue in self.queues.drain(..) {
            ready.extend(queue.clear());
            before.insert(queue.shard.clone(), queue);
        }
        for id in shards.ids() {
            let queue = before.remove(id);
            let queue = queue.unwrap_or_else(|| Queue::new(Arc::clone(id), now));
            self.queues.push(queue);
        }
        debug_assert_eq!(self.queues.len(), shards.len(), "a queue for each shard");
        ready
    }

    fn waiting_in_queues(&self) -> usize {
        let loads = self.queues.iter().map(|queue| queue.load.records);
        loads.sum()
    }
}
