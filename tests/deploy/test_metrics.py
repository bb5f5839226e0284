"""What rules and panels ask for moves in a real gateway. Scenes bring about what can happen to one, /metrics is read on the way, and
every series that an expression of deploy/ selects must have had another value than 0: a metric that nobody sets fails here.

An expression selects series by its matchers; where it groups by a label of the gateway's, each value of the label has to move. A
metric that is compared with 0 must also have been 0 after it was not."""

import re
import shutil
import signal
import socket
import ssl
from contextlib import ExitStack, contextmanager, suppress
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from clients import Clients
from conftest import FOREBAY, ROOT, TOOLS, Gateway, eventually, free_port, run
from processes import Broker
from test_observability import crl_that_ends_at_once, queries

# Labels whose values Prometheus or an operator gives.
FOREIGN = {"job", "instance", "le", "stream"}

# What no scene can bring about, and why.
UNMOVED = {
    ("forebay_http_requests_total", "status", "other"): "no answer has a status beside those of the contract",
    ("forebay_batcher_sealed_total", "reason", "drain"): "a gateway seals its last batches when its requests are over: at its very end",
    ("forebay_tls_handshakes_total", "result", "io"): "a socket that fails in the middle of a handshake: on loopback none does",
    ("forebay_http_refusals_total", "code", "other"): "no problem has a code beside those of the contract",
    ("forebay_http_refusals_total", "code", "certificate-expired"): "a certificate that ends while its connection lives: days",
    ("forebay_http_refusals_total", "code", "draining"): "a request that comes while a gateway ends, and its metrics with it",
    ("forebay_http_refusals_total", "code", "overloaded"): "bodies of more devices than are here; tests/e2e has them",
    ("forebay_http_refusals_total", "code", "device-overloaded"): "likewise",
}

RARELY = "0.01"

# In the first record of a segment, behind its header.
FIRST_RECORD = 16 << 10


class Watch:
    """What has been seen of all gateways: series as (name, label, value), each label by itself."""

    def __init__(self):
        self.exposed, self.moved, self.fallen = set(), set(), set()
        self.last = {}

    def look(self, gateway):
        """Samples of a scrape, and a note of what has moved."""
        samples = []
        for line in gateway.ask_admin("/metrics").splitlines():
            if not line.startswith("#") and (parts := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)):
                samples.append((parts[1], dict(re.findall(r'(\w+)="([^"]*)"', parts[2] or "")), float(parts[3])))
        for name, labels, value in samples:
            series = {(name, None, None)} | {(name, *label) for label in labels.items()}
            self.exposed |= series
            key = (id(gateway), name, *labels.items())
            if value != 0:
                self.moved |= series
            elif self.last.get(key):
                self.fallen.add(name)
            self.last[key] = value
        return samples

    def until(self, gateway, metric, holds=bool, **labels):
        """Looks until a sample of the metric with these labels is as it should be."""
        def seen():
            return any(holds(value) for name, of, value in self.look(gateway)
                       if name == metric and labels.items() <= of.items())
        eventually(f"{metric} {labels}", seen)


def selections():
    """(expression, metric, label, value) for everything that must move; (expression, metric) for what must have fallen, too."""
    moving, falling = set(), set()
    for name, expr, _ in queries():
        for metric, matchers, compared in re.findall(r"(?<![:\w])((?:forebay|process)_\w+)(\{[^}]*\})?(\s*==\s*0)?", expr):
            moving.add((name, metric, None, None))
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                if label not in FOREIGN:
                    moving.update((name, metric, label, value) for value in values.split("|"))
            for labels in re.findall(r"by \(([^)]*)\)", expr):
                moving.update((name, metric, label.strip(), None) for label in labels.split(",") if label.strip() not in FOREIGN)
            if compared:
                falling.add((name, metric))
    return moving, falling


@pytest.fixture(scope="module")
def home(folder):
    home = folder / "metrics"
    home.mkdir()
    return home


@contextmanager
def gateway(home, name, **variables):
    """A gateway with the certificates of all scenes, and a folder of files of its own."""
    started = Gateway(home, **{"FOREBAY_FILE_DIR": str(home / name), "FOREBAY_WORKERS": "1"} | variables)
    try:
        yield started
    finally:
        with suppress(Exception):
            started.stop()


@pytest.fixture(scope="module")
def watch(home):
    """All scenes have been played."""
    watch = Watch()
    with Clients() as clients:
        for scene in (answers, logs, limits, table, bodies_that_wait, protocols, handshakes, lists, crowds, certificates, devices, rules, password, page, spool, stream):
            scene(home, watch, clients)
    return watch


def answers(home, watch, clients):
    """Every answer that a device brings about by itself."""
    door = {"FOREBAY_FRONT_DOORS": "iot-core", "FOREBAY_TOPICS": "#=telemetry"}
    with gateway(home, "answers", FOREBAY_BODY_TIMEOUT="1s", FOREBAY_BATCH_BYTES="1KiB", **door) as served:
        client = clients.open("h1", served)
        asked = {
            200: client.ask(path="/topics/a"),
            204: client.ask(),
            400: client.ask(body=b""),
            403: client.ask(path="/v1/streams/nobodys"),
            404: client.ask(path="/"),
            405: client.ask(method="GET"),
            413: client.ask(length=str(1 << 30)),
            415: client.ask(headers=[["content-encoding", "br"]]),
            421: client.ask(authority="elsewhere.example"),
            431: client.ask(headers=[["x", "y" * 20_000]]),
            408: client.ask(length="9"),
        }
        for status, ask in asked.items():
            assert clients.open("h1", served).send(ask)["status"] == status
        assert client.send(client.ask(body=b"x" * 2000))["status"] == 204
        assert client.send(client.ask(headers=[["idempotency-key", ""]]))["status"] == 400
        assert client.send(client.ask(headers=[["no name", "1"]]))["status"] == 400
        watch.until(served, "forebay_http_refusals_total", code="malformed-request")
        watch.until(served, "forebay_batcher_sealed_total", reason="bytes")
        many, lines = "/v1/telemetry/records", ["content-type", "application/x-ndjson"]
        for code, ask in {
            "malformed-encoding": client.ask(headers=[["content-encoding", "gzip"]]),
            "malformed-records": client.ask(path=many, headers=[["content-type", "application/json"]]),
            "unsupported-media-type": client.ask(path=many, headers=[["content-type", "text/plain"]]),
            "too-many-records": client.ask(b"1\n" * 200, path=many, headers=[lines]),
            "record-too-large": client.ask(b"1" * (300 << 10), path=many, headers=[lines]),
        }.items():
            clients.open("h1", served).send(ask)
            watch.until(served, "forebay_http_refusals_total", code=code)


def rules(home, watch, clients):
    """Readings that their stream's rules refuse, and a file of rules that is of no use."""
    file = home / "rules.toml"
    file.write_text('schema = "number.json"\ndevice_field = "/device"\n')
    (home / "number.json").write_text('{"properties": {"value": {"type": "number"}}}')
    with gateway(home, "rules", FOREBAY_STREAM_RULES=f"telemetry={file}") as served:
        client = clients.open("h1", served)
        for code, body in {"not-json": b"{", "schema-violation": b'{"value":"x"}', "device-mismatch": b'{"device":"another"}'}.items():
            client.send(client.ask(body))
            watch.until(served, "forebay_http_refusals_total", code=code)
            watch.until(served, "forebay_ingest_rejected_total", code=code)
        file.write_text("rubbish")
        watch.until(served, "forebay_tls_reload_failures_total", what="rules")


def logs(home, watch, clients):
    """Both logs on a disk that is full, and a certificate that names no device."""
    full = {"FOREBAY_AUDIT_LOG": "/dev/full", "FOREBAY_ACCESS_LOG": "/dev/full", "FOREBAY_ACCESS_LOG_SAMPLE": "1"}
    with gateway(home, "logs", FOREBAY_DEVICE_ID="san-uri", **full) as served:
        client = clients.open("h1", served)
        assert client.send(client.ask())["status"] == 403
        watch.until(served, "forebay_http_refusals_total", code="invalid-identity")
        watch.until(served, "forebay_audit_omitted_events_total", why="dropped")
        watch.until(served, "forebay_access_dropped_lines_total")


def limits(home, watch, clients):
    """A refusal by each bucket."""
    for scope, variable, burst in [("device", "DEVICE", "1"), ("device-bytes", "DEVICE_BYTE", "1KiB"), ("address", "ADDRESS", "1"),
                                   ("gateway", "GATEWAY", "1"), ("handshake", "HANDSHAKE", "1")]:
        rate = "1KiB" if scope == "device-bytes" else RARELY
        with gateway(home, "limits", **{f"FOREBAY_{variable}_RATE": rate, f"FOREBAY_{variable}_BURST": burst}) as limited:
            with suppress(ConnectionError):
                for _ in range(2):
                    client = clients.open("h1", limited)
                    client.send(client.ask(body=b"x" * 1000))
            watch.until(limited, "forebay_limits_refused_total", scope=scope)
            watch.until(limited, "forebay_limits_devices")


def table(home, watch, clients):
    """Two devices, and a bucket for one."""
    with gateway(home, "table", FOREBAY_DEVICES_MAX="1", FOREBAY_DEVICE_RATE=RARELY) as served:
        for device, status in (("plc-7", 204), ("plc-8", 503)):
            client = clients.open("h1", served, device=device)
            assert client.send(client.ask())["status"] == status
        watch.until(served, "forebay_http_refusals_total", code="device-table-full")


def bodies_that_wait(home, watch, clients):
    """Memory is taken by what has come of a body."""
    with gateway(home, "bodies") as served:
        client = clients.open("h1", served)
        held = client.hold(client.ask(length="1000"))
        watch.until(served, "forebay_admission_bytes")
        watch.until(served, "forebay_http_connections", protocol="h1")
        assert client.release(held, b"x" * 999) == 204


def protocols(home, watch, clients):
    with gateway(home, "protocols") as served:
        for protocol in ("h1", "h2", "h3"):
            client = clients.open(protocol, served)
            assert client.send(client.ask())["status"] == 204
            watch.until(served, "forebay_http_connections", protocol=protocol)


def handshakes(home, watch, clients):
    """Handshakes that succeed, and those that fail one way each."""
    pki, other = home / "pki", home / "other"
    run(FOREBAY, "pki", "init", "--dir", other)
    run(FOREBAY, "pki", "device", "--dir", other, "plc-7")
    run(FOREBAY, "pki", "device", "--dir", pki, "revoked", "expired", "later", "not_yet")
    run(FOREBAY, "pki", "revoke", "--dir", pki, "revoked")
    date(pki, "expired", "20200101000000Z", "20210101000000Z")
    date(pki, "not_yet", "20900101000000Z", "20910101000000Z")
    failing = {
        "revoked": files(pki, "devices/revoked"), "expired": files(pki, "devices/expired"),
        "not_yet_valid": files(pki, "devices/not_yet"), "no_certificate": (None, None),
        "bad_certificate": files(pki, "server"), "unknown_issuer": files(other, "devices/plc-7"),
    }
    with gateway(home, "handshakes", FOREBAY_HANDSHAKE_TIMEOUT="200ms") as served:
        first = clients.open("h1", served)
        assert first.send(first.ask())["status"] == 204
        assert clients.open("h1", served, resumes=first.number).resumed
        later = clients.open("h1", served, device="later")
        assert later.send(later.ask())["status"] == 204
        run(FOREBAY, "pki", "revoke", "--dir", pki, "later")
        eventually("a revocation", lambda: clients.open("h1", served, device="later", resumes=later.number).send(later.ask())["status"] == 403)
        watch.until(served, "forebay_http_refusals_total", code="certificate-revoked")
        with socket.create_connection(("127.0.0.1", served.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            watch.until(served, "forebay_tls_handshakes_total", result="plain_http")
        distrusting = ssl.create_default_context(cafile=other / "ca.pem")
        with suppress(OSError), socket.create_connection(("127.0.0.1", served.port)) as plain:
            distrusting.wrap_socket(plain, server_hostname="localhost")
        watch.until(served, "forebay_tls_handshakes_total", result="server_untrusted")
        for result, (certificate, key) in failing.items():
            with suppress(ConnectionError):
                clients.open("h1", served, cert=certificate, key=key).send(first.ask())
            watch.until(served, "forebay_tls_handshakes_total", result=result)
        with socket.create_connection(("127.0.0.1", served.port)):
            pass
        with socket.create_connection(("127.0.0.1", served.port)) as garbage:
            garbage.sendall(b"no hello at all\r\n")
            watch.until(served, "forebay_tls_handshakes_total", result="protocol")
        with socket.create_connection(("127.0.0.1", served.port)) as silent:
            silent.sendall(b"\x16")
            watch.until(served, "forebay_tls_handshakes_total", result="timeout")
        for result in ("accepted", "resumed", "unused"):
            watch.until(served, "forebay_tls_handshakes_total", result=result)
    with gateway(home, "retries") as served:
        run(TOOLS / "venv/bin/python", ROOT / "tests/clients/attack_quic.py", served.port, 100)
        watch.until(served, "forebay_tls_handshakes_total", result="retry")


def lists(home, watch, clients):
    """A list that has ended, and none for the devices' issuer."""
    pki = home / "lists"
    shutil.copytree(home / "pki", pki)
    crl_that_ends_at_once(pki)
    with gateway(home, "lists", FOREBAY_TLS_CRL=str(pki / "crl.pem")) as served:
        def refused():
            with suppress(ConnectionError):
                client = clients.open("h1", served)
                client.send(client.ask())
            return any(value for name, labels, value in watch.look(served) if labels.get("result") == "crl_expired")
        eventually("a list that has ended", refused)
    both, other = home / "both.pem", home / "other"
    both.write_text((home / "pki/ca.pem").read_text() + (other / "ca.pem").read_text())
    with gateway(home, "lists", FOREBAY_TLS_CLIENT_CA=str(both), FOREBAY_TLS_CRL=str(other / "crl.pem")) as served:
        with suppress(ConnectionError):
            client = clients.open("h1", served)
            client.send(client.ask())
        watch.until(served, "forebay_tls_handshakes_total", result="crl_missing")


def files(pki, name):
    return str(pki / f"{name}.pem"), str(pki / f"{name}.key")


def date(pki, device, first, last):
    """The device's certificate anew, with these days."""
    name, settings = pki / "devices" / device, pki / "dates.cnf"
    settings.write_text("[ca]\ndefault_ca = dates\n[dates]\ndatabase = dates.txt\ndefault_md = sha256\npolicy = any\nnew_certs_dir = .\nrand_serial = yes\n"
                        "[any]\ncommonName = supplied\n[device]\nextendedKeyUsage = clientAuth\nsubjectAltName = URI:device\n")
    (pki / "dates.txt").write_text("")
    run("openssl", "req", "-new", "-key", name.with_suffix(".key"), "-subj", f"/CN={device}", "-out", name.with_suffix(".csr"))
    run("openssl", "ca", "-batch", "-notext", "-config", settings, "-extensions", "device", "-startdate", first, "-enddate", last,
        "-cert", "ca.pem", "-keyfile", "ca.key", "-in", name.with_suffix(".csr"), "-out", name.with_suffix(".pem"), cwd=pki)


def crowds(home, watch, clients):
    """One connection more than there may be, of an address, of a device, of all."""
    for result, variable in [("address_full", "FOREBAY_ADDRESS_CONNECTIONS_MAX"), ("device_full", "FOREBAY_DEVICE_CONNECTIONS_MAX"),
                             ("full", "FOREBAY_CONNECTIONS_MAX")]:
        with gateway(home, "crowds", **{variable: "1"}) as served:
            # Over QUIC, for TCP waits in the kernel's queue where there is no place.
            protocol = "h3" if result == "full" else "h1"
            first = clients.open(protocol, served)
            assert first.send(first.ask())["status"] == 204
            with suppress(ConnectionError):
                clients.open(protocol, served).send(first.ask())
            watch.until(served, "forebay_tls_handshakes_total", result=result)


def certificates(home, watch, clients):
    """A device whose certificate ends soon; then each file of TLS with rubbish in it."""
    run(FOREBAY, "pki", "device", "--dir", home / "pki", "--days", "1", "expiring")
    pki = home / "rubbish"
    shutil.copytree(home / "pki", pki)
    names = {"FOREBAY_TLS_CERT": "server.pem", "FOREBAY_TLS_KEY": "server.key", "FOREBAY_TLS_CLIENT_CA": "ca.pem",
             "FOREBAY_TLS_CRL": "crl.pem"}
    with gateway(home, "certificates", **{variable: str(pki / name) for variable, name in names.items()}) as served:
        certificate, key = files(home / "pki", "devices/expiring")
        client = clients.open("h1", served, cert=certificate, key=key)
        assert client.send(client.ask())["status"] == 204
        watch.until(served, "forebay_identity_certificates_expiring_total")
        for what, name in [("certificate", "server.pem"), ("client_ca", "ca.pem"), ("crl", "crl.pem")]:
            (pki / name).write_text("rubbish\n")
            served.process.send_signal(signal.SIGHUP)
            watch.until(served, "forebay_tls_reload_failures_total", what=what)
            watch.until(served, "forebay_tls_reload_ok", lambda ok: ok == 0, what=what)
            shutil.copy(home / "pki" / name, pki / name)
            watch.until(served, "forebay_tls_reload_ok", what=what)


def devices(home, watch, clients):
    """A device that is denied knocks; then its file has rubbish in it."""
    file = home / "devices"
    file.write_text("default deny\n")
    with gateway(home, "devices-files", FOREBAY_DEVICES_FILE=str(file)) as served:
        client = clients.open("h1", served)
        assert client.send(client.ask())["status"] == 403
        watch.until(served, "forebay_identity_devices_denied_total")
        file.write_text("rubbish\n")
        watch.until(served, "forebay_tls_reload_failures_total", what="devices")


def page(home, watch, clients):
    """As many watch the live page as may, and one more."""
    with gateway(home, "page") as served:
        with ExitStack() as watchers:
            for _ in range(16):
                watchers.enter_context(urlopen(f"http://{served.admin}/live", timeout=10))
            watch.until(served, "forebay_admin_watchers")
            with pytest.raises(HTTPError):
                urlopen(f"http://{served.admin}/live", timeout=10)
            watch.until(served, "forebay_admin_watchers_shed_total", why="full")


def password(home, watch, clients):
    """Kafka's password in a file, which is then empty."""
    secret = home / "kafka.password"
    secret.write_text("a-password\n")
    secret.chmod(0o600)
    login = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "FOREBAY_FILE_DIR": None,
             "FOREBAY_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "FOREBAY_KAFKA_SASL_MECHANISM": "PLAIN",
             "FOREBAY_KAFKA_SASL_USERNAME": "forebay", "FOREBAY_KAFKA_SASL_PASSWORD_FILE": str(secret),
             "FOREBAY_SPOOL_DIR": str(home / "password-spool")}
    with gateway(home, "password", **login) as served:
        secret.write_text("")
        watch.until(served, "forebay_tls_reload_failures_total", what="password")


def spool(home, watch, clients):
    """A stream that is away: the spool fills, refuses, drops; on another day it is read, but for a frame that is damaged."""
    away = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "FOREBAY_SPOOL_BYTES_MAX": "32MiB",
            "FOREBAY_SPOOL_DIR": str(home / "spool"), "FOREBAY_BODY_BYTES_MAX": "512KiB", "FOREBAY_DEVICE_BYTE_RATE": "0",
            "FOREBAY_FILE_DIR": None}
    with gateway(home, "spool", **away) as served:
        client = clients.open("h1", served)
        for metric in ("forebay_spool_up", "forebay_spool_bytes_max"):
            watch.until(served, metric)
        big = client.ask(body=bytes(512 << 10))
        assert client.send(big)["status"] == 204
        for metric in ("forebay_spool_records", "forebay_spool_bytes"):
            watch.until(served, metric)
        eventually("a full spool", lambda: client.send(big)["status"] == 503)
        watch.until(served, "forebay_spool_up", lambda up: up == 0)
        watch.until(served, "forebay_http_requests_total", status="503")
    with gateway(home, "spool", FOREBAY_SPOOL_FULL="drop-oldest", **away) as served:
        client = clients.open("h1", served)
        for _ in range(4):
            assert client.send(big)["status"] == 204
        watch.until(served, "forebay_spool_dropped_records_total")
    with open(min((home / "spool").glob("*.spool")), "r+b") as segment:
        segment.seek(FIRST_RECORD)
        segment.write(b"damaged")
    again = {name: away[name] for name in away if name.startswith(("FOREBAY_SPOOL", "FOREBAY_BODY"))}
    with gateway(home, "spooled", **again) as served:
        watch.until(served, "forebay_spool_damaged_frames_total")
        watch.until(served, "forebay_spool_records", lambda records: records == 0)


def stream(home, watch, clients):
    """A broker that refuses, falls silent, comes back, and is gone."""
    folder = home / "kafka"
    folder.mkdir()
    broker = Broker(folder)
    at_broker = {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": broker.address, "FOREBAY_FILE_DIR": None,
                 "FOREBAY_ACK_TIMEOUT": "2s"}
    try:
        with gateway(home, "stream", FOREBAY_BATCH_RECORDS="2", FOREBAY_DEVICE_BURST="1000", **at_broker) as served:
            client = clients.open("h2", served)
            assert client.send(client.ask())["status"] == 204
            watch.until(served, "forebay_sink_records_total", outcome="delivered")
            refusals(watch, broker, served, client)
            silence(watch, broker, served, client)
        with gateway(home, "letters", FOREBAY_SPOOL_DIR=str(home / "letters"), FOREBAY_SPOOL_MODE="always", **at_broker) as served:
            client = clients.open("h2", served)
            broker.alter("telemetry", "max.message.bytes=10000")

            def letters():
                client.send(client.ask(body=b"x" * 20_000))
                return any(value for name, _, value in watch.look(served) if name == "forebay_spool_dead_letter_records")
            eventually("dead letters", letters)
            broker.restore("telemetry", "max.message.bytes")
        told = {"FOREBAY_STREAMS": "telemetry,fleet-events=telemetry", "FOREBAY_EVENTS_STREAM": "fleet-events"}
        with gateway(home, "stream", **at_broker, **told) as served:
            events(watch, broker, served, clients)
        with gateway(home, "stream", **at_broker) as served:
            loss(watch, broker, served, clients.open("h2", served))
    finally:
        broker.stop()


def events(watch, broker, served, clients):
    """A topic that is too narrow for any event of the fleet."""
    broker.alter("telemetry", "max.message.bytes=100")

    def dropped():
        clients.open("h1", served)
        return any(value for name, _, value in watch.look(served) if name == "forebay_events_dropped_total")
    eventually("events that are dropped", dropped)
    broker.restore("telemetry", "max.message.bytes")


def refusals(watch, broker, served, client):
    """A record that is too large, and a clock that the broker does not believe."""
    large, small = client.ask(body=b"x" * 20_000), client.ask()
    for outcome, setting, ask in [("permanent", "max.message.bytes=10000", large),
                                  ("barred", "message.timestamp.before.max.ms=0", small)]:
        broker.alter("telemetry", setting)
        send_until(watch, served, client, ask, outcome)
        broker.restore("telemetry", setting)
    eventually("a reading that is taken", lambda: client.send(small)["status"] == 204)


def send_until(watch, served, client, ask, outcome):
    """Sends until a record has had this outcome."""
    def seen():
        client.send(ask)
        return any(value for name, labels, value in watch.look(served)
                   if name == "forebay_sink_records_total" and labels["outcome"] == outcome)
    eventually(f"{outcome} records", seen)


def silence(watch, broker, served, client):
    """More readings than may be in flight wait for a broker that has fallen silent."""
    broker.pause()
    many = client.ask(b"1\n" * 600, path="/v1/telemetry/records", headers=[["content-type", "application/x-ndjson"]])
    sent = [client.begin(ask) for ask in [client.ask(), many]]
    watch.until(served, "forebay_sink_in_flight_batches")
    watch.until(served, "forebay_batcher_queued_batches")
    assert 504 in {client.wait(number)["status"] for number in sent}
    watch.until(served, "forebay_batcher_sealed_total", reason="records")
    watch.until(served, "forebay_sink_records_total", outcome="unknown")
    watch.until(served, "forebay_sink_up", lambda up: up == 0)
    broker.resume()
    watch.until(served, "forebay_sink_up")


def loss(watch, broker, served, client):
    """While one reading is in flight another waits for company, in vain. What never reached a broker may be sent again."""
    broker.pause()
    sent = [client.begin(client.ask())]
    watch.until(served, "forebay_sink_in_flight_batches")
    sent.append(client.begin(client.ask()))
    watch.until(served, "forebay_batcher_sealed_total", reason="linger")
    broker.resume()
    for number in sent:
        client.wait(number)
    broker.stop()
    send_until(watch, served, client, client.ask(), "retryable")


def test_what_rules_and_panels_select_moves(watch):
    moving, _ = selections()
    faults = []
    for name, metric, label, value in sorted(moving, key=str):
        wanted = {(metric, label, value)}
        if label and value is None:
            wanted = {series for series in watch.exposed if series[:2] == (metric, label)}
        elif label:
            wanted = {series for series in watch.exposed if series[:2] == (metric, label) and re.fullmatch(value, series[2])}
        seen = wanted & watch.moved
        # A matcher is content with one series; a group has all of them.
        still = wanted - watch.moved - UNMOVED.keys() if value is None else wanted - watch.moved if not seen else set()
        faults += [f"{name}: {series} never moved" for series in still] or ([] if seen else [f"{name}: {metric} {label} {value}: no series"])
    assert len(moving) > 50 and not faults, "\n".join(faults)


def test_what_a_rule_waits_to_see_at_0_falls(watch):
    _, falling = selections()
    names = {metric for _, metric in falling}
    assert names >= {"forebay_sink_up", "forebay_spool_up"} and names <= watch.fallen, names - watch.fallen


def test_what_is_excused_does_not_move(watch):
    assert UNMOVED.keys() <= watch.exposed and not UNMOVED.keys() & watch.moved
