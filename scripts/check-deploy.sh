#!/usr/bin/env bash
# Checks deploy/ and what docs/ promises to try: pytest over tests/deploy, with the gateway that the tests of cargo use
# (FOREBAY names another). Arguments go to pytest: scripts/check-deploy.sh -k helm
set -euo pipefail
cd "$(dirname "$0")/.."
export TOOLS="${TOOLS:-$PWD/target/tools}"
if [ -z "${FOREBAY:-}" ]; then
    # Not `cargo build`: without the features of the tests' dependencies most crates would be built once more.
    cargo test --no-run --test cli
    export FOREBAY="$PWD/target/debug/forebay"
fi
# What was skipped, and why, stands at the end: -rs.
exec "$TOOLS/venv-deploy/bin/python" -B -m pytest -q -rs -p no:cacheprovider --durations=5 -n 3 --dist loadfile tests/deploy "$@"
