//! Devices files: checks/devices.rs.
#![no_main]

#[path = "../checks/devices.rs"]
mod devices;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| devices::check(data));
