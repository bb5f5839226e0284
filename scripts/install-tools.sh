#!/usr/bin/env bash
# Installs what the tests need, under $TOOLS (target/tools unless set): Kafka, ferrokinesis (a Kinesis to test with),
# Prometheus, HTTP clients in Python, OpenTelemetry's exporters and Collector, Azure's transport for devices, h2spec,
# sslyze, and what packages and checks deploy/ and docs/. Each is installed once: a stamp names its version.
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

# python_venv FOLDER REQUIREMENTS
python_venv() {
    python3 -m venv --clear "$TOOLS/$1"
    "$TOOLS/$1/bin/pip" install -q --disable-pip-version-check -r "$2"
}

# go_tool MODULE PACKAGE: built as go.mod in the folder MODULE pins it. Go keeps what it downloads and builds in one folder, of
# which only the program stays.
go_tool() {
    local folder
    folder=$(mktemp -d "$TOOLS/go.XXXXXX")
    (
        export GOPATH="$folder" GOCACHE="$folder/cache" GOFLAGS="-mod=readonly -modcacherw" GOTOOLCHAIN=auto
        old_go && get_go "$(sed -n 's/^go //p' "$1/go.mod")"
        cd "$1"
        go build -o "$TOOLS/bin/" "$2"
    )
    rm -rf "$folder"
}

# A Go before 1.21, as Debian 12 has it, does not get by itself the newer one that a go.mod asks for.
old_go() { [[ $(go env GOVERSION) =~ ^go1\.(1?[0-9]|20)(\.|$) ]]; }

# get_go VERSION: that Go, as a module; the old one unpacks programs without their mode. Older versions need none.
get_go() {
    local root
    [[ $1 =~ ^1\.[0-9]+\.[0-9]+$ ]] || return 0
    root="golang.org/toolchain@v0.0.1-go$1.$(go env GOOS)-$(go env GOARCH)"
    (cd "$GOPATH" && go mod download "$root")
    root="$GOPATH/pkg/mod/$root"
    find "$root/bin" "$root/pkg/tool" -type f -exec chmod +x {} +
    PATH="$root/bin:$PATH"
}

# npm_modules FOLDER: what package-lock.json in the folder pins.
npm_modules() {
    local name
    name=$(basename "$1")
    rm -rf "${TOOLS:?}/$name"
    mkdir "$TOOLS/$name"
    cp "$1"/package*.json "$TOOLS/$name"
    npm ci --prefix "$TOOLS/$name" --ignore-scripts --no-audit --no-fund --loglevel=error
}

# npm_tool FOLDER: the same, where the one dependency is a program of the folder's name.
npm_tool() {
    local name
    name=$(basename "$1")
    npm_modules "$1"
    ln -sf "../$name/node_modules/.bin/$name" "$TOOLS/bin/$name"
}

# The browser that looks at the live page, without a screen: Debian's own, or else the one that playwright downloads, with
# the libraries that it needs.
chromium() {
    if apt-cache show chromium-headless-shell >/dev/null 2>&1 || { as_root apt-get update -qq; apt-cache show chromium-headless-shell >/dev/null 2>&1; }; then
        as_root apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-dejavu-core
        ln -sf "$(command -v chromium-headless-shell)" "$TOOLS/bin/chromium"
    else
        PLAYWRIGHT_BROWSERS_PATH="$TOOLS/browsers" "$TOOLS/venv-deploy/bin/playwright" install --with-deps --only-shell chromium
        ln -sf "$(find "$TOOLS/browsers" -type f -name '*headless*shell' -perm -u+x | head -1)" "$TOOLS/bin/chromium"
    fi
    starts_chromium || {
        echo "no Chromium that starts: neither Debian's chromium-headless-shell nor playwright's; tests/deploy/test_page.py needs one" >&2
        return 1
    }
}

starts_chromium() { "$TOOLS/bin/chromium" --version >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# stamped NAME FILE: the name changes with the file.
stamped() { echo "$1-$(sha256sum "$2" | cut -c1-16)"; }

scripts/install-packages.sh test
scripts/install-kafka.sh
once ferrokinesis-0.7.0 cargo_tool ferrokinesis 0.7.0 --features tls
once prometheus prometheus
once "$(stamped python tests/requirements.txt)" python_venv venv tests/requirements.txt
once "$(stamped otlp tests/requirements-otlp.txt)" python_venv venv-otlp tests/requirements-otlp.txt
once "$(stamped iot-hub tests/clients/iot-hub/package-lock.json)" npm_modules tests/clients/iot-hub
once "$(stamped sslyze tests/requirements-sslyze.txt)" python_venv sslyze tests/requirements-sslyze.txt
once "$(stamped h2spec tests/h2spec/go.mod)" go_tool tests/h2spec github.com/summerwind/h2spec/cmd/h2spec
once "$(stamped opentelemetry <(cat tests/opentelemetry/{go.mod,*/main.go}))" go_tool tests/opentelemetry ./...
once "$(stamped actionlint tests/deploy/actionlint/go.mod)" go_tool tests/deploy/actionlint github.com/rhysd/actionlint/cmd/actionlint
once cargo-deb-3.8.0 cargo_tool cargo-deb 3.8.0
once "$(stamped deploy <(cat tests/deploy/{requirements,constraints}.txt))" python_venv venv-deploy tests/deploy/requirements.txt
once "$(stamped newman tests/deploy/newman/package-lock.json)" npm_tool tests/deploy/newman
once "$(stamped axe tests/deploy/axe/package-lock.json)" npm_modules tests/deploy/axe
# What it needs of the system may be gone although $TOOLS was kept.
starts_chromium || rm -f "$TOOLS/stamps/chromium"
once chromium chromium
