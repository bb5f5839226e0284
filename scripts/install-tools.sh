#!/usr/bin/env bash
# Installs what the tests need, under $TOOLS (target/tools unless set): Kafka, ferrokinesis (a Kinesis to test with),
# Prometheus, HTTP clients in Python, and what checks deploy/ and docs/. Each is installed once: a stamp names its version.
set -euo pipefail
cd "$(dirname "$0")/.."
export TOOLS="${TOOLS:-$PWD/target/tools}"
mkdir -p "$TOOLS/bin" "$TOOLS/stamps"

# once NAME COMMAND…: runs the command unless it has succeeded before under this name.
once() {
    local name=$1 started=$SECONDS
    shift
    [ -e "$TOOLS/stamps/$name" ] && return
    echo "installing $name"
    "$@"
    touch "$TOOLS/stamps/$name"
    echo "installed $name in $((SECONDS - started)) s"
}

# A program that only drives tests: built quickly rather than to be fast.
cargo_tool() {
    local name=$1 version=$2
    shift 2
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=true \
        cargo install "$name" --version "$version" --locked --root "$TOOLS" --target-dir "$TOOLS/build" "$@"
    rm -rf "$TOOLS/build"
}

# Only the two programs out of Debian's package: installing it would start a server.
prometheus() {
    local folder
    folder=$(mktemp -d "$TOOLS/prometheus.XXXXXX")
    chmod 755 "$folder" # apt downloads as a user of its own
    (
        cd "$folder"
        # Where the lists of packages are old or absent.
        apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg -x prometheus_*.deb unpacked
    )
    install "$folder"/unpacked/usr/bin/{prometheus,promtool} "$TOOLS/bin"
    rm -rf "$folder"
}

python_clients() {
    python3 -m venv --clear "$TOOLS/venv"
    "$TOOLS/venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
}

deploy_checks() {
    python3 -m venv --clear "$TOOLS/venv-deploy"
    "$TOOLS/venv-deploy/bin/pip" install -q --disable-pip-version-check -r tests/deploy/requirements.txt
}

scripts/install-packages.sh test
scripts/install-kafka.sh
once ferrokinesis-0.7.0 cargo_tool ferrokinesis 0.7.0 --features tls
once prometheus prometheus
once "python-$(sha256sum tests/requirements.txt | cut -c1-16)" python_clients
once "deploy-$(cat tests/deploy/{requirements,constraints}.txt | sha256sum | cut -c1-16)" deploy_checks
