//! The folder that `make tools` installs into.

use std::path::PathBuf;

/// Returns `$TOOLS`, or `target/tools` where that is not set.
pub fn tools() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    std::env::var_os("TOOLS").map_or_else(built, PathBuf::from)
}
