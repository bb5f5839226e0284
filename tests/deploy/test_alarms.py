"""Each alert of deploy/prometheus rings for what is brought about at a real gateway, and is silent again when that is mended, as a
real Prometheus sees it. Windows of minutes and hours are seconds here, and so is what an alert waits for."""

import http.client
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import yaml
from clients import Clients
from conftest import FOREBAY, Gateway, eventually, free_port, run
from processes import RULES, Broker, Prometheus
from test_metrics import FIRST_RECORD
from test_observability import crl_that_ends_at_once, post


class Watched:
    """A gateway and a Prometheus that watches it."""

    def __init__(self, home, window, **variables):
        self.home, self.given, self.fired, self.heard = home, variables, set(), set()
        self.gateway = Gateway(home, **variables)
        self.prometheus = Prometheus(home, self.gateway, alerts_after="1s", window=window)

    def fires(self, *alerts, meanwhile=lambda: None):
        eventually(f"{alerts}", lambda: meanwhile() or {*alerts} <= self.prometheus.alerts("firing"))
        self.fired |= {*alerts}

    def clears(self, *alerts, meanwhile=lambda: None):
        eventually(f"all-clear of {alerts}", lambda: meanwhile() or not {*alerts} & self.prometheus.alerts("firing"))
        assert {*alerts} <= self.fired
        self.heard |= {*alerts}

    def restart(self, **variables):
        """Another process, where Prometheus looks for it."""
        assert self.gateway.stop() == 0
        self.given |= variables
        self.gateway = Gateway(self.home, **self.given | {"FOREBAY_ADMIN_LISTEN": self.gateway.admin})

    def log(self):
        return "".join(self.gateway.log)

    def post(self, *expected, **options):
        assert set(post(self.gateway, 1, **options)) <= {*expected}

    def pki(self, command, *arguments, folder="pki"):
        run(FOREBAY, "pki", command, "--dir", self.home / folder, *arguments)

    def stop(self):
        self.prometheus.stop()
        self.gateway.stop()


@contextmanager
def watched(home, window=4, **variables):
    home.mkdir(exist_ok=True)
    watched = Watched(home, window, **variables)
    try:
        yield watched
    finally:
        watched.stop()


def at(broker):
    return {"FOREBAY_SINK": "kafka", "FOREBAY_KAFKA_BOOTSTRAP_SERVERS": broker.address}


@contextmanager
def started(broker):
    try:
        yield broker
    finally:
        broker.stop()


def suppressed(act):
    with suppress(OSError, http.client.HTTPException):
        act()


def what_ends(home):
    with watched(home) as it:
        ends = {what: (f"Forebay{what}Expiring", f"Forebay{what}ExpiresNow") for what in ("RevocationList", "ServerCertificate", "Authority")}
        it.pki("crl", "--days", "1")
        it.fires(*ends["RevocationList"])
        it.pki("crl")
        it.clears(*ends["RevocationList"])
        it.pki("server", "--renew", "--days", "1")
        it.fires(*ends["ServerCertificate"])
        it.pki("server", "--renew")
        it.clears(*ends["ServerCertificate"])
        bundle = home / "pki/ca.pem"
        good = bundle.read_text()
        it.pki("init", "--days", "1", folder="ending")
        bundle.write_text(good + (home / "ending/ca.pem").read_text())
        it.fires(*ends["Authority"])
        bundle.write_text("rubbish\n")
        it.fires("ForebayReloadFailing")
        bundle.write_text(good)
        it.clears("ForebayReloadFailing", *ends["Authority"])
        it.pki("device", "--days", "1", "ending")
        it.fires("ForebayDeviceCertificatesExpiring", meanwhile=lambda: it.post(204, device="ending"))
        it.clears("ForebayDeviceCertificatesExpiring")
        crl_that_ends_at_once(home / "pki")
        it.fires("ForebayListsRefuseDevices", meanwhile=lambda: suppressed(lambda: it.post(204)))
        it.pki("crl")
        it.clears("ForebayListsRefuseDevices")
        return it.heard


def who_knocks(home):
    file = home / "devices"
    home.mkdir()
    file.write_text("deny plc-8\nallow hot rate=1/1\n")
    with watched(home, FOREBAY_DEVICES_FILE=str(file), FOREBAY_AUDIT_LOG="/dev/full") as it:
        it.pki("device", "gone", "hot")
        it.pki("revoke", "gone")
        it.fires("ForebayRevokedDeviceKnocking", meanwhile=lambda: suppressed(lambda: it.post(204, 403, device="gone")))
        it.clears("ForebayRevokedDeviceKnocking")
        it.fires("ForebayDeniedDeviceKnocking", meanwhile=lambda: it.post(403, device="plc-8"))
        it.clears("ForebayDeniedDeviceKnocking")
        it.fires("ForebayDeviceHot", meanwhile=lambda: list(post(it.gateway, 10, device="hot")))
        it.clears("ForebayDeviceHot")
        it.fires("ForebayHandshakesRefused", "ForebayAuditLinesLost", meanwhile=lambda: nobody(it.gateway))
        it.clears("ForebayHandshakesRefused", "ForebayAuditLinesLost")
        return it.heard


def nobody(gateway):
    """A handshake without a certificate."""
    stranger = ssl.create_default_context(cafile=gateway.files()[0])
    with suppress(OSError), socket.create_connection(("127.0.0.1", gateway.port)) as plain:
        with stranger.wrap_socket(plain, server_hostname="localhost") as refused:
            refused.recv(1)


def how_many_come(home):
    full = {"FOREBAY_ACCESS_LOG": "/dev/full", "FOREBAY_ACCESS_LOG_SAMPLE": "1"}
    with watched(home, FOREBAY_CONNECTIONS_MAX="2", **full) as it:
        it.fires("ForebayAccessLinesLost", meanwhile=lambda: it.post(204))
        it.fires("ForebayTrafficGone")
        it.clears("ForebayTrafficGone", meanwhile=lambda: it.post(204))
        it.clears("ForebayAccessLinesLost")
        held = [socket.create_connection(("127.0.0.1", it.gateway.port)) for _ in range(2)]
        held = [it.gateway.tls().wrap_socket(one, server_hostname="localhost") for one in held]
        it.fires("ForebayConnectionsNearBound")
        for one in held:
            one.close()
        it.clears("ForebayConnectionsNearBound")
        return it.heard


def what_is_shed(home):
    sheds = ("ForebayDeviceTableFull", "ForebayShedding", "ForebayErrorBudgetBurn", "ForebayErrorBudgetLeak")
    narrow = {"FOREBAY_DEVICES_MAX": "1", "FOREBAY_DEVICE_RATE": "0.01", "FOREBAY_DEVICE_BURST": "10000"}
    with watched(home, FOREBAY_MEMORY_MAX="1MiB", FOREBAY_BODY_BYTES_MAX="980KiB", **narrow) as it, Clients() as clients:
        it.post(204)
        it.fires(*sheds, meanwhile=lambda: it.post(503, device="plc-8"))
        it.clears(*sheds, meanwhile=lambda: it.post(204))
        client = clients.open("h1", it.gateway)
        body = bytes(979 << 10)
        held = client.hold(client.ask(body, length=str(len(body) + 1)))
        it.fires("ForebayMemoryNearBound")
        assert client.release(held, b"x") == 204
        it.clears("ForebayMemoryNearBound")
        return it.heard


def what_a_spool_holds(home):
    home.mkdir()
    spool = {"FOREBAY_SPOOL_DIR": str(home / "spool"), "FOREBAY_SPOOL_BYTES_MAX": "32MiB", "FOREBAY_DEVICE_BYTE_RATE": "0"}
    large = {"body": bytes(256 << 10)}
    with started(Broker(home)) as broker, watched(home, **at(broker), **spool) as it:
        broker.pause()
        it.fires("ForebaySpoolFilling", meanwhile=lambda: it.post(204, 503, **large))
        it.fires("ForebaySpoolAlmostFull", "ForebaySpoolDown", meanwhile=lambda: it.post(204, 503, **large))
        assert "the spool is full" in it.log() and "the spool has room again" not in it.log()
        broker.resume()
        it.clears("ForebaySpoolFilling", "ForebaySpoolAlmostFull", "ForebaySpoolDown")
        eventually("a word of it", lambda: "the spool has room again" in it.log())
        it.restart(FOREBAY_SPOOL_FULL="drop-oldest")
        broker.pause()
        it.fires("ForebaySpoolDroppedRecords", meanwhile=lambda: it.post(204, **large))
        it.clears("ForebaySpoolDroppedRecords")
        return it.heard


def what_a_disk_returns(home):
    """Damage is found at once, before anybody has asked for a metric."""
    home.mkdir()
    spool = {"FOREBAY_SPOOL_DIR": str(home / "spool")}
    broken = Gateway(home, FOREBAY_SINK="kafka", FOREBAY_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", **spool)
    assert set(post(broken, 2, body=bytes(100 << 10))) == {204} and broken.stop() == 0
    with open(min((home / "spool").glob("*.spool")), "r+b") as segment:
        segment.seek(FIRST_RECORD)
        segment.write(b"damaged")
    with watched(home, **spool) as it:
        it.fires("ForebaySpoolDamaged")
        it.clears("ForebaySpoolDamaged")
        return it.heard


def what_a_stream_does(home):
    home.mkdir()
    with started(Broker(home)) as broker:
        with watched(home, **at(broker), FOREBAY_ACK_TIMEOUT="2s") as it:
            it.post(204)
            broker.pause()
            # Each is answered, not left to wait: 504 where the broker may have it, 503 once it is known to be away.
            it.fires("ForebaySinkAway", "ForebaySlow", meanwhile=lambda: it.post(503, 504))
            broker.resume()
            it.clears("ForebaySinkAway", "ForebaySlow", meanwhile=lambda: it.post(204, 503, 504))
            refused(it, broker)
            it.restart(FOREBAY_STREAMS="telemetry,fleet-events=telemetry", FOREBAY_EVENTS_STREAM="fleet-events")
            broker.alter("telemetry", "max.message.bytes=100")
            it.fires("ForebayEventsDropped", meanwhile=lambda: list(post(it.gateway, 1)))
            broker.restore("telemetry", "max.message.bytes")
            it.clears("ForebayEventsDropped")
            return it.heard


def refused(it, broker):
    """Records that their devices believe safe, until somebody has them delivered after all."""
    spool = it.home / "spool"
    it.restart(FOREBAY_SPOOL_DIR=str(spool), FOREBAY_SPOOL_MODE="always")
    broker.alter("telemetry", "max.message.bytes=10000")
    it.fires("ForebaySinkRefusesRecords", "ForebayDeadLetters", meanwhile=lambda: it.post(204, body=b"x" * 20_000))
    broker.restore("telemetry", "max.message.bytes")
    it.clears("ForebaySinkRefusesRecords")
    assert "ForebayDeadLetters" in it.prometheus.alerts("firing")
    assert it.gateway.stop() == 0
    run(FOREBAY, "spool", "replay", env={"FOREBAY_SPOOL_DIR": str(spool)})
    it.restart()
    it.clears("ForebayDeadLetters")
    it.restart(FOREBAY_SPOOL_DIR=None, FOREBAY_SPOOL_MODE=None)


def who_is_there(home):
    with watched(home, window=20) as it:
        for scrapes in range(1, 4):
            it.restart()
            eventually("a scrape of the new process", lambda: it.prometheus.ask(f"changes(process_start_time_seconds[1m]) >= {scrapes}"))
        it.fires("ForebayRestarting")
        it.gateway.stop()
        it.fires("ForebayDown")
        it.restart()
        it.clears("ForebayDown")
        it.prometheus.watch()
        it.fires("ForebayAbsent")
        it.prometheus.watch(it.gateway.admin)
        it.clears("ForebayAbsent", "ForebayRestarting")
        other = Gateway(home, FOREBAY_FILE_DIR=str(home / "other"))
        try:
            it.prometheus.watch(it.gateway.admin, elder=other.admin)
            it.fires("ForebayMixedVersions")
            it.prometheus.watch(it.gateway.admin)
            it.clears("ForebayMixedVersions")
        finally:
            other.stop()
        return it.heard


SCENES = [what_ends, who_knocks, how_many_come, what_is_shed, what_a_spool_holds, what_a_disk_returns, what_a_stream_does, who_is_there]


@pytest.fixture(scope="module")
def heard(folder):
    """By scene, which alerts have fired and cleared. All at once, since they mostly wait."""
    with ThreadPoolExecutor(len(SCENES)) as pool:
        return {scene: pool.submit(scene, folder / scene.__name__) for scene in SCENES}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_what_is_wrong_rings_until_it_is_mended(heard, scene):
    assert heard[scene].result()


def test_every_alert_is_heard(heard):
    groups = yaml.safe_load(RULES[1].read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts == set().union(*(played.result() for played in heard.values()))
