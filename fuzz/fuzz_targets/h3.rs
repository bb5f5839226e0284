//! Streams of HTTP/3 and field sections of QPACK: checks/h3.rs.
#![no_main]

#[path = "../checks/h3.rs"]
mod h3;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| h3::check(data));
