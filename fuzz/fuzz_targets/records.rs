//! Bodies of many records: checks/records.rs.
#![no_main]

#[path = "../checks/records.rs"]
mod records;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| records::check(data));
