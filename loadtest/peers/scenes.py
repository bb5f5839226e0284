"""Streams as they are: what a fleet meets when the stream has many partitions, acknowledges late, or is away in part.

Each scene starts its own brokers and gateway, puts a fleet of `loadtest` on it, and gives figures by name. The gateway has the
server's core to itself; brokers, proxies and the fleet share the other cores."""

import contextlib
import gzip
import http.client
import json
import pathlib
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

from kafka import Cluster, free_port, partition, wait_for
from servers import Server, forebay, stop

LEDGER_HEAD_BYTES = 16
LEDGER_RECORD = struct.Struct("<IIQHHI")  # device, sequence, digest, status, 0, latency in µs
FLEET_CONNECTIONS = 12_000
AWAY_PARTITION, PARTITIONS = 3, 10


class Rig:
    """What every scene uses: programs, certificates, cores, Kafka's jars."""

    def __init__(self, programs, pki, server_core, lib, seconds):
        self.programs, self.pki, self.server_core, self.lib, self.seconds = programs, pki, server_core, lib, seconds

    @contextlib.contextmanager
    def folder(self):
        with tempfile.TemporaryDirectory(prefix="forebay-scene-") as folder:
            yield pathlib.Path(folder)

    @contextlib.contextmanager
    def cluster(self, folder, nodes=1, is_proxied=False):
        cluster = Cluster(folder, self.lib, nodes, is_proxied)
        try:
            yield cluster
        finally:
            cluster.stop()

    @contextlib.contextmanager
    def serving(self, server, folder, **places):
        process, port = server.start({"DIR": str(folder), "PKI": self.pki} | places, self.server_core)
        try:
            yield process.pid, port
        finally:
            stop(process)

    @contextlib.contextmanager
    def gateway(self, folder, environment):
        """Process, port and admin port of a gateway."""
        admin = free_port()
        server = forebay("forebay", self.programs / "forebay", environment | {"FOREBAY_ADMIN_LISTEN": f"127.0.0.1:{admin}"})
        with self.serving(server, folder) as (pid, port):
            yield pid, port, admin

    def start_fleet(self, folder, port, pid, name, *options):
        command = [self.programs / "loadtest", "fleet", f"https://127.0.0.1:{port}", "--ca-cert", f"{self.pki}/ca.pem",
                   "--ca-key", f"{self.pki}/ca.key", "--pid", str(pid), "--report", folder / f"{name}.json",
                   "--ledger", folder / f"{name}.ledger", *map(str, options)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def fleet(self, folder, port, pid, name, *options):
        """The report of a fleet, once it has ended."""
        return self.report(folder, name, self.start_fleet(folder, port, pid, name, *options))

    def report(self, folder, name, fleet):
        _, errors = fleet.communicate()
        if fleet.returncode not in (0, 1):
            sys.exit(f"the fleet {name} failed: {errors[-2000:]}")
        report = json.loads((folder / f"{name}.json").read_text())
        if not report["verdict"]["fit"]:
            print(f"    {name}: NOT TO BE TRUSTED: {report['verdict']['reasons']}", file=sys.stderr)
        return report


def kafka(cluster, **further):
    return {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": cluster.address} | further


def metric(admin, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def wait_until_ready(admin):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).close()
            return
        time.sleep(0.1)
    sys.exit("the gateway is not ready after 60 s")


def answered(ledger):
    """Device, sequence, digest, status, 0 and latency in µs of each reading that was answered, or was not."""
    return LEDGER_RECORD.iter_unpack(ledger.read_bytes()[LEDGER_HEAD_BYTES:])


def quantile(values, part):
    ranked = sorted(values)
    return ranked[int(len(ranked) * part)] if ranked else float("nan")


def answers(ledger, is_counted):
    """Of the devices that count: how many were answered 204, how many otherwise, and the p99 of a 204 in seconds."""
    counted = [(status, latency) for device, _, _, status, _, latency in answered(ledger) if is_counted(device)]
    safe = [latency for status, latency in counted if status == 204]
    return len(safe), len(counted) - len(safe), quantile(safe, 0.99) / 1e6


def is_healthy(device):
    return partition(f"load-{device:06}".encode(), PARTITIONS) != AWAY_PARTITION


def one_partition_away(rig, spool):
    """900 devices at 1/s; the leader of one partition of ten ends. The devices of the other nine."""
    with rig.folder() as folder, rig.cluster(folder, nodes=2) as cluster:
        cluster.topic("telemetry", PARTITIONS, on_last={AWAY_PARTITION})
        further = {"FOREBAY_SPOOL_DIR": str(folder / "spool")} if spool else {}
        with rig.gateway(folder, kafka(cluster, **further)) as (pid, port, admin):
            wait_until_ready(admin)
            load = ["--protocol", "h1", "--devices", 900, "--interval", "1s", "--duration", "30s"]
            rig.fleet(folder, port, pid, "before", *load)
            cluster.nodes[-1].process.kill()
            rig.fleet(folder, port, pid, "during", *load)
        before, _, p99_before = answers(folder / "before.ledger", is_healthy)
        during, refused, p99 = answers(folder / "during.ledger", is_healthy)
        with_spool = "with a spool" if spool else "no spool"
        return {
            f"one of ten partitions away, {with_spool}: the others' 204s, to before": during / before,
            f"one of ten partitions away, {with_spool}: the others' other answers": refused,
            f"one of ten partitions away, {with_spool}: the others' p99, to before": p99 / p99_before,
        }


def one_stream_away(rig, spool):
    """Two streams with 450 devices each at 1/s; the only broker of one stream ends. The devices of the other one."""
    with rig.folder() as folder, rig.cluster(folder, nodes=2) as cluster:
        cluster.topic("telemetry", 1)
        cluster.topic("alarms", 1, on_last={0})
        further = {"FOREBAY_SPOOL_DIR": str(folder / "spool")} if spool else {}
        with rig.gateway(folder, kafka(cluster, FOREBAY_STREAMS="telemetry,alarms", **further)) as (pid, port, admin):
            wait_until_ready(admin)
            load = ["--protocol", "h1", "--devices", 450, "--interval", "1s", "--duration", "30s"]

            def both(name):
                other = rig.start_fleet(folder, port, pid, f"{name}-alarms", *load, "--stream", "alarms", "--seed", 2)
                rig.fleet(folder, port, pid, name, *load)
                rig.report(folder, f"{name}-alarms", other)
                return answers(folder / f"{name}.ledger", lambda _: True)

            before, _, p99_before = both("before")
            cluster.nodes[-1].process.kill()
            during, _, p99 = both("during")
        with_spool = "with a spool" if spool else "no spool"
        return {
            f"one of two streams away, {with_spool}: the other's 204s, to before": during / before,
            f"one of two streams away, {with_spool}: the other's p99, to before": p99 / p99_before,
        }


def drain(rig, devices, rate, spooled, ack_ms, bound_s):
    """The sink is away until so many records are spooled, and comes back while the devices go on.

    A device waits for each answer. Once it has left the spool that takes an ack time at least: what it means to send more often
    than that waits for itself, with a spool or without. So the p99 is of what was due while the spool was emptied."""
    with rig.folder() as folder, rig.cluster(folder, is_proxied=True) as cluster:
        cluster.topic("telemetry", PARTITIONS)
        environment = kafka(cluster, FOREBAY_SPOOL_DIR=str(folder / "spool"))
        with rig.gateway(folder, environment) as (pid, port, admin):
            wait_until_ready(admin)
            cluster.nodes[0].order("away")
            filling_s = max(5, spooled // 8000)
            load = ["--protocol", "h1", "--devices", devices]
            rig.fleet(folder, port, pid, "fill", *load, "--rate", spooled / filling_s, "--duration", f"{filling_s}s")
            cluster.delay(ack_ms)
            cluster.nodes[0].order("back")
            began, held = time.monotonic(), metric(admin, "forebay_spool_records")
            live = rig.start_fleet(folder, port, pid, "live", *load, "--rate", rate, "--duration", f"{bound_s}s", "--settle", "0s")
            while metric(admin, "forebay_spool_records") > 0 and live.poll() is None:
                time.sleep(0.2)
            took = time.monotonic() - began
            is_empty = live.poll() is None
            rig.report(folder, "live", live)
        while_it_empties = [latency for _, sequence, _, status, _, latency in answered(folder / "live.ledger")
                            if status == 204 and sequence * devices / rate < took]
        name = f"ack time {ack_ms} ms, {devices} devices at {rate}/s, {spooled} spooled"
        return {
            f"{name}: seconds until empty": took if is_empty else None,
            f"{name}: records a second, net": held / took if is_empty else None,
            f"{name}: live p99 while it empties, in ack times": quantile(while_it_empties, 0.99) / 1000 / ack_ms,
        }


def slow_acks(rig, ack_ms=400, rate=20_000):
    with rig.folder() as folder, rig.cluster(folder, is_proxied=True) as cluster:
        cluster.topic("telemetry", 48)
        cluster.delay(ack_ms)
        with rig.gateway(folder, kafka(cluster)) as (pid, port, admin):
            wait_until_ready(admin)
            report = rig.fleet(folder, port, pid, "fleet", "--protocol", "h1", "--devices", FLEET_CONNECTIONS, "--rate", rate,
                               "--duration", "60s")
        total, name = report["total"], f"ack time {ack_ms} ms, {rate}/s from {FLEET_CONNECTIONS} devices"
        return {f"{name}: answered 204 a second": total["statuses"].get("204", 0) / 60, f"{name}: p99, s": total["latency_us"]["p99"] / 1e6}


def cold_fleet(rig, rate):
    """12,000 connections that speak every few seconds: CPU a request, p99, memory a connection."""
    figures = {}
    for name, server, protocol, partitions in cold_servers(rig):
        with rig.folder() as folder, contextlib.ExitStack() as stack:
            places = {}
            if partitions:
                cluster = stack.enter_context(rig.cluster(folder))
                cluster.topic("telemetry", partitions)
                places["KAFKA"] = cluster.address
            pid, port = stack.enter_context(rig.serving(server, folder, **places))
            # A broker that has just started is slow until it is compiled.
            rig.fleet(folder, port, pid, "warm-up", "--protocol", "h1", "--devices", 500, "--rate", rate, "--duration", "8s")
            seconds = max(10, FLEET_CONNECTIONS // rate * 3)
            report = rig.fleet(folder, port, pid, "fleet", "--protocol", protocol, "--devices", FLEET_CONNECTIONS, "--rate", rate,
                               "--duration", f"{seconds}s")
            label = f"cold fleet at {rate}/s, {name} {protocol.upper()}"
            if partitions:
                figures[f"{label}: records a request"] = cluster.records_per_request("telemetry")
        figures[f"{label}: CPU a request, µs"] = report["server"]["cpu_us_per_request"]
        figures[f"{label}: p99, ms"] = report["total"]["latency_us"]["p99"] / 1000
        figures[f"{label}: memory a connection, KiB"] = report["server"]["pss_bytes"] / FLEET_CONNECTIONS / 1024
    return figures


def cold_servers(rig):
    program = rig.programs / "forebay"
    nginx = Server("nginx", ["nginx", "-c", "@CONFIGURATION@", "-p", "@DIR@"], template="nginx.conf")
    null = forebay("forebay-null", program, {"FOREBAY_SINK": "null"})
    into_kafka = forebay("forebay-kafka", program, {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": "@KAFKA@"})
    yield from (("nginx", nginx, protocol, 0) for protocol in ("h1", "h2"))
    yield from (("null", null, protocol, 0) for protocol in ("h1", "h2", "h3"))
    yield from (("Kafka, 1 partition,", into_kafka, "h1", 1), ("Kafka, 48 partitions,", into_kafka, "h1", 48))
    yield "Kafka, 48 partitions,", into_kafka, "h3", 48


def quiet(rig):
    with rig.folder() as folder, rig.cluster(folder) as cluster:
        cluster.topic("telemetry", 1)
        with rig.gateway(folder, kafka(cluster)) as (pid, port, admin):
            wait_until_ready(admin)
            report = rig.fleet(folder, port, pid, "fleet", "--protocol", "h1", "--devices", 10, "--interval", "1s", "--duration", "20s")
            acks = metric(admin, "forebay_sink_duration_seconds_sum") / metric(admin, "forebay_sink_duration_seconds_count")
        return {"quiet gateway, 10/s: p50 above the ack time, ms": report["total"]["latency_us"]["p50"] / 1000 - acks * 1000}


def burn(rig, port, pid, connections, *further):
    command = [rig.programs / "loadtest", "burn", f"https://127.0.0.1:{port}/v1/telemetry", "--ca-cert", f"{rig.pki}/ca.pem",
               "--ca-key", f"{rig.pki}/ca.key", "--pid", str(pid), "--json", "--duration", f"{rig.seconds}s",
               "--protocol", "h1", "--connections", str(connections), *further]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["server_cpu_us_per_request"]


def closed_loops(rig):
    """64 connections that send as fast as they are answered: nginx, no sink, Kafka with 1, 6 and 48 partitions."""
    figures = {}
    for name, server, protocol, _ in list(cold_servers(rig))[:3]:
        if protocol == "h1":
            with rig.folder() as folder, rig.serving(server, folder) as (pid, port):
                figures[f"H1, 64 connections, {name}: CPU a request, µs"] = burn(rig, port, pid, 64)
    for partitions in (1, 6, 48):
        with rig.folder() as folder, rig.cluster(folder) as cluster:
            cluster.topic("telemetry", partitions)
            with rig.gateway(folder, kafka(cluster)) as (pid, port, admin):
                wait_until_ready(admin)
                figures[f"H1, 64 connections, Kafka, {partitions} partitions: CPU a request, µs"] = burn(rig, port, pid, 64)
            figures[f"H1, 64 connections, Kafka, {partitions} partitions: records a request"] = cluster.records_per_request("telemetry")
    return figures


def records(rig):
    """Twenty readings in a request, as lines: CPU a reading, beside one reading in a request and nginx's answer to one."""
    _, nginx, *_ = next(cold_servers(rig))
    with rig.folder() as folder, rig.serving(nginx, folder) as (pid, port):
        figures = {"H1, 64 connections, nginx: CPU a request, µs": burn(rig, port, pid, 64)}
    with rig.folder() as folder, rig.cluster(folder) as cluster:
        cluster.topic("telemetry", 1)
        with rig.gateway(folder, kafka(cluster)) as (pid, port, admin):
            wait_until_ready(admin)
            figures["one reading a request: CPU a reading, µs"] = burn(rig, port, pid, 64)
            for encoding in ("", "gzip", "zstd"):
                further = ["--records", "20", *(["--encoding", encoding] if encoding else [])]
                name = f"20 readings a request{encoding and f', {encoding}'}: CPU a reading, µs"
                figures[name] = burn(rig, port, pid, 64, *further) / 20
    return figures


def hostile(rig):
    """300 devices at 1/s, without and beside one that sends nothing but bombs, as fast as its limits and its answers let it."""
    with rig.folder() as folder, rig.gateway(folder, {"FOREBAY_SINK": "null"}) as (pid, port, admin):
        wait_until_ready(admin)
        load = ["--protocol", "h1", "--devices", 300, "--interval", "1s", "--duration", "20s"]
        rig.fleet(folder, port, pid, "before", *load)
        fleet = rig.start_fleet(folder, port, pid, "beside", *load)
        taken = bombard(rig, port, until=lambda: fleet.poll() is not None)
        rig.report(folder, "beside", fleet)
        before, _, p99_before = answers(folder / "before.ledger", lambda device: True)
        beside, refused, p99 = answers(folder / "beside.ledger", lambda device: True)
    return {
        "beside bombs: the others' p99, to before": p99 / p99_before,
        "beside bombs: answered 204, to before": beside / before,
        "beside bombs: the others refused": refused,
        "beside bombs: bombs a second": taken / 20,
    }


def bombard(rig, port, until):
    """Sends bombs until that is so; gives how many were answered, none of them 204."""
    lines, array = "application/x-ndjson", "application/json"
    bombs = [
        (lines, gzip.compress(bytes(8 << 20))),
        (lines, gzip.compress(b"") * 12_000),
        (lines, gzip.compress(b"0\n" * 10_001)),
        (array, gzip.compress(b"[" * 10_000 + b"]" * 10_000)),
        (array, gzip.compress(b"[" * (1 << 20))),
    ]
    context = ssl.create_default_context(cafile=f"{rig.pki}/ca.pem")
    context.check_hostname = False
    context.load_cert_chain(f"{rig.pki}/devices/h2load.pem", f"{rig.pki}/devices/h2load.key")
    taken = 0
    while not until():
        for content_type, body in bombs:
            with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)) as connection, \
                    contextlib.suppress(OSError):
                fields = {"content-type": content_type, "content-encoding": "gzip"}
                connection.request("POST", "/v1/telemetry/records", body, fields)
                status = connection.getresponse().status
                taken += 1
                assert status >= 400 or body == bombs[3][1], f"a bomb was answered {status}"
    return taken


def many_streams(rig):
    """The cost of 255 further streams that nobody uses."""
    figures = {}
    for streams in (1, 256):
        names = ",".join(["telemetry", *(f"stream-{number}" for number in range(1, streams))])
        with rig.folder() as folder, rig.gateway(folder, {"FOREBAY_SINK": "null", "FOREBAY_STREAMS": names}) as (pid, port, _):
            figures[f"H1, 64 connections, null, {streams} streams: CPU a request, µs"] = burn(rig, port, pid, 64)
    return figures


def kinesis(rig):
    """Ten shards of the emulator, a record a reading and aggregates; beside nginx and Kafka with one partition."""
    figures = {}

    def note(name, port, pid):
        for connections in (64, 512):
            figures[f"H1, {connections} connections, {name}: CPU a request, µs"] = burn(rig, port, pid, connections)

    _, nginx, *_ = next(cold_servers(rig))
    with rig.folder() as folder, rig.serving(nginx, folder) as (pid, port):
        note("nginx", port, pid)
    with rig.folder() as folder, rig.cluster(folder) as cluster:
        cluster.topic("telemetry", 1)
        with rig.gateway(folder, kafka(cluster)) as (pid, port, admin):
            wait_until_ready(admin)
            note("Kafka, 1 partition", port, pid)
    for mode, aggregate in (("single", "false"), ("aggregated", "true")):
        with rig.folder() as folder, emulator(rig) as endpoint:
            environment = {"FOREBAY_SINK": "kinesis", "FOREBAY_KINESIS_AGGREGATE": aggregate, "AWS_REGION": "eu-central-1",
                           "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_ENDPOINT_URL_KINESIS": endpoint}
            with rig.gateway(folder, environment) as (pid, port, admin):
                wait_until_ready(admin)
                note(f"Kinesis, {mode}", port, pid)
    return figures


@contextlib.contextmanager
def emulator(rig):
    """The address of an emulator of Kinesis that has the stream."""
    port = free_port()
    program = rig.lib.parent.parent / "bin/ferrokinesis"
    command = [program, "serve", "--port", str(port), "--region", "eu-central-1", "--create-stream-ms", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        make_stream(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def make_stream(endpoint):
    body = json.dumps({"StreamName": "telemetry", "ShardCount": 10}).encode()
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.CreateStream",
               "Authorization": "AWS4-HMAC-SHA256 Credential=none/20260101/eu-central-1/kinesis/aws4_request, SignedHeaders=host, Signature=0",
               "X-Amz-Date": "20260101T000000Z"}
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{endpoint}/", body, headers), timeout=10).close()


SCENES = {
    "closed-loops": closed_loops,
    "records": records,
    "hostile": hostile,
    "many-streams": many_streams,
    "kinesis": kinesis,
    "quiet": quiet,
    "cold-fleet": lambda rig: cold_fleet(rig, 3000) | cold_fleet(rig, 12_000),
    "partition-away": lambda rig: one_partition_away(rig, spool=False) | one_partition_away(rig, spool=True),
    "stream-away": lambda rig: one_stream_away(rig, spool=False) | one_stream_away(rig, spool=True),
    "drain-few": lambda rig: drain(rig, devices=20, rate=200, spooled=10_000, ack_ms=100, bound_s=40),
    "drain-many": lambda rig: drain(rig, devices=1000, rate=4000, spooled=50_000, ack_ms=100, bound_s=60),
    "slow-acks": slow_acks,
}
