//! Forebay: a telemetry ingestion gateway.

pub mod config;
pub mod handover;
pub mod identity;
pub mod limits;
pub mod record;
pub mod sink;
pub mod sync;
pub mod telemetry;
