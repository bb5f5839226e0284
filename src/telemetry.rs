//! Metrics, logs, the admin address.
