//! The partitions of the topics, and those of them without a leader.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::metadata::MetadataPartition;

use super::{KafkaSink, native};
use crate::health::Spread;
use crate::record::StreamIndex;
use crate::sink::Partitions;

/// The partitions of one topic, as the brokers told of them.
#[derive(Clone, Debug)]
pub(crate) struct Leaders {
    partitions: u32,
    leaderless: BTreeSet<u32>,
}

/// The partitions of each topic, as the brokers reported them last.
pub(crate) struct KnownLeaders(Mutex<Vec<Option<Leaders>>>);

impl Leaders {
    pub(crate) fn of(partitions: &[MetadataPartition]) -> Self {
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
        let ids = leaderless.map(|partition| partition.id().unsigned_abs());
        Self {
            leaderless: ids.collect(),
            partitions: partitions.len() as u32,
        }
    }
}

impl KnownLeaders {
    pub(crate) fn none(topics: usize) -> Self {
        Self(Mutex::new(vec![None; topics]))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Leaders>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a topic's partitions, and logs their number if it is new.
    pub(crate) fn note(&self, stream: StreamIndex, topic: &str, leaders: Leaders) {
        let known = &mut self.lock()[stream.get()];
        let partitions = leaders.partitions;
        if known
            .as_ref()
            .is_none_or(|known| known.partitions != partitions)
        {
            tracing::info!(topic, partitions, "the topic is there");
        }
        *known = Some(leaders);
    }
}

impl KafkaSink {
    /// Returns the number of partitions of the stream's topic, as far as it is known.
    pub(super) fn partition_count(&self, stream: StreamIndex) -> Option<u32> {
        let leaders = self.leaders.lock();
        let partitions = leaders[stream.get()].as_ref()?.partitions;
        (partitions > 0).then_some(partitions)
    }

    /// Returns the partitions of the stream's topic, as they were reported last; `None` if the
    /// partitioner is not murmur2.
    pub(crate) fn partitions(&self, stream: StreamIndex) -> Option<Partitions> {
        if !self.settings.spreads_by_murmur2() {
            return None;
        }
        let leaders = self.leaders.lock()[stream.get()].clone()?;
        let has_partitions = leaders.partitions > 0;
        has_partitions.then_some(Partitions {
            spread: Spread::Hashed {
                find: native::murmur2_partition,
                partitions: leaders.partitions,
            },
            away: leaders.leaderless,
            may_be_silent: true,
        })
    }
}
