#!/usr/bin/env python3
"""Offers the gateway twice what it can carry, and says what it carries then: goodput against its peak, and memory.

The gateway shares a core with a program that is never idle and has ten times its weight, so that the load, on another core, can
be twice the gateway's most. The peak is the best of several rates, each higher than the last, until more is offered
than is answered. Needs Python, two cores, taskset, nice, and both programs in --bin.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import measure  # noqa: E402

MEMORY_MAX_MIB = 64
STEP = 1.4


def offer(options, server, rate, folder):
    """A fleet's result, with so many requests a second on offer."""
    report = f"{folder}/report.json"
    command = ["taskset", "-c", options.load_core, str(options.bin / "loadtest"), "fleet", f"https://127.0.0.1:{server['port']}",
               "--ca-cert", f"{folder}/ca.pem", "--ca-key", f"{folder}/ca.key", "--protocol", options.protocol,
               "--devices", str(options.devices), "--rate", str(round(rate)), "--duration", f"{options.seconds}s",
               "--pid", str(server["pid"]), "--report", report]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return json.loads(pathlib.Path(report).read_text())


def goodput(result):
    return result["total"]["statuses"].get("204", 0) / result["total"]["requests"] * result["total"]["per_second"]


def row(name, rate, result):
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(result["total"]["statuses"].items()))
    memory = result["server"]["rss_peak_bytes"] / (1 << 20)
    print(f"| {name} | {rate:,.0f}/s | {goodput(result):,.0f}/s | {memory:.0f} MiB | {statuses} |", flush=True)


def find_peak(options, server, folder):
    """The most that was answered 204 in a second."""
    rate, best = options.rate, 0
    while True:
        result = offer(options, server, rate, folder)
        row("steady", rate, result)
        best = max(best, goodput(result))
        if goodput(result) < 0.9 * rate:
            return best
        rate *= STEP


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent / "target/release")
    parser.add_argument("--protocol", default="h1")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=500, help="where the search for the peak begins, in requests a second")
    parser.add_argument("--seconds", type=int, default=8, help="of each run")
    parser.add_argument("--kafka", help="bootstrap servers; the null sink otherwise")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    sink = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": options.kafka} if options.kafka else {"FOREBAY_SINK": "null"}
    gateway = measure.forebay("forebay", options.bin / "forebay", sink | {"FOREBAY_MEMORY_MAX": f"{MEMORY_MAX_MIB}MiB"})
    gateway.command = ["nice", "-n", "10", *gateway.command]
    with tempfile.TemporaryDirectory(prefix="forebay-overload-") as folder:
        measure.make_certificates(options.bin, folder)
        process, port = gateway.start({"DIR": folder, "PKI": folder}, options.server_core)
        rival = subprocess.Popen(["taskset", "-c", options.server_core, sys.executable, "-c", "while True: pass"])
        try:
            server = {"pid": process.pid, "port": port}
            print("| run | offered | answered 204 | memory, at most | answers |\n|---|---|---|---|---|")
            peak = find_peak(options, server, folder)
            result = offer(options, server, 2 * peak, folder)
            row("twice the peak", 2 * peak, result)
            print(f"\ngoodput at twice the peak: {goodput(result) / peak:.2f} of the peak of {peak:,.0f}/s")
        finally:
            rival.kill()
            measure.stop(process)


if __name__ == "__main__":
    main()
