//! Lists of revoked certificates: checks/crl.rs.
#![no_main]

#[path = "../checks/crl.rs"]
mod crl;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| crl::check(data));
