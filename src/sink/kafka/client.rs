//! A producer of librdkafka that is replaced when it has failed for good.
//!
//! librdkafka gives up on an idempotent producer whose sequence no longer fits the broker's (a *fatal error*): it takes
//! nothing more, for ever. The sink asks for the producer batch by batch and so gets a new one. Each producer has a
//! thread that polls it for delivery reports; it ends when the producer is no longer in use here and its last
//! record is reported, which `message.timeout.ms` bounds.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::in_flight::Reports;

pub type Producer = BaseProducer<Reports>;

/// How long one poll for delivery reports waits: how soon a producer that is no longer used is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The least time between two new producers: a cluster that fails each one at once is not to be flooded.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Always has a producer.
pub struct Client {
    config: ClientConfig,
    reports: Reports,
    current: Mutex<Started>,
}

struct Started {
    producer: Arc<Producer>,
    at: Instant,
}

impl Client {
    pub fn new(config: ClientConfig, reports: Reports) -> Result<Self, KafkaError> {
        let current = Mutex::new(start(&config, &reports)?);
        Ok(Self { config, reports, current })
    }

    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The producer; a new one when the last has failed for good, at most once a second.
    pub fn producer(&self) -> Arc<Producer> {
        let mut current = self.lock();
        if let Some(reason) = current.failure() {
            self.renew(&mut current, &reason);
        }
        current.producer.clone()
    }

    /// Why the producer, which is replaced by now, had failed for good.
    pub fn failure(&self) -> Option<String> {
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
        match start(&self.config, &self.reports) {
            Ok(started) => *current = started,
            Err(error) => tracing::warn!(%error, "there is no new producer"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Started> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Started {
    fn failure(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(_, reason)| reason)
    }
}

fn start(config: &ClientConfig, reports: &Reports) -> Result<Started, KafkaError> {
    let producer: Arc<Producer> = Arc::new(config.create_with_context(reports.clone())?);
    poll(producer.clone()).map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok(Started { producer, at: Instant::now() })
}

fn poll(producer: Arc<Producer>) -> io::Result<()> {
    let polling = thread::Builder::new().name("forebay-kafka".into()).spawn(move || {
        while Arc::strong_count(&producer) > 1 || producer.in_flight_count() > 0 {
            producer.poll(POLL_TIMEOUT);
        }
    });
    polling.map(drop)
}
