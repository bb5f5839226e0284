//! What the gateway tells its operators: metrics, logs, and the admin address that serves them.

pub mod admin;
pub mod log;
pub mod metrics;
