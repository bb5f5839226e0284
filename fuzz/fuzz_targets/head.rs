//! Heads, paths and chunks of HTTP/1.1: checks/head.rs.
#![no_main]

#[path = "../checks/head.rs"]
mod head;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| head::check(data));
