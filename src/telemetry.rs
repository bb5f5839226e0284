//! What the gateway tells its operators: metrics, logs, the audit and access logs, the busiest devices, and the admin
//! address that serves them.

pub mod access;
pub mod admin;
pub mod audit;
pub mod journal;
pub mod log;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod spans;
pub mod top;
