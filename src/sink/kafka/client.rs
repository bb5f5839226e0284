//! A producer of librdkafka that is replaced when it has failed for good.
//!
//! librdkafka gives up on an idempotent producer whose sequence no longer fits the broker's (a
//! *fatal error*): it takes nothing more, for ever. The sink asks for the producer batch by batch
//! and so gets a new one. Each producer has a task on delivery's thread that polls it for delivery
//! reports. It ends when the producer has been replaced and its last record is reported, which
//! `message.timeout.ms` bounds, or with the client.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::interval;

use super::keyring::Keyring;
use super::native;
use super::reports::Reports;

/// A producer that tells the sink's [`Reports`].
pub(crate) type Producer = native::Producer<Reports>;

/// Interval of the check for producers that are no longer used.
const USE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The least time between two new producers: a cluster that fails each one at once is not to be
/// flooded.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The client, which always has a producer: one that has failed for good is replaced.
pub(crate) struct Client {
    config: ClientConfig,
    common: Common,
    current: Mutex<Started>,
}

/// The state that all clients of one sink share.
#[derive(Clone)]
pub(crate) struct Common {
    pub reports: Reports,
    pub keyring: Arc<Keyring>,
    /// The topics, by their places.
    pub topics: Arc<[CString]>,
}

impl Common {
    /// Makes a producer that logs in with the secret in force, and with every later one.
    fn producer(&self, config: &ClientConfig) -> Result<Arc<Producer>, KafkaError> {
        let mut config = config.clone();
        self.keyring.configure(&mut config);
        let producer = Producer::new(&config, self.reports.clone(), &self.topics)?;
        let producer = Arc::new(producer);
        self.keyring.enter(&producer);
        Ok(producer)
    }
}

struct Started {
    producer: Arc<Producer>,
    at: Instant,
    /// Tasks that poll this producer, and those before it that have records yet.
    polls: JoinSet<()>,
}

impl Client {
    /// Starts the first producer. To be called on a runtime, which polls it.
    pub(crate) fn new(config: ClientConfig, common: Common) -> Result<Self, KafkaError> {
        let producer = common.producer(&config)?;
        let current = Mutex::new(Started::new(producer, JoinSet::new()));
        Ok(Self {
            config,
            common,
            current,
        })
    }

    /// Makes another client that has the same in common.
    pub(crate) fn beside(&self, config: ClientConfig) -> Result<Self, KafkaError> {
        Self::new(config, self.common.clone())
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.common.reports
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.common.keyring
    }

    /// Returns the producer; a new one when the last has failed for good, at most once a second.
    pub(crate) fn producer(&self) -> Arc<Producer> {
        let mut current = self.lock();
        if let Some(reason) = current.failure() {
            self.renew(&mut current, &reason);
        }
        current.producer.clone()
    }

    /// Tells why the producer, which is replaced by now, had failed for good.
    pub(crate) fn failure(&self) -> Option<String> {
        let mut current = self.lock();
        let reason = current.failure()?;
        self.renew(&mut current, &reason);
        Some(reason)
    }

    fn renew(&self, current: &mut Started, reason: &str) {
        if current.at.elapsed() < RENEWAL_INTERVAL {
            return;
        }
        tracing::warn!(reason, "the producer has failed and is replaced");
        match self.common.producer(&self.config) {
            Ok(producer) => current.give_way(producer),
            Err(error) => tracing::warn!(%error, "there is no new producer"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Started> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Started {
    /// Polls the producer beside those before it.
    fn new(producer: Arc<Producer>, mut polls: JoinSet<()>) -> Self {
        polls.spawn(poll(producer.clone()));
        Self {
            producer,
            at: Instant::now(),
            polls,
        }
    }

    fn failure(&self) -> Option<String> {
        self.producer
            .client()
            .fatal_error()
            .map(|(_, reason)| reason)
    }

    fn give_way(&mut self, next: Arc<Producer>) {
        while self.polls.try_join_next().is_some() {}
        *self = Self::new(next, std::mem::take(&mut self.polls));
    }
}

/// Has records reported until the producer is not used any more.
async fn poll(producer: Arc<Producer>) {
    let mut check = interval(USE_CHECK_INTERVAL);
    while Arc::strong_count(&producer) > 1 || producer.in_flight_count() > 0 {
        tokio::select! {
            () = producer.has_events() => producer.report(),
            _ = check.tick() => {}
        }
    }
    // It waits for its threads.
    spawn_blocking(move || drop(producer));
}
