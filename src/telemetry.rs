//! Everything that the gateway tells its operators: metrics, logs, the audit and access logs, the
//! busiest devices and those whose certificates end, and the admin address that serves them.

pub(crate) mod access;
pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod expiring;
pub(crate) mod gather;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod observers;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
pub(crate) mod spans;
pub(crate) mod top;
