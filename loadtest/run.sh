#!/usr/bin/env bash
# Starts a gateway with the file sink in a temporary folder, lets a fleet send to it and audits what was written.
# Options are the fleet's, in place of a short default: loadtest/run.sh --devices 5000 --protocol h3. The report is target/loadtest/report.html.
# Where FOREBAY_EVENTS_STREAM is set, the events of the fleet are audited as well. BIN is where the programs are (target/release).
set -euo pipefail
[ $# -gt 0 ] || set -- --devices 3000 --interval 1s --duration 10s
cd "$(dirname "$0")/.."
bin=$(realpath "${BIN:-target/release}")
results=$PWD/target/loadtest
mkdir -p "$results"
dir=$(mktemp -d)
gateway=
finish() {
    [ -z "$gateway" ] || { kill "$gateway" 2>/dev/null && wait "$gateway" || true; }
    rm -rf "$dir"
}
trap finish EXIT

cd "$dir"
"$bin/forebay" pki init --dir pki >/dev/null
"$bin/forebay" pki server --dir pki --name 127.0.0.1 >/dev/null
# All devices are one address here: the limits of an address are not for this.
FOREBAY_LISTEN=127.0.0.1:0 FOREBAY_ADMIN_LISTEN=127.0.0.1:0 FOREBAY_LOG_FORMAT=json \
    FOREBAY_TLS_CERT=pki/server.pem FOREBAY_TLS_KEY=pki/server.key FOREBAY_TLS_CLIENT_CA=pki/ca.pem \
    FOREBAY_FILE_DIR=data FOREBAY_ADDRESS_RATE=0 FOREBAY_HANDSHAKE_RATE=0 "$bin/forebay" serve 2>log &
gateway=$!
port=
for _ in {1..100}; do
    port=$(sed -n 's/.*"listen":"127.0.0.1:\([0-9]*\)".*/\1/p' log)
    [ -z "$port" ] || break
    kill -0 "$gateway" || { cat log; exit 1; }
    sleep 0.1
done

"$bin/loadtest" fleet "https://127.0.0.1:$port" --ca-cert pki/ca.pem --ca-key pki/ca.key --pid "$gateway" \
    --ledger ledger --visits visits --report "$results/report.json" --html "$results/report.html" "$@"
"$bin/loadtest" audit --ledger ledger --files data/telemetry --report "$results/audit.json" \
    --fleet "$results/report.json" --html "$results/report.html"
if [ -n "${FOREBAY_EVENTS_STREAM:-}" ]; then
    # Once it has ended, each connection was told to end.
    kill "$gateway" && wait "$gateway"
    gateway=
    "$bin/loadtest" events --visits visits --files "data/$FOREBAY_EVENTS_STREAM" --report "$results/events.json"
fi
echo "report: $results/report.html"
