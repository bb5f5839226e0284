#!/usr/bin/env bash
# Checks deploy/ and what docs/ promises to try: pytest over tests/deploy, with the gateway that `cargo build` has made
# (FOREBAY names another). Arguments go to pytest: scripts/check-deploy.sh -k helm
set -euo pipefail
cd "$(dirname "$0")/.."
export TOOLS="${TOOLS:-$PWD/target/tools}"
if [ -z "${FOREBAY:-}" ]; then
    cargo build
    export FOREBAY="$PWD/target/debug/forebay"
fi
# What was skipped, and why, stands at the end: -rs.
exec "$TOOLS/venv-deploy/bin/python" -B -m pytest -q -rs -p no:cacheprovider --durations=5 tests/deploy "$@"
