#!/usr/bin/env python3
"""Measures Forebay and those of its peers that are installed, in one run, as ratios to nginx.

The server has one core to itself and the load another; every figure is the median of interleaved rounds. CPU is that of
the server's whole process tree, user and system, from /proc. Needs nothing but Python, two cores, taskset, and the
programs: forebay and loadtest (--bin), nginx; h2load, a C compiler and OpenSSL's headers for the most requests that a
core takes on HTTP/2; Vector and Fluent Bit with --kafka only.

--scenes measures streams as they are: many partitions, partitions and streams that are away, slow acknowledgements, cold
connections, Kinesis; and the fleet: its events, a devices file of a million lines. It starts its own brokers and needs
Java, and Kafka and ferrokinesis in --tools (`make tools`).
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import fleets
from scenes import SCENES, Rig
from servers import HERE, cpu_seconds, make_certificates, servers, stop

SCENES = SCENES | fleets.SCENES
BODY_BYTES = 344

H2LOAD = "h2load"

# What is measured: name, where the result stands, its unit and digits, and the loop.
FIGURES = [
    ("H1, 64 connections: CPU a request", "server_cpu_us_per_request", "µs", "--protocol h1 --connections 64"),
    ("H2, 8 × 16 streams: CPU a request", "server_cpu_us_per_request", "µs", "--protocol h2 --connections 8 --streams 16"),
    ("H2, 8 × 16 streams, h2load: requests a second of CPU", H2LOAD, "k/s", "--protocol h2 "),
    ("H3, 8 × 16 streams: CPU a request", "server_cpu_us_per_request", "µs", "--protocol h3 --connections 8 --streams 16"),
    ("new connection + POST, full handshake: CPU", "server_cpu_us_per_request", "µs",
     "--protocol h1 --connections 16 --reconnect full"),
    ("new connection + POST, resumed: CPU", "server_cpu_us_per_request", "µs",
     "--protocol h1 --connections 16 --reconnect resumed"),
    ("idle connection: PSS", "server_bytes_per_connection", "KiB", "--protocol h1 --idle @IDLE@"),
]
H1 = FIGURES[0][0]
CPU = ": CPU a request, µs"


def measure(options, server, places):
    """All figures of one server, which is started anew."""
    with tempfile.TemporaryDirectory(prefix="forebay-peers-") as folder:
        process, port = server.start(places | {"DIR": folder}, options.server_core)
        try:
            return {name: h2load(options, process.pid, port, places["PKI"]) if field == H2LOAD
                    else burn(options, process.pid, port, places["PKI"], loop, field)
                    for name, field, _, loop in FIGURES if not any(f"--protocol {lacking} " in loop for lacking in server.lacks)}
        finally:
            stop(process)


def burn(options, pid, port, pki, loop, field):
    command = ["taskset", "-c", options.load_core, str(options.bin / "loadtest"), "burn",
               f"https://127.0.0.1:{port}/v1/telemetry", "--ca-cert", f"{pki}/ca.pem", "--ca-key", f"{pki}/ca.key",
               "--pid", str(pid), "--json", "--duration", f"{options.seconds}s"]
    done = subprocess.run(command + loop.replace("@IDLE@", str(options.idle)).split(), capture_output=True, text=True)
    if done.returncode != 0:
        print(f"    {loop}: {done.stderr.strip()}", file=sys.stderr)
        return None
    result = json.loads(done.stdout)
    if result.get("failed"):
        print(f"    {loop}: {result['failed']} requests failed: {done.stderr.strip()}", file=sys.stderr)
        return None
    value = result[field]
    return value / 1024 if field.endswith("bytes_per_connection") else value


def h2load(options, pid, port, pki):
    """Thousands of requests for each second of the server's CPU: what a core takes at most, for our own client is too slow to fill one."""
    if not options.preload:
        return None
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"x" * BODY_BYTES)
        body.flush()
        command = ["taskset", "-c", options.load_core, "h2load", "-c", "8", "-m", "16", "-t", "1", "-D", str(max(1, round(options.seconds))),
                   "-d", body.name, "-H", "content-type: application/json", f"https://127.0.0.1:{port}/v1/telemetry"]
        certificate = {"LD_PRELOAD": options.preload, "CLIENT_CERTIFICATE": f"{pki}/devices/h2load.pem",
                       "CLIENT_KEY": f"{pki}/devices/h2load.key"}
        before = cpu_seconds(pid)
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | certificate)
        spent = cpu_seconds(pid) - before
    found = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    if not found or any(int(number) for number in found.groups()[1:]):
        print(f"    h2load: {done.stdout}{done.stderr}", file=sys.stderr)
        return None
    return int(found[1]) / spent / 1000


def preload(folder):
    """What gives h2load a client certificate, where both can be had."""
    made = f"{folder}/client_certificate.so"
    command = ["cc", "-shared", "-fPIC", "-o", made, HERE / "client_certificate.c", "-lssl"]
    if not shutil.which("h2load") or not shutil.which("cc"):
        return None
    return made if subprocess.run(command).returncode == 0 else None


def table(results):
    names = list(results)
    base = "nginx" if "nginx" in results else names[0]
    lines = [f"| figure | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for figure, _, unit, _ in FIGURES:
        # HTTP/3 has no peer here: its measure is nginx's request on HTTP/1.1.
        against = results[base].get(figure) or (results[base].get(H1) if unit == "µs" and "H3" in figure else None)
        cells = []
        for name in names:
            value = results[name].get(figure)
            ratio = f" (× {value / against:.2f})" if value is not None and against else ""
            cells.append("none" if value is None else f"{value:.1f} {unit}{ratio}")
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def processor():
    """Its name, as Linux tells it."""
    named = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return named[1] if named else "an unnamed processor"


def measure_scenes(options, pki):
    # What is started from here on stays off the server's core, which the server alone is given.
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {int(options.server_core)})
    rig = Rig(options.bin, pki, options.server_core, options.tools.resolve() / "kafka/lib", options.seconds)
    rounds = []
    for number in range(options.rounds):
        rounds.append({})
        for name in options.scenes or SCENES:
            print(f"round {number + 1}: {name}", file=sys.stderr)
            rounds[-1] |= SCENES[name](rig)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    if tables := fleet_tables(rounds):
        print(tables + "\n")
    print("| figure | median | rounds |\n|---|---|---|")
    for figure in rounds[0]:
        values = [one[figure] for one in rounds if one[figure] is not None]
        median = f"{statistics.median(values):.2f}" if values else "never"
        print(f"| {figure} | {median} | {', '.join(f'{value:.2f}' for value in values)} |")


def fleet_tables(rounds):
    """What a cold fleet costs, a table for each rate, as docs/performance.md has it."""
    tables = []
    for rate in dict.fromkeys(found[1] for figure in rounds[0] if (found := re.match(r"cold fleet at (\d+)/s", figure))):
        fleet = f"cold fleet at {rate}/s, "
        lines = [f"| {int(rate):,}/s | CPU a request | to nginx | p99 | memory a connection |", "|---|---|---|---|---|"]
        for server in [figure[len(fleet):-len(CPU)] for figure in rounds[0] if figure.startswith(fleet) and figure.endswith(CPU)]:
            cpu, base = fleet + server + CPU, fleet + nginx_of(server) + CPU
            spent, p99, memory = (statistics.median(one[f"{fleet}{server}{what}"] for one in rounds)
                                  for what in (CPU, ": p99, ms", ": memory a connection, KiB"))
            ratio = statistics.median(one[cpu] / one[base] for one in rounds)
            lines.append(f"| {server} | {spent:.0f} µs | {ratio:.2f} | {p99:.0f} ms | {memory:.1f} KiB |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def nginx_of(server):
    """The measure of a server: nginx on the same protocol, on HTTP/1.1 for HTTP/3, which has no peer here."""
    return "nginx H2" if server.endswith(" H2") else "nginx H1"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent.parent / "target/release", help="folder of forebay and loadtest")
    parser.add_argument("--kafka", help="bootstrap servers; the topic telemetry must exist")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each loop")
    parser.add_argument("--idle", type=int, default=1000, help="idle connections")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--load-core", default="1")
    parser.add_argument("--only", nargs="*", help="names of servers")
    parser.add_argument("--json", type=pathlib.Path, help="write all rounds here")
    parser.add_argument("--scenes", nargs="*", choices=SCENES, help="measure these scenes, all of them where none is named")
    parser.add_argument("--tools", type=pathlib.Path, default=HERE.parent.parent / "target/tools", help="folder of Kafka and ferrokinesis")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    print(f"on {processor()}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory(prefix="forebay-peers-pki-") as pki:
        make_certificates(options.bin, pki)
        os.chmod(pki, 0o755)
        options.preload = preload(pki)
        if options.scenes is not None:
            return measure_scenes(options, pki)
        places = {"PKI": pki, "KAFKA": options.kafka or ""}
        chosen = servers(options)
        rounds = {server.name: [] for server in chosen}
        for number in range(options.rounds):
            for server in chosen:
                print(f"round {number + 1}: {server.name}", file=sys.stderr)
                rounds[server.name].append(measure(options, server, places))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))
    median = lambda values: statistics.median(values) if values else None
    results = {name: {figure: median([one[figure] for one in several if one.get(figure) is not None])
                      for figure, *_ in FIGURES} for name, several in rounds.items()}
    print(table(results))


if __name__ == "__main__":
    main()
