#!/usr/bin/env python3
"""Measures Forebay and those of its peers that are installed, in one run, as ratios to nginx.

The server has one core to itself and the load another; every figure is the median of interleaved rounds. CPU is that of
the server's whole process tree, user and system, from /proc. Needs nothing but Python, two cores, taskset, and the
programs: forebay and loadtest (--bin), nginx; h2load, a C compiler and OpenSSL's headers for the most requests that a
core takes on HTTP/2; Vector and Fluent Bit with --kafka only.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
STARTING_MAX_S = 20
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


class Server:
    """One that is measured: how it is started, which protocols it has not."""

    def __init__(self, name, command, environment=None, template=None, lacks=()):
        self.name, self.command, self.template, self.lacks = name, command, template, lacks
        self.environment = environment or {}

    def start(self, places, core):
        """Its process and port, once it takes connections."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        places = places | {"PORT": str(port)}
        if self.template:
            configuration = pathlib.Path(places["DIR"]) / self.template
            configuration.write_text(fill((HERE / self.template).read_text(), places))
            places = places | {"CONFIGURATION": str(configuration)}
        log = open(pathlib.Path(places["DIR"]) / f"{self.name}.log", "w")
        command = ["taskset", "-c", core] + [fill(word, places) for word in self.command]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
        environment |= {name: fill(value, places) for name, value in self.environment.items()}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTING_MAX_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process, port
            except OSError:
                time.sleep(0.05)
        stop(process)
        sys.exit(f"{self.name} does not start:\n" + pathlib.Path(log.name).read_text()[-2000:])


def fill(text, places):
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def forebay(name, program, sink):
    environment = {
        "FOREBAY_LISTEN": "127.0.0.1:@PORT@", "FOREBAY_ADMIN_LISTEN": "127.0.0.1:0", "FOREBAY_WORKERS": "1",
        "FOREBAY_TLS_CERT": "@PKI@/server.pem", "FOREBAY_TLS_KEY": "@PKI@/server.key",
        "FOREBAY_TLS_CLIENT_CA": "@PKI@/ca.pem", "FOREBAY_TLS_MIN_VERSION": "1.3",
        "FOREBAY_ADDRESS_RATE": "0", "FOREBAY_HANDSHAKE_RATE": "0", "FOREBAY_DEVICE_RATE": "0",
        "FOREBAY_DEVICE_BYTE_RATE": "0", "FOREBAY_LOG": "warn",
    }
    return Server(name, [str(program), "serve"], environment | sink)


def servers(options):
    program = options.bin / "forebay"
    found = []
    if nginx := shutil.which("nginx"):
        found.append(Server("nginx", [nginx, "-c", "@CONFIGURATION@", "-p", "@DIR@"], template="nginx.conf", lacks=("h3",)))
    found.append(forebay("forebay-null", program, {"FOREBAY_SINK": "null"}))
    found.append(forebay("forebay-file", program, {"FOREBAY_SINK": "file", "FOREBAY_FILE_DIR": "@DIR@/data"}))
    if options.kafka:
        kafka = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": "@KAFKA@"}
        found.append(forebay("forebay-kafka", program, kafka))
        if vector := shutil.which("vector"):
            command = [vector, "--quiet", "--threads", "1", "--config", "@CONFIGURATION@"]
            found.append(Server("vector", command, template="vector.yaml", lacks=("h2", "h3")))
        if fluent_bit := shutil.which("fluent-bit"):
            command = [fluent_bit, "-c", "@CONFIGURATION@"]
            found.append(Server("fluent-bit", command, template="fluent-bit.conf", lacks=("h3",)))
    return [server for server in found if not options.only or server.name in options.only]


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


def make_certificates(programs, pki):
    """Authority, server and the device that h2load is."""
    for arguments in (["init", "--dir", pki], ["server", "--dir", pki, "--name", "127.0.0.1"], ["device", "--dir", pki, "h2load"]):
        subprocess.run([programs / "forebay", "pki", *arguments], check=True, stdout=subprocess.DEVNULL)


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


def cpu_seconds(pid):
    """Of a process and its children, user and system."""
    ticks = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended
        if int(stat.parent.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    with tempfile.TemporaryDirectory(prefix="forebay-peers-pki-") as pki:
        make_certificates(options.bin, pki)
        os.chmod(pki, 0o755)
        options.preload = preload(pki)
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
