"""What docs/troubleshooting.md says that curl prints, and the reason that goes with it, of a real gateway and the real curl."""

import re
import subprocess

import pytest
from conftest import FOREBAY, ROOT, Gateway, eventually, run
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


def curl(gateway, certificate=None, ca="pki/ca.pem", scheme="https"):
    shown = ["--cert", f"{certificate}.pem", "--key", f"{certificate}.key"] if certificate else []
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--cacert", ca, *shown, "-d", "1", f"{scheme}://localhost:{gateway.port}/v1/telemetry"],
                          cwd=gateway.folder, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


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


@pytest.mark.parametrize("reason", CASES)
def test_what_curl_prints_leads_to_the_reason(served, reason):
    if reason == "crl_expired":
        crl_that_ends_at_once(served.folder / "pki")
        eventually("the list's end", lambda: "access denied" in curl(served, **CASES[reason]))
    said = curl(served, **CASES[reason])
    of_reason = [texts for texts, reasons in rows() if reason in reasons]
    assert of_reason and any(text in said for texts in of_reason for text in texts), f"{reason}: {said}"
    series = f'forebay_tls_handshakes_total{{result="{reason}"}} 0'
    eventually(reason, lambda: f"{series}\n" not in served.ask_admin("/metrics"))
