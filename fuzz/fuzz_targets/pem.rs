//! PEM files: checks/pem.rs.
#![no_main]

#[path = "../checks/pem.rs"]
mod pem;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pem::check(data));
