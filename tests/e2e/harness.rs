//! The harness that tests drive: the gateway as a process, real clients, and the sinks' contents.
//!
//! Nothing here has a fixed port or waits for a fixed time: processes say where they listen, and [`eventually`] asks
//! until the answer is right. What does not come within [`PATIENCE`] fails its test.

pub mod client;
pub mod curl;
pub mod driver;
pub mod gateway;
pub mod load;
pub mod pour;
pub mod raw;
pub mod siege;
pub mod tunnel;

use std::time::{Duration, Instant};

pub use client::{Ask, Client, Protocol, Reply, Via};
pub use gateway::{Gateway, Setup};
pub use load::Load;
pub use siege::Siege;

/// Far more than anything takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Asks until the answer is yes.
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(PATIENCE, is_so), "in vain waited for: {what}");
}

/// Whether the answer is yes within this time.
pub fn within(time: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() >= time {
            return false;
        }
        std::thread::park_timeout(ASK_AGAIN);
    }
    true
}
