//! Records of a stream with rules: checks/rules.rs.
#![no_main]

#[path = "../checks/rules.rs"]
mod rules;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| rules::check(data));
