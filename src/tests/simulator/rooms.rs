//! The settings of the rooms of one process, by the shape of its life.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::plan::{Shape, SinkKind};
use super::world::World;
use crate::batcher::{self, Batcher, OWN_BATCHES_MAX, SHARED_BATCHES_MAX};
use crate::config::{
    AckConfig, AckMode, BatchConfig, ContentEncodings, HttpConfig, KinesisConfig, LimitsConfig,
    Quota, StreamConfig,
};
use crate::delivery::{Backlog, DeliveryOptions, STRAGGLERS_MAX};
use crate::health::Health;
use crate::ingest::{Authorities, Gate, Ingest, Routes};
use crate::jitter::seeded;
use crate::limits::Limits;
use crate::sink::SinkOptions;
use crate::spool::tests::either;
use crate::spool::{GatewayDisk, Log};
use crate::telemetry::metrics::Metrics;

/// The largest body.
pub(crate) const BODY_BYTES_MAX: usize = 2_000;

/// Time-out of a body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn streams(shape: &Shape) -> Vec<StreamConfig> {
    let name = |stream| format!("stream-{stream}");
    let stream = |stream| StreamConfig {
        name: name(stream),
        target: name(stream),
    };
    (0..shape.streams).map(stream).collect()
}

pub(crate) fn first_health(shape: &Shape) -> Health {
    let mut health = Health::new(&streams(shape));
    if shape.spool.is_some() {
        health = health.with_disk();
    }
    match shape.ack {
        AckMode::Durable => health,
        AckMode::Queued => health.with_memory(),
    }
}

/// The spool of a process, if it has one.
#[derive(Default)]
pub(crate) struct Spooled {
    pub backlog: Option<Backlog>,
    /// The backlog and the dead letters, as they lie on disk.
    pub logs: Option<[Log<GatewayDisk>; 2]>,
    /// The task that stands in for the spool's thread.
    pub committing: Option<LocalBoxFuture<'static, ()>>,
}

/// Opens the spool as configured; an error is one that cannot be opened.
pub(crate) fn spool(world: &World, metrics: &Metrics) -> Result<Spooled, String> {
    let shape = &world.plan.shape;
    let Some(mode) = shape.spool else {
        return Ok(Spooled::default());
    };
    let spool = either::Shape {
        disk: world.disk.clone(),
        bytes_max: shape.spool_segments * either::SEGMENT_BYTES,
        when_full: shape.when_full,
        is_encrypted: shape.is_encrypted,
        dead_letter_bytes_max: shape.dead_letter_segments * either::SEGMENT_BYTES,
        metrics: metrics.spool(),
    };
    let opened = spool.open(seeded::disk_turn);
    let (spool, committing) = opened.map_err(|error| error.to_string())?;
    Ok(Spooled {
        logs: Some([spool.backlog.clone(), either::dead_letters(&spool)]),
        backlog: Some(Backlog::new(spool, mode)),
        committing: Some(committing),
    })
}

pub(crate) fn in_flight_batches_max(shape: &Shape) -> usize {
    shape.workers * batcher::in_flight_batches_max(shape.streams)
}

pub(crate) fn batch(shape: &Shape) -> BatchConfig {
    BatchConfig {
        bytes_max: 20_000,
        records_max: shape.batch_records,
        linger: shape.linger,
    }
}

pub(crate) fn ack(shape: &Shape) -> AckConfig {
    AckConfig {
        mode: shape.ack,
        timeout: shape.ack_timeout,
    }
}

pub(crate) fn delivery_options(shape: &Shape) -> DeliveryOptions {
    DeliveryOptions {
        streams: streams(shape),
        batch: batch(shape),
        stream_batches_max: shape.workers * OWN_BATCHES_MAX,
        shared_batches_max: shape.workers * SHARED_BATCHES_MAX,
        ack_timeout: shape.ack_timeout,
    }
}

pub(crate) fn kinesis(shape: &Shape) -> KinesisConfig {
    KinesisConfig {
        aggregate: shape.sink == SinkKind::Aggregated,
    }
}

pub(crate) fn sink_options(shape: &Shape) -> SinkOptions {
    SinkOptions {
        streams: streams(shape),
        body_bytes_max: BODY_BYTES_MAX,
        ack_timeout: shape.ack_timeout,
        memory_bytes_max: shape.memory_bytes,
        in_flight_batches_max: in_flight_batches_max(shape) + shape.streams + STRAGGLERS_MAX,
        threads: 1,
    }
}

pub(crate) fn limits(shape: &Shape) -> Limits {
    const UNLIMITED: Quota = Quota {
        rate: 0.0,
        burst: 0,
    };
    Limits::new(&LimitsConfig {
        device_requests: Quota {
            rate: shape.device_rate as f64,
            burst: 2 * shape.device_rate,
        },
        device_bytes: UNLIMITED,
        device_classes: Vec::new(),
        address_requests: UNLIMITED,
        address_handshakes: UNLIMITED,
        gateway_requests: UNLIMITED,
        devices_max: 1000,
    })
}

pub(crate) fn ingest(shape: &Shape, gate: Gate, batcher: Rc<Batcher>) -> Ingest {
    let routes = Routes::new(Authorities::new(["gateway"]), &streams(shape), &[]);
    Ingest::new(&http_config(), gate, Arc::new(routes), batcher)
}

fn http_config() -> HttpConfig {
    HttpConfig {
        body_bytes_max: BODY_BYTES_MAX,
        records_bytes_max: BODY_BYTES_MAX,
        records_max: 100,
        content_encodings: ContentEncodings {
            gzip: true,
            zstd: true,
        },
        authorities: Vec::new(),
        header_timeout: Duration::from_secs(10),
        body_timeout: BODY_TIMEOUT,
        body_rate_min: 0,
        idle_timeout: Duration::from_secs(300),
    }
}
