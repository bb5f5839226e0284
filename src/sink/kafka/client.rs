//! A producer of librdkafka that is replaced when it has failed for good.
//!
//! librdkafka gives up on an idempotent producer whose sequence no longer fits the broker's (a *fatal error*): it takes
//! nothing more, for ever. The sink asks for the producer batch by batch and so gets a new one. Each producer has a
//! thread that polls it for delivery reports. It ends when the producer has been replaced and its last record is
//! reported, which `message.timeout.ms` bounds, or with the client: librdkafka must not run on into the end of
//! the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::reports::Reports;

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
    ending: Arc<AtomicBool>,
}

struct Started {
    producer: Arc<Producer>,
    at: Instant,
    /// Poll this producer and those before it that have records yet.
    threads: Vec<JoinHandle<()>>,
}

impl Client {
    pub fn new(config: ClientConfig, reports: Reports) -> Result<Self, KafkaError> {
        let ending = Arc::default();
        let current = Mutex::new(start(&config, &reports, &ending)?);
        Ok(Self { config, reports, current, ending })
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
        match start(&self.config, &self.reports, &self.ending) {
            Ok(started) => current.give_way(started),
            Err(error) => tracing::warn!(%error, "there is no new producer"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Started> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.lock().threads);
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Started {
    fn failure(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(_, reason)| reason)
    }

    fn give_way(&mut self, next: Self) {
        self.threads.retain(|thread| !thread.is_finished());
        self.threads.extend(next.threads);
        (self.producer, self.at) = (next.producer, next.at);
    }
}

fn start(config: &ClientConfig, reports: &Reports, ending: &Arc<AtomicBool>) -> Result<Started, KafkaError> {
    let producer: Arc<Producer> = Arc::new(config.create_with_context(reports.clone())?);
    let thread = poll(producer.clone(), ending.clone());
    let threads = vec![thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?];
    Ok(Started { producer, at: Instant::now(), threads })
}

fn poll(producer: Arc<Producer>, ending: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("forebay-kafka".into()).spawn(move || {
        let is_used = || Arc::strong_count(&producer) > 1 || producer.in_flight_count() > 0;
        while is_used() && !ending.load(Ordering::Relaxed) {
            producer.poll(POLL_TIMEOUT);
        }
    })
}
