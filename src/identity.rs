//! The leaf certificate → a device.
