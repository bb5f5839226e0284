//! The sinks of records: Kafka, Kinesis, files, or none.
//!
//! A sink takes a batch and answers with one outcome for each record: it never drops one silently
//! and never waits without a bound. Delivery calls it from its own thread's runtime, several
//! batches at a time, the batches of one lane in their order. A sink retries by itself only if its
//! protocol does so without a change of order; a record that it gives back as
//! [`Outcome::Retryable`](crate::record::Outcome) has not been written.

#[cfg(any(feature = "kafka", feature = "kinesis"))]
mod cause;
pub(crate) mod file;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
#[cfg(feature = "kinesis")]
pub(crate) mod kinesis;
mod progress;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{SinkConfig, StreamConfig};
use crate::health::Spread;
use crate::record::{Outcomes, Record, StreamIndex};
#[cfg(any(feature = "kafka", feature = "kinesis", test))]
pub(crate) use progress::Arrivals;
#[cfg(test)]
pub(crate) use progress::Arrived;
pub use progress::Progress;

/// Interval between questions to an idle stream, of a sink that answers them at no cost.
const IDLE_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Demands on a sink, from the gateway's configuration.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    pub streams: Vec<StreamConfig>,
    /// The largest body that a device may post.
    pub body_bytes_max: usize,
    /// Time that a request waits for its ack; a sink gives up on a record about then.
    pub ack_timeout: Duration,
    /// The memory budget over all records that are not yet safe: no sink needs to hold more of
    /// them.
    pub memory_bytes_max: usize,
    /// Most batches that are in flight at once.
    pub in_flight_batches_max: usize,
    /// Threads that a sink may have for work of which a record needs more than its worker did.
    pub threads: usize,
}

/// The reason why a sink, or one of its streams, takes no records.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// It can never work as configured; the text names the setting. The gateway does not start with
    /// it.
    #[error("{0}")]
    Misconfigured(String),
    /// It answers, but the stream is missing or closed to this gateway; the text names the remedy.
    #[error("{0}")]
    Closed(String),
    /// It cannot be reached now.
    #[error("{0}")]
    Away(String),
}

/// The partitions of a stream, as the sink knows them.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    pub spread: Spread,
    /// Partitions that take no records now, or have more to do than they get done.
    pub away: BTreeSet<u32>,
    /// Whether others may be away without the sink's knowledge: silent ones.
    pub may_be_silent: bool,
}

/// The configured sink.
pub enum Sink {
    Null,
    File(file::FileSink),
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::KafkaSink>),
    #[cfg(feature = "kinesis")]
    Kinesis(kinesis::KinesisSink),
    /// A sink that a test scripts.
    #[cfg(test)]
    Scripted(Box<dyn Scripted>),
}

/// The sink's way with several records of one device in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// They arrive one behind the other without waiting for each other.
    WithinCall,
    /// They wait for each other: several in one call gain nothing.
    #[cfg_attr(not(feature = "kinesis"), allow(dead_code))] // Kinesis alone is so
    OneByOne,
}

/// A sink of a test.
#[cfg(test)]
pub trait Scripted {
    /// Whether the stream is there.
    fn verify(&self, stream: StreamIndex) -> Result<(), SinkError>;

    /// Whether several records of a device may go in one call.
    fn keeps_order_within_call(&self) -> bool {
        true
    }

    /// Whether the records of a call are answered together.
    fn answers_together(&self) -> bool {
        false
    }

    /// Returns the time that acknowledgements take, as far as it knows.
    fn ack_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the stream's partitions, if it has some.
    #[allow(private_interfaces)] // only tests of this crate have a sink of their own
    fn partitions(&self, _: StreamIndex) -> Option<Partitions> {
        None
    }

    fn deliver<'a>(
        &'a self,
        stream: StreamIndex,
        records: &'a [Record],
        progress: &'a Progress,
    ) -> futures_util::future::LocalBoxFuture<'a, Outcomes>;
}

impl Sink {
    /// Builds the client; does not need the sink to be reachable. Wrong settings are
    /// `Misconfigured`. `on_password` is called when a password file has changed, with whether it
    /// is of use.
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables))]
    pub async fn open(
        config: &SinkConfig,
        options: SinkOptions,
        on_password: impl Fn(bool) + Send + 'static,
    ) -> Result<Self, SinkError> {
        Ok(match config {
            SinkConfig::Null => Self::Null,
            SinkConfig::File(config) => Self::File(file::FileSink::open(config, options)?),
            #[cfg(feature = "kafka")]
            SinkConfig::Kafka(config) => {
                let sink = kafka::KafkaSink::open(config, options, on_password)?;
                Self::Kafka(Box::new(sink))
            }
            #[cfg(feature = "kinesis")]
            SinkConfig::Kinesis(config) => {
                Self::Kinesis(kinesis::KinesisSink::open(config, options).await?)
            }
        })
    }

    /// Builds all that can be built without the network. `Ok` names the checks that have to wait
    /// for the start, if there are any.
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables))]
    pub async fn check(
        config: &SinkConfig,
        options: &SinkOptions,
        reads_files: bool,
    ) -> Result<Option<&'static str>, SinkError> {
        match config {
            SinkConfig::Null | SinkConfig::File(_) => Ok(None),
            #[cfg(feature = "kafka")]
            SinkConfig::Kafka(config) => {
                kafka::KafkaSink::check(config, options, reads_files).map(|()| None)
            }
            #[cfg(feature = "kinesis")]
            SinkConfig::Kinesis(_) => kinesis::check(options).await,
        }
    }

    /// Asks whether each of these streams is there, and takes the largest record. One answer for
    /// each, in their order.
    pub async fn verify(&self, streams: &[StreamIndex]) -> Vec<Result<(), SinkError>> {
        match self {
            Self::Null => vec![Ok(()); streams.len()],
            Self::File(sink) => vec![sink.verify().await; streams.len()],
            #[cfg(feature = "kafka")]
            Self::Kafka(sink) => sink.verify(streams).await,
            #[cfg(feature = "kinesis")]
            Self::Kinesis(sink) => sink.verify(streams).await,
            #[cfg(test)]
            Self::Scripted(sink) => streams.iter().map(|stream| sink.verify(*stream)).collect(),
        }
    }

    /// Returns the stream's partitions, or shards; `None` while it is not known to which of them a
    /// device's records go. It costs nothing to ask.
    #[cfg_attr(
        not(any(feature = "kafka", feature = "kinesis")),
        allow(unused_variables)
    )]
    pub(crate) fn partitions(&self, stream: StreamIndex) -> Option<Partitions> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(sink) => sink.partitions(stream),
            #[cfg(feature = "kinesis")]
            Self::Kinesis(sink) => sink.partitions(stream),
            #[cfg(test)]
            Self::Scripted(sink) => sink.partitions(stream),
            _ => None,
        }
    }

    /// Returns the time that acknowledgements take of late; 0 where the sink does not know.
    pub(crate) fn ack_time(&self) -> Duration {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(sink) => sink.ack_time(),
            #[cfg(test)]
            Self::Scripted(sink) => sink.ack_time(),
            _ => Duration::ZERO,
        }
    }

    /// Whether the records of a call are answered together, except those that wait for another try.
    pub(crate) fn answers_together(&self) -> bool {
        match self {
            #[cfg(feature = "kinesis")]
            Self::Kinesis(_) => true,
            #[cfg(test)]
            Self::Scripted(sink) => sink.answers_together(),
            _ => false,
        }
    }

    /// Returns the interval between questions to a stream without trouble; `None` if the sink is
    /// asked in doubt only.
    pub fn idle_probe_interval(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "kinesis")]
            Self::Kinesis(_) => None,
            _ => Some(IDLE_PROBE_INTERVAL),
        }
    }

    /// Returns the sink's way with several records of one device in one call. Calls that are in
    /// flight at the same time promise nothing of each other's failures: a device has records in
    /// one of them only.
    pub(crate) fn keeps_order(&self) -> Order {
        match self {
            Self::Null | Self::File(_) => Order::WithinCall,
            // An idempotent producer, or one with one request in flight.
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => Order::WithinCall,
            #[cfg(feature = "kinesis")]
            Self::Kinesis(sink) if sink.aggregates() => Order::WithinCall,
            #[cfg(feature = "kinesis")]
            Self::Kinesis(_) => Order::OneByOne,
            #[cfg(test)]
            Self::Scripted(sink) if sink.keeps_order_within_call() => Order::WithinCall,
            #[cfg(test)]
            Self::Scripted(_) => Order::OneByOne,
        }
    }

    /// Hands the records over in their order and waits for the outcome of each; `progress` tells
    /// meanwhile which of them have arrived. A cancelled call leaves the outcomes unknown.
    #[cfg_attr(
        not(any(feature = "kafka", feature = "kinesis")),
        allow(unused_variables)
    )]
    pub(crate) async fn deliver(
        &self,
        stream: StreamIndex,
        records: &[Record],
        progress: &Progress,
    ) -> Outcomes {
        match self {
            Self::Null => Outcomes::DELIVERED,
            Self::File(sink) => sink.deliver(stream, records).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(sink) => sink.deliver_with(stream, records, progress).await,
            #[cfg(feature = "kinesis")]
            Self::Kinesis(sink) => sink.deliver_with(stream, records, progress).await,
            #[cfg(test)]
            Self::Scripted(sink) => sink.deliver(stream, records, progress).await,
        }
    }
}
