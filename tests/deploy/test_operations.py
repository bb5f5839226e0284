"""The drills of docs/operations.md and docs/upgrades.md, typed in as they stand there, against a real gateway, and twice: a drill that
works only once is none."""

import os
import re
import subprocess
import threading

import pytest
from conftest import FOREBAY, PATIENCE, ROOT, Gateway, eventually

PAGES = [ROOT / "docs/operations.md", ROOT / "docs/upgrades.md"]


def sections():
    """What each page tells to type, by the title of its section."""
    found = {}
    for page in PAGES:
        for title, text in re.findall(r"^#+ (.+?)\n(.*?)(?=^#+ |\Z)", page.read_text(), flags=re.M | re.S):
            if block := re.search(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S):
                found[title] = block[1]
    return found


class Operator:
    """A folder with a gateway that `forebay pki` is the authority of, and a shell."""

    def __init__(self, home, **variables):
        (home / "bin").mkdir(parents=True)
        (home / "bin/forebay").symlink_to(FOREBAY)
        self.home, self.gateway = home, Gateway(home, **variables)

    def type(self, text, **replaced):
        """What it printed, once it has succeeded."""
        places = {"localhost:8443": f"localhost:{self.gateway.port}", "127.0.0.1:9444": self.gateway.admin} | replaced
        for there, here in places.items():
            text = text.replace(there, str(here))
        environment = self.gateway.environment | {"PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", f"set -eu\n{text}"], cwd=self.home, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def operator(folder):
    operator = Operator(folder / "drills")
    yield operator
    assert operator.gateway.stop() == 0, "".join(operator.gateway.log)


def revocation(said, warned):
    assert [line for line in said.splitlines() if line.isdigit()] == ["204", "000"]
    assert "revoked" in warned and re.search(r'result="revoked"\} [1-9]', said)


def renewal(said, _):
    assert 'forebay_tls_reload_ok{what="certificate"} 1\n' in said


def bad_file(said, _):
    assert re.findall(r'reload_ok\{what="crl"\} (\d)', said) == ["0", "1"]


DRILLS = {"A drill for revocation": revocation, "A drill for the server's certificate": renewal, "A drill for a bad file": bad_file}
WITH_TWO = "A drill for two side by side"


def test_every_drill_is_tried():
    assert {title for title in sections() if title.startswith("A drill")} == {*DRILLS, WITH_TWO}


@pytest.mark.parametrize("title", DRILLS)
def test_a_drill_can_be_repeated(operator, title):
    for _ in range(2):
        DRILLS[title](*operator.type(sections()[title]))


def test_a_renewal_is_no_failure(operator):
    """However the gateway's look falls: it is told to look at every one of them."""
    for _ in range(5):
        operator.type("forebay pki server --dir pki --renew")
        operator.type(f"kill -HUP {operator.gateway.process.pid}")
    eventually("a certificate that was reloaded", lambda: "reloaded" in "".join(operator.gateway.log))
    assert 'forebay_tls_reload_failures_total{what="certificate"} 0\n' in operator.gateway.ask_admin("/metrics")


def test_the_questions_have_answers(operator):
    said, _ = operator.type(sections()["Operations"])
    assert "ready\n" in said and "serving" in said and "FOREBAY_TLS_CERT" in said and "forebay_build_info" in said


def test_two_side_by_side(folder):
    operator = Operator(folder / "side-by-side", FOREBAY_REUSE_PORT="true", FOREBAY_SINK="null", FOREBAY_SPOOL_DIR="spool-a")
    first = operator.gateway
    first.environment["FOREBAY_LISTEN"] = first.address
    # Port 0 and the log are how a test finds an admin port that is free; the page has one that is not its own.
    typed = re.sub(r"FOREBAY_ADMIN_LISTEN=\S+", "FOREBAY_ADMIN_LISTEN=127.0.0.1:0", sections()[WITH_TWO])
    typed = typed.replace("forebay serve &", "forebay serve >log 2>&1 &").replace("127.0.0.1:9445", "$(admin)")
    admin = """admin() { sed -n 's/.*"admin":"\\([^"]*\\)".*/\\1/p' log | head -1; }\n"""
    post = ("curl -sS -o /dev/null -w '%{http_code}\\n' --cacert pki/ca.pem --cert pki/devices/plc-7.pem --key pki/devices/plc-7.key "
            "-d 1 https://localhost:8443/v1/telemetry\n")
    # Whoever has started a process hears of its end; until then the drill sees it.
    threading.Thread(target=first.process.wait, daemon=True).start()
    try:
        said, _ = operator.type(f"touch log\n{admin}{typed}{post}kill -TERM $new\nwait $new\n", **{"4711": first.process.pid})
        assert "ready\n" in said and "serving" in said and said.endswith("204\n")
        assert first.process.wait(PATIENCE) == 0
    finally:
        first.stop()
