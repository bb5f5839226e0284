//! Frames and segments of the spool: checks/spool_frame.rs.
#![no_main]

#[path = "../checks/spool_frame.rs"]
mod spool_frame;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| spool_frame::check(data));
