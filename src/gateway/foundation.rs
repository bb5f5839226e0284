//! The foundation that every thread of the gateway stands on: health, the gate, the observers, and
//! the phases.

use std::sync::Arc;

use super::observers;
use crate::admission::Admission;
use crate::config::{AckMode, Config};
use crate::health::Health;
use crate::http::openapi;
use crate::ingest::Gate;
use crate::lifecycle::Phases;
use crate::limits::Limits;
use crate::telemetry::admin::Status;
use crate::telemetry::observers::Observers;

/// The foundation is laid before any thread starts, and outlives them.
pub(crate) struct Foundation {
    pub health: Arc<Health>,
    pub gate: Gate,
    pub observers: Observers,
    pub phases: Phases,
    /// Every setting with its value and source; secrets are not shown.
    settings: String,
}

impl Foundation {
    /// An error is a log that cannot be opened.
    pub(crate) fn lay(config: &Config, phases: Phases) -> anyhow::Result<Self> {
        let health = Arc::new(first_health(config));
        let gate = gate(config, health.clone(), phases.clone());
        let observers = observers::start(config, &gate)?;
        Ok(Self {
            health,
            gate,
            observers,
            phases,
            settings: config.described.clone(),
        })
    }

    /// Gathers the state that the admin address tells.
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::new(Status {
            health: self.health.clone(),
            phases: self.phases.clone(),
            openapi: openapi::document,
            metrics: self.observers.metrics.clone(),
            top: self.observers.top.clone(),
            expiring: self.observers.expiring.clone(),
            audit: self.observers.audit.clone(),
            settings: self.settings.clone(),
        })
    }
}

fn first_health(config: &Config) -> Health {
    let mut health = Health::new(&config.streams);
    if config.spool.is_some() {
        health = health.with_disk();
    }
    if let Some(events) = &config.events {
        health = health.with_events(events.stream);
    }
    match config.ack.mode {
        AckMode::Durable => health,
        AckMode::Queued => health.with_memory(),
    }
}

fn gate(config: &Config, health: Arc<Health>, phases: Phases) -> Gate {
    let (bytes_max, body_bytes_max) = (config.memory_bytes_max, config.http.body_bytes_max);
    let admission = Admission::new(bytes_max, body_bytes_max, health, phases);
    Gate::new(Limits::new(&config.limits), admission)
}
