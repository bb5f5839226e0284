"""The Debian package and its units: built from the program that is there, installed by dpkg in a folder, and the program run
from there as the unit says: its user, its read-only file system, its system calls, the sockets and the credentials that it is
given."""

import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
from conftest import DEPLOY, FOREBAY, PATIENCE, ROOT, Gateway, eventually, run, tool
from units import Unit, complaints

UNITS = DEPLOY / "systemd"
SERVICE = Unit(UNITS / "forebay.service")
SOCKET = Unit(UNITS / "forebay.socket")


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"this machine has no {program}: THE PACKAGE WAS NOT TRIED")
    if os.geteuid() != 0:
        pytest.skip("only root may install packages and become a service's user: THE PACKAGE WAS NOT TRIED")


@pytest.fixture(scope="module")
def package(folder):
    """The .deb, of the program under test; a release has the same but for the program."""
    run(ROOT / "scripts/manual.sh", FOREBAY, ROOT / "target/manual")
    file = folder / "forebay.deb"
    run(tool("cargo-deb"), "--profile", "dev", "--no-build", "--offline", "--fast", "--output", file, cwd=ROOT)
    return file


@pytest.fixture(scope="module")
def installed(folder, package):
    """A root in which dpkg has installed the package, its scripts included."""
    needs("dpkg", "systemd-sysusers", "systemd-tmpfiles")
    root = folder / "installed"
    for name in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    # Nobody looks below a temporary folder of root but root.
    folder.chmod(0o755)
    run("dpkg", f"--root={root}", "--force-depends", "--force-script-chrootless", "--install", package)
    return root


def test_units_are_what_systemd_understands(folder):
    needs("systemd-analyze")
    home = folder / "units"
    home.mkdir()
    for file in [*UNITS.glob("*.service"), *UNITS.glob("*.socket"), *UNITS.glob("*.timer")]:
        # The program and its manual are not installed here.
        text = re.sub(r"^Documentation=.*\n", "", file.read_text(), flags=re.M)
        (home / file.name).write_text(text.replace("/usr/bin/forebay", str(FOREBAY)).replace("/usr/bin/rsync", "/bin/true"))
    assert complaints(*home.glob("*")) == []


@pytest.mark.parametrize("file", [*DEPLOY.rglob("*.service")], ids=lambda file: file.stem)
def test_no_service_is_given_up(file):
    """By systemd's defaults, five failures within ten seconds are the last; and one that stays down after a failure has its
    socket start it with each connection that waits, until the socket fails too: twenty times within two seconds."""
    unit = Unit(file)
    if unit.all("Type") == ["oneshot"]:
        return
    assert unit.one("StartLimitIntervalSec") == "0" and unit.one("Restart") in ("on-failure", "always")
    assert not unit.all("RestartPreventExitStatus")


def test_failures_are_followed_by_longer_and_longer_pauses():
    first, steps, last = (SERVICE.one(name).removesuffix("s") for name in ("RestartSec", "RestartSteps", "RestartMaxDelaySec"))
    assert int(first) == 1 and int(steps) > 1 and int(last) == 60


def test_the_service_is_exposed_as_little_as_a_server_can_be():
    needs("systemd-analyze")
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", UNITS / "forebay.service")


def test_it_is_not_killed_while_it_drains():
    """By the default of FOREBAY_DRAIN_TIMEOUT; three seconds are for those who are late (src/gateway/shutdown.rs)."""
    drain = re.search(r"default: (\d+)s\] \[FOREBAY_DRAIN_TIMEOUT", run(FOREBAY, "serve", "--help", env={"COLUMNS": "500"}))[1]
    assert int(SERVICE.one("TimeoutStopSec").removesuffix("s")) > int(drain) + 3


def test_the_package_has_what_it_should(package):
    listing = run("dpkg-deb", "--contents", package)
    files = {line.split()[5]: line.split()[0] for line in listing.splitlines()}
    for file in ("usr/bin/forebay", "usr/lib/systemd/system/forebay.service", "usr/lib/systemd/system/forebay.socket",
                 "usr/share/man/man1/forebay-serve.1.gz", "usr/share/bash-completion/completions/forebay",
                 "etc/logrotate.d/forebay", "usr/share/doc/forebay/copyright"):
        assert f"./{file}" in files
    assert files["./etc/forebay/forebay.env"] == "-rw-------", "it may hold passwords"
    conffiles = run("dpkg-deb", "--info", package, "conffiles").split()
    assert conffiles == ["/etc/forebay/forebay.env", "/etc/logrotate.d/forebay"]


def test_every_setting_in_the_environment_file_is_one():
    """Also those that are commented out, but for an empty password."""
    text = re.sub(r"^#(FOREBAY_\w+=.+)$", r"\1", (UNITS / "forebay.env").read_text(), flags=re.M)
    settings = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    effective = run(FOREBAY, "check", env=settings)
    assert all(f"{name}=" in effective for name in settings)


def test_a_removal_leaves_the_spool(folder, package):
    needs("dpkg")
    scripts = folder / "scripts"
    run("dpkg-deb", "--control", package, scripts)
    for script in ("postinst", "prerm", "postrm"):
        run("sh", "-n", scripts / script)
    assert "rm " not in (scripts / "postrm").read_text()


class Service(Gateway):
    """The installed program, started as its unit says."""

    def __init__(self, root, sockets, notify):
        self.root = root
        launcher = ROOT / "tests/deploy/like_systemd.py"
        descriptors = [opened.fileno() for opened in sockets]
        command = [sys.executable, "-B", launcher, root, UNITS / "forebay.service", *descriptors]
        super().__init__(root.parent / "service", prefix=["unshare", "--mount"], command=command,
                         PASS_FDS=" ".join(map(str, descriptors)), NOTIFY_SOCKET=notify)


def opened(kind):
    """As the socket unit opens it, on a free port of this machine alone."""
    listener = socket.socket(socket.AF_INET6, kind)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return listener


@pytest.fixture(scope="module")
def sockets():
    for _ in range(16):
        tcp, udp = opened(socket.SOCK_STREAM), opened(socket.SOCK_DGRAM)
        tcp.bind(("::ffff:127.0.0.1", 0))
        try:
            udp.bind(("::ffff:127.0.0.1", tcp.getsockname()[1]))
        except OSError:
            continue
        tcp.listen(int(SOCKET.one("Backlog")))
        return tcp, udp
    pytest.fail("no port is free for both")


@pytest.fixture(scope="module")
def told():
    """What systemd would be told."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"\0forebay-deploy-{os.getpid()}")
    listener.settimeout(PATIENCE)
    return listener


def hand_over(pki, root, name):
    """A new certificate of the server, and the rest of what TLS needs, for the group; each file in one step, the key first."""
    run(FOREBAY, "pki", "server", "--dir", pki, "--name", "localhost", "--name", name)
    tls = root / "etc/forebay/tls"
    for source, target in (("server.key", "server.key"), ("server.pem", "server.pem"), ("ca.pem", "devices-ca.pem")):
        beside = tls / f"{target}.new"
        shutil.copy(pki / source, beside)
        shutil.chown(beside, group=tls.stat().st_gid)
        beside.chmod(0o640)
        beside.rename(tls / target)


def configure(root):
    """As docs/deploy.md has it: certificates for the group, the spool's key for root alone."""
    pki = root.parent / "service/pki"
    run(FOREBAY, "pki", "init", "--dir", pki)
    run(FOREBAY, "pki", "device", "--dir", pki, "plc-7")
    hand_over(pki, root, "127.0.0.1")
    (root / "etc/credstore").mkdir()
    (root / "etc/credstore/forebay.spool-key").write_text("0123456789abcdef" * 4 + "\n")
    environment = root / "etc/forebay/forebay.env"
    text = environment.read_text().replace("FOREBAY_SINK=kafka\nFOREBAY_KAFKA_BOOTSTRAP_SERVERS=localhost:9092", "FOREBAY_SINK=file")
    text = re.sub(r"^#(FOREBAY_SPOOL_KEY_FILE|FOREBAY_AUDIT_LOG)", r"\1", text, flags=re.M)
    environment.write_text(f"{text}FOREBAY_SPOOL_MODE=always\nFOREBAY_ADMIN_LISTEN=127.0.0.1:0\n")


@pytest.fixture(scope="module")
def service(installed, sockets, told):
    needs("systemd-analyze", "unshare", "curl")
    configure(installed)
    service = Service(installed, sockets, f"@forebay-deploy-{os.getpid()}")
    yield service
    assert service.stop() == 0, "".join(service.log)


def post(service, *options):
    ca, certificate, key = service.files()
    return run("curl", "-sS", "--cacert", ca, "--cert", certificate, "--key", key, "-d", "21.5", "-o", os.devnull,
               "-w", "%{http_code}", f"https://localhost:{service.port}/v1/telemetry", *options)


def test_the_installed_program_serves_within_the_bounds_of_its_unit(service, installed):
    state = installed / "var/lib/forebay"
    assert post(service, "--http2") == "204" and post(service, "--http1.1") == "204"
    eventually("the readings", lambda: len(list(state.glob("data/telemetry/*.jsonl"))) > 0)
    assert (state / "spool").is_dir() and (installed / "var/log/forebay/audit.log").exists()
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split()[0] != "0" and fields["CapEff"].strip() == "0" * 16
    assert fields["NoNewPrivs"].strip() == "1" and fields["Seccomp"].strip() == "2"


def test_systemd_is_told_how_it_is(service, told):
    heard = ""
    while "READY=1" not in heard or "WATCHDOG=1" not in heard:
        heard += told.recv(4096).decode() + "\n"
    assert "STATUS=ready" in heard


def test_it_serves_on_the_sockets_that_it_was_given(service, sockets):
    assert service.port == sockets[0].getsockname()[1]


def test_a_renewed_certificate_is_read_without_a_restart(service, installed):
    pki = service.folder / "pki"
    for name in ("server.pem", "server.key"):
        (pki / name).unlink()
    hand_over(pki, installed, "renewed.example")
    audit = installed / "var/log/forebay/audit.log"
    eventually("the new certificate", lambda: "renewed.example" in audit.read_text())
    assert post(service) == "204"


def test_logs_are_rotated_and_no_line_is_lost(service, installed):
    """By the installed configuration; the gateway is not told. This machine does not know the user that logrotate becomes."""
    needs("logrotate", "setpriv")
    logs = installed / "var/log/forebay"
    audit, owner = logs / "audit.log", logs.stat()
    text = (installed / "etc/logrotate.d/forebay").read_text()
    assert "su forebay forebay\n" in text
    home = installed.parent / "logrotate"
    home.mkdir()
    os.chown(home, owner.st_uid, owner.st_gid)
    (home / "configuration").write_text(text.replace("/var/log/forebay", str(logs)).replace("su forebay forebay", ""))
    before = audit.read_text()
    run("setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups",
        "logrotate", "--force", "--state", home / "state", home / "configuration")
    (rotated,) = logs.glob("audit.log-*")
    assert rotated.read_text().startswith(before)
    eventually("a new file", audit.exists)
    service.process.send_signal(signal.SIGHUP)  # it reads its certificates again, and says so
    eventually("a line in the new file", lambda: audit.stat().st_size > 0)
