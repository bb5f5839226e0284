"""What docs/troubleshooting.md says that curl and openssl print, and the reason that goes with it, of a real gateway and the real
programs."""

import re
import subprocess

import pytest
from conftest import FOREBAY, ROOT, Gateway, eventually, free_port, run
from test_metrics import date
from test_observability import crl_that_ends_at_once

PAGE = ROOT / "docs/troubleshooting.md"


def rows():
    """What is said, and the reasons, of each row of the first table."""
    table = PAGE.read_text().split("## The connection", 1)[1].split("\n## ", 1)[0]
    cells = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and "curl or" not in line]
    return [(set(re.findall(r"`([^`]+)`", row[0])), set(re.findall(r"`([^`]+)`", row[-1]))) for row in cells]


@pytest.fixture(scope="module")
def served(folder):
    home = folder / "trouble"
    home.mkdir()
    gateway = Gateway(home)
    run(FOREBAY, "pki", "init", "--dir", home / "other")
    run(FOREBAY, "pki", "device", "--dir", home / "other", "plc-9")
    run(FOREBAY, "pki", "device", "--dir", home / "pki", "old", "new", "gone")
    run(FOREBAY, "pki", "revoke", "--dir", home / "pki", "gone")
    date(home / "pki", "old", "20200101000000Z", "20210101000000Z")
    date(home / "pki", "new", "20900101000000Z", "20910101000000Z")
    eventually("a revocation", lambda: "revoked" in curl(gateway, "pki/devices/gone"))
    yield gateway
    gateway.stop()


def said(command, folder):
    done = subprocess.run([str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def curl(gateway, certificate=None, key=None, ca="pki/ca.pem", scheme="https", name="localhost", port=None):
    port = port or gateway.port
    shown = ["--cert", f"{certificate}.pem", "--key", f"{key or certificate}.key"] if certificate else []
    there = ["--noproxy", "*", "--resolve", f"{name}:{port}:127.0.0.1"]
    return said(["curl", "-sS", *there, "--cacert", ca, *shown, "-d", "1", f"{scheme}://{name}:{port}/v1/telemetry"], gateway.folder)


def openssl(gateway, certificate=None, key=None, ca="pki/ca.pem", name="localhost", port=None):
    """It waits for what comes after the handshake: a refused certificate's alert."""
    shown = ["-cert", f"{certificate}.pem", "-key", f"{key or certificate}.key"] if certificate else []
    there = ["-connect", f"127.0.0.1:{port or gateway.port}", "-verify_hostname", name]
    return said(["openssl", "s_client", *there, "-CAfile", ca, "-verify_return_error", "-ign_eof", *shown], gateway.folder)


CASES = {
    "server_untrusted": {"certificate": "pki/devices/plc-7", "ca": "other/ca.pem"},
    "no_certificate": {},
    "unknown_issuer": {"certificate": "other/devices/plc-9"},
    "expired": {"certificate": "pki/devices/old"},
    "not_yet_valid": {"certificate": "pki/devices/new"},
    "revoked": {"certificate": "pki/devices/gone"},
    "bad_certificate": {"certificate": "pki/server"},
    "plain_http": {"scheme": "http"},
    "crl_expired": {"certificate": "pki/devices/plc-7"},
}


PLC_7 = "pki/devices/plc-7"
WITHOUT_REASON = {
    "nobody listens there": {"certificate": PLC_7},
    "the server's certificate has another name": {"certificate": PLC_7, "name": "elsewhere.example"},
    "the key is another certificate's": {"certificate": PLC_7, "key": "pki/devices/plc-8"},
    "something else than the gateway is at this port": {"certificate": PLC_7},
}


@pytest.mark.parametrize("cause", WITHOUT_REASON)
def test_what_is_printed_leads_to_the_cause(served, cause):
    """Where the gateway knows nothing of it."""
    elsewhere = {"nobody listens there": free_port(), "something else than the gateway is at this port": served.admin.rsplit(":", 1)[1]}
    (row,) = [line for line in PAGE.read_text().splitlines() if f"| {cause}" in line]
    texts = re.findall(r"`([^`]+)`", row.split(" | ")[0])
    for program in (curl, openssl):
        said = program(served, port=elsewhere.get(cause), **WITHOUT_REASON[cause])
        assert any(text in said for text in texts), f"{program.__name__}: {said}"


@pytest.mark.parametrize("reason", CASES)
def test_what_is_printed_leads_to_the_reason(served, reason):
    if reason == "crl_expired":
        crl_that_ends_at_once(served.folder / "pki")
        eventually("the list's end", lambda: "access denied" in curl(served, **CASES[reason]))
    of_reason = [text for texts, reasons in rows() for text in texts if reason in reasons]
    for program in [curl] if reason == "plain_http" else [curl, openssl]:
        said = program(served, **CASES[reason])
        assert any(text in said for text in of_reason), f"{program.__name__}, {reason}: {said}"
    series = f'forebay_tls_handshakes_total{{result="{reason}"}} 0'
    eventually(reason, lambda: f"{series}\n" not in served.ask_admin("/metrics"))
