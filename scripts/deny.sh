#!/usr/bin/env bash
# Checks the dependencies against deny.toml: licences, bans and sources always; advisories when their database can be
# had, from the network or from an earlier run. ADVISORIES=required makes its absence a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS="${TOOLS:-$PWD/target/tools}"
VERSION=0.20.2
export PATH="$TOOLS/bin:$PATH"

if ! cargo deny --version >/dev/null 2>&1; then
    echo "installing cargo-deny $VERSION"
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install cargo-deny --version "$VERSION" --locked --root "$TOOLS" --target-dir "$TOOLS/build-deny"
    rm -rf "$TOOLS/build-deny"
fi

# The crates that Cargo.lock names, and nothing of the advisories, have to be there for this.
cargo deny check --hide-inclusion-graph bans licenses sources

# Fetched first and checked apart, so that a missing network is never taken for a hole, nor a hole for a missing network.
if ! timeout 120 cargo deny fetch db; then
    if [ "${ADVISORIES:-}" = required ]; then
        echo "error: the advisory database cannot be had" >&2
        exit 1
    fi
    if ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
        echo "warning: no advisory database, here or on the network: ADVISORIES WERE NOT CHECKED" >&2
        exit 0
    fi
    echo "warning: the advisory database is that of an earlier run" >&2
fi
cargo deny check --disable-fetch advisories
