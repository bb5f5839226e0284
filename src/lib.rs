//! Forebay: a telemetry ingestion gateway. Devices post readings over mutual TLS; a 204 means that
//! the reading is safe.
//!
//! The rooms, in the order in which a payload passes them:
//!
//! 1. [`worker`]: one thread per core, one single-threaded runtime, its own listeners and lanes.
//! 2. [`accept`]: a permit, then TLS or QUIC within a deadline.
//! 3. [`tls`]: the client certificate is required and verified.
//! 4. [`identity`]: the leaf certificate becomes a device, once per connection; [`devices`] says
//!    whether it may speak.
//! 5. [`http`]: h1, h2 and h3 are thin adapters over one service.
//! 6. [`ingest`]: the hot path: [`limits`], [`admission`], the body, its stream's [`rules`], a
//!    [`record`], the ack.
//!    [`events`] tells of the fleet beside it.
//! 7. [`batcher`]: a worker's lanes seal batches, which cross by the [`handover`].
//! 8. [`delivery`]: one thread keeps the sink busy and watches whether it is there; [`health`] is
//!    what it finds.
//! 9. [`sink`]: Kafka, Kinesis, files, or nothing; [`spool`]: the local disk, while the sink cannot
//!    take more.
//!
//! Two things flow backward: the ack, in a settled batch, and the permit, when a record is dropped.
//! [`gateway`] puts the rooms together; [`config`], [`telemetry`] and [`lifecycle`], the phases of
//! the process, are there for all of them. [`pki`] makes certificates for those who have none, and
//! [`pem`] reads their files. [`durable`] creates files and folders that survive a crash, [`cli`]
//! is the command line, [`topic`] reads names and filters of MQTT, [`protobuf`] writes fields,
//! [`hex`] reads digits, [`jitter`] spreads waits, [`words`] are the names that several rooms use, and [`sync`] has the atomics that loom replaces.
//! ARCHITECTURE.md tells of the way of a record.

#![deny(unsafe_code)] // the modules that need some allow it and say why
#![deny(unreachable_pub, unnameable_types)]

mod accept;
mod admission;
mod batcher;
mod cli;
mod config;
mod delivery;
mod devices;
mod durable;
mod events;
mod gateway;
mod handover;
mod health;
mod hex;
mod http;
mod identity;
mod ingest;
#[doc(hidden)]
pub mod internals;
mod jitter;
mod lifecycle;
mod limits;
mod pem;
mod pki;
mod protobuf;
mod record;
mod rules;
mod sink;
mod spool;
mod sync;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod topic;
mod words;
mod worker;

pub use cli::run;
