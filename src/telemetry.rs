//! What the gateway tells its operators: metrics, logs, the audit log, and the admin address that serves metrics.

pub mod admin;
pub mod audit;
pub mod log;
pub mod metrics;
