//! Certificates of devices: checks/certificate.rs.
#![no_main]

#[path = "../checks/certificate.rs"]
mod certificate;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| certificate::check(data));
