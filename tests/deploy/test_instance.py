"""What an instance of the Terraform module does beside its gateway (deploy/terraform/files): the real program, on a machine whose
`aws`, `systemctl` and the like only note how they were called, and whose metadata come from here."""

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import FOREBAY, PATIENCE, Gateway, eventually, run
from terraform import SOURCE
from units import Unit

FILES = SOURCE / "files"
NOTE = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["NOTES"], "a") as notes:
    notes.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + chr(10))
"""
AWS = NOTE + """
if "get-secret-value" in sys.argv:
    with open(sys.argv[-1]) as secret:
        print(json.dumps({"SecretString": secret.read()}))
"""
CURL = NOTE + """
with open(sys.argv[sys.argv.index("--output") + 1], "w") as file:
    file.write("a package")
"""


class Machine:
    """Programs that only note their calls, and what instance.env says."""

    def __init__(self, folder, **programs):
        self.notes, bin = folder / "notes", folder / "bin"
        for made in (folder / "tls", bin):
            made.mkdir(parents=True)
        self.notes.touch()
        for name, text in programs.items():
            (bin / name.replace("_", "-")).write_text(text)
            (bin / name.replace("_", "-")).chmod(0o755)
        self.tls = folder / "tls"
        self.secrets = {name: folder / f"{name}.json" for name in ("server", "devices")}
        self.environment = {
            "PATH": f"{bin}:{os.environ['PATH']}", "NOTES": str(self.notes), "CERTIFICATES": str(self.tls), "GATEWAY": "forebay",
            "SERVER_SECRET": str(self.secrets["server"]), "DEVICES_SECRET": str(self.secrets["devices"]),
            "POLL_SECONDS": "0.01", "LEAD_SECONDS": "0.01",
        }

    def run(self, command, **environment):
        return subprocess.run([sys.executable, "-B", FILES / "instance.py", command], env=self.environment | environment,
                              capture_output=True, text=True, timeout=PATIENCE)

    def noted(self):
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def note(self, *words):
        with self.notes.open("a") as notes:
            notes.write(json.dumps(words) + "\n")

    def put_secrets(self, pki):
        text = lambda name: (pki / name).read_text()
        self.secrets["server"].write_text(json.dumps({"certificate": text("server.pem"), "key": text("server.key")}))
        self.secrets["devices"].write_text(json.dumps({"ca": text("ca.pem"), "crl": text("crl.pem")}))


def issue(pki, name):
    for old in ("server.pem", "server.key"):
        (pki / old).unlink(missing_ok=True)
    run(FOREBAY, "pki", "server", "--dir", pki, "--name", "localhost", "--name", name)


@pytest.fixture(scope="module")
def pki(folder):
    pki = folder / "instance/pki"
    run(FOREBAY, "pki", "init", "--dir", pki)
    run(FOREBAY, "pki", "device", "--dir", pki, "plc-7")
    issue(pki, "first.example")
    return pki


@pytest.fixture(scope="module")
def machine(folder, pki):
    """One that has fetched its certificates."""
    machine = Machine(folder / "machine", aws=AWS)
    if os.geteuid() == 0:
        os.chown(machine.tls, 0, 65534)
    machine.put_secrets(pki)
    assert machine.run("certificates").returncode == 0
    return machine


@pytest.fixture(scope="module")
def gateway(pki, machine):
    current = machine.tls / "current"
    files = {"CERT": "server.pem", "KEY": "server.key", "CLIENT_CA": "devices-ca.pem", "CRL": "devices-crl.pem"}
    gateway = Gateway(pki.parent, **{f"FOREBAY_TLS_{name}": str(current / file) for name, file in files.items()})
    yield gateway
    assert gateway.stop() == 0, "".join(gateway.log)


def presented(gateway):
    """The server's certificate, as a device sees it."""
    with ssl.create_connection(("localhost", gateway.port), timeout=PATIENCE) as plain:
        with gateway.tls().wrap_socket(plain, server_hostname="localhost") as connection:
            return connection.getpeercert()


def names(gateway):
    return {name for _, name in presented(gateway)["subjectAltName"]}


def test_nobody_but_the_gateway_may_read_its_certificates(machine):
    current = machine.tls / "current"
    folder, files = current.stat(), {file.name: file.stat() for file in current.iterdir()}
    assert set(files) == {"server.pem", "server.key", "devices-ca.pem", "devices-crl.pem"}
    assert folder.st_mode & 0o777 == 0o750 and {stat.st_mode & 0o777 for stat in files.values()} == {0o640}
    assert {stat.st_gid for stat in (folder, *files.values())} == {machine.tls.stat().st_gid}


def test_renewed_certificates_are_in_force_without_a_restart(machine, gateway, pki):
    assert "first.example" in names(gateway)
    issue(pki, "second.example")
    machine.put_secrets(pki)
    assert machine.run("certificates").returncode == 0
    eventually("the new certificate", lambda: "second.example" in names(gateway))
    failed = re.findall(r"^forebay_tls_reload_failures_total\{.*\} [1-9]", gateway.ask_admin("/metrics"), re.M)
    assert gateway.process.poll() is None and not failed
    assert len(list(machine.tls.iterdir())) == 2, "the last set and the link to it"


def test_what_has_not_changed_is_left_alone(machine):
    before = os.readlink(machine.tls / "current")
    assert machine.run("certificates").returncode == 0
    assert os.readlink(machine.tls / "current") == before


@pytest.mark.parametrize("wrong", ["", "no JSON", '{"certificate": "one without its key"}'])
def test_a_secret_that_cannot_be_used_changes_nothing(machine, pki, wrong):
    before = os.readlink(machine.tls / "current")
    machine.secrets["server"].write_text(wrong)
    assert machine.run("certificates").returncode != 0
    assert os.readlink(machine.tls / "current") == before and len(list(machine.tls.iterdir())) == 2
    machine.put_secrets(pki)


def test_the_certificate_that_is_in_force_is_reported(machine, gateway):
    assert machine.run("report", ADMIN=f"http://{gateway.admin}").returncode == 0
    (*first, ready), (*call, days) = machine.noted()[-2:]
    metric = ["aws", "--output", "json", "cloudwatch", "put-metric-data", "--namespace", "Forebay", "--metric-name"]
    assert (first, ready) == ([*metric, "Ready", "--dimensions", "Gateway=forebay", "--value"], "1")
    assert call == [*metric, "CertificateDaysLeft", "--dimensions", "Gateway=forebay", "--value"]
    ends = ssl.cert_time_to_seconds(presented(gateway)["notAfter"])
    assert abs(float(days) - (ends - time.time()) / 86400) < 0.1


def test_a_gateway_that_is_dead_is_reported(machine):
    machine.run("report", ADMIN="http://127.0.0.1:1")
    assert machine.noted()[-1][-5:] == ["Ready", "--dimensions", "Gateway=forebay", "--value", "0"]


def test_the_gateway_gets_the_user_of_kafka_as_the_secret_has_it(folder, pki):
    machine = Machine(folder / "kafka", aws=AWS)
    machine.put_secrets(pki)
    user = {"username": "for\"$(e)`b\\ay'", "password": "a \"$(b)`c\\d'"}
    (folder / "kafka/user.json").write_text(json.dumps(user))
    done = machine.run("certificates", KAFKA_SECRET=str(folder / "kafka/user.json"))
    file = folder / "kafka/kafka.env"
    assert done.returncode == 0 and file.stat().st_mode & 0o777 == 0o600, done.stderr
    # A shell reads what stands in double quotes as systemd does.
    assert run("sh", "-c", f'. {file} && printf "%s" "$FOREBAY_KAFKA_SASL_USERNAME"') == user["username"]
    password = machine.tls / "kafka.password"
    assert password.read_text() == user["password"] and password.stat().st_mode & 0o777 == 0o640
    assert password.stat().st_gid == machine.tls.stat().st_gid
    (folder / "kafka/user.json").write_text(json.dumps(user | {"password": "another"}))
    machine.run("certificates", KAFKA_SECRET=str(folder / "kafka/user.json"))
    assert password.read_text() == "another"


JOURNALCTL = NOTE + """
lines = [line for line in open(os.environ["JOURNAL"]).read().splitlines() if line]
after = [argument.split("=", 1)[1] for argument in sys.argv if argument.startswith("--after-cursor=")]
cursors = [json.loads(line)["__CURSOR"] for line in lines]
for line in lines[cursors.index(after[0]) + 1 if after else 0:]:
    print(line)
"""
LOGS = """
if "put-log-events" in sys.argv:
    if os.path.exists(os.environ["AWAY"]):
        sys.exit(255)
    with open(sys.argv[-1].removeprefix("file://")) as events, open(os.environ["SENT"], "a") as sent:
        sent.write(events.read() + chr(10))
"""


class Journal:
    """What the journal has, and what CloudWatch Logs has got."""

    def __init__(self, folder):
        self.machine = Machine(folder, aws=NOTE + LOGS, journalctl=JOURNALCTL)
        self.file, self.away, self.sent_file = folder / "journal", folder / "away", folder / "sent.jsonl"
        for path in (self.file, self.sent_file):
            path.touch()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        server.machine = self.machine
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.server, self.number = server, 0
        self.environment = self.machine.environment | {
            "METADATA": f"http://127.0.0.1:{server.server_port}", "LOG_GROUP": "/forebay/forebay", "LOG_SECONDS": "0.01",
            "STATE_DIRECTORY": str(folder), "JOURNAL": str(self.file), "SENT": str(self.sent_file), "AWAY": str(self.away)}

    def write(self, *messages):
        with self.file.open("a") as file:
            for message in messages:
                self.number += 1
                entry = {"__CURSOR": f"s={self.number}", "__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + self.number * 1000)}
                file.write(json.dumps(entry | {"MESSAGE": message}) + "\n")

    def start(self):
        return subprocess.Popen([sys.executable, "-B", FILES / "instance.py", "logs"], env=self.environment, stderr=subprocess.DEVNULL)

    def sent(self):
        return [event["message"] for line in self.sent_file.read_text().splitlines() for event in json.loads(line)]


def test_what_one_call_takes_is_not_exceeded(folder):
    """A MiB, 10,000 events, a day; and a line is cut long before that."""
    journal = Journal(folder / "many-logs")
    journal.write(*["x" * 60_000] * 30)
    journal.number += 86_400_000
    journal.write("a day later")
    process = journal.start()
    try:
        eventually("all of it", lambda: journal.sent()[-1:] == ["a day later"])
    finally:
        process.kill()
        process.wait(PATIENCE)
        journal.server.shutdown()
        journal.server.server_close()
    calls = [json.loads(line) for line in journal.sent_file.read_text().splitlines()]
    assert len(calls) >= 3 and len(journal.sent()) == 31
    for events in calls:
        assert sum(len(event["message"]) + 26 for event in events) <= 1_048_576
        assert events[-1]["timestamp"] - events[0]["timestamp"] < 86_400_000


def test_the_journal_leaves_the_instance_once_and_in_order(folder):
    journal = Journal(folder / "logs")
    journal.write("one", "two", list(b"tw\xf6"), None, ["both", "of them"])
    expected = ["one", "two", "tw\ufffd", " ", "['both', 'of them']"]
    process = journal.start()
    try:
        eventually("what was there", lambda: journal.sent() == expected)
        journal.write("three")
        eventually("what came after it", lambda: journal.sent() == [*expected, "three"])
        journal.away.touch()
        journal.write("four")
        assert process.wait(PATIENCE) != 0, "systemd starts it anew"
        journal.away.unlink()
        journal.write("five")
        process = journal.start()
        eventually("what had to wait", lambda: journal.sent() == [*expected, "three", "four", "five"])
    finally:
        process.kill()
        process.wait(PATIENCE)
        journal.server.shutdown()
        journal.server.server_close()
    put = next(call for call in journal.machine.noted() if "put-log-events" in call)
    assert put[put.index("--log-group-name"):-2] == ["--log-group-name", "/forebay/forebay", "--log-stream-name", "i-1"]
    (first,) = {call[-1] for call in journal.machine.noted() if call[0] == "journalctl"} & {"--unit=cloud-final.service"}
    assert first, "the first boot too"


class Metadata(BaseHTTPRequestHandler):
    """IMDSv2 and the admin address at once: ready at the third look, in service for one more, then to be terminated."""

    def do_PUT(self):
        assert self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "a token")

    def do_GET(self):
        if self.path == "/readyz":
            self.answer(200 if self.next("readyz") >= 3 else 503, "")
        elif self.headers["X-aws-ec2-metadata-token"] != "a token":
            self.answer(401, "")
        elif self.path.endswith("/instance-id"):
            self.answer(200, "i-1")
        elif self.path.endswith("/autoscaling/target-lifecycle-state"):
            self.answer(200, "Terminated" if self.next("state") > 1 else "InService")

    def next(self, what):
        self.server.machine.note(what)
        return self.server.machine.noted().count([what])

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def test_an_instance_counts_once_it_is_ready_and_ends_its_gateway_when_it_is_taken_away(folder):
    machine = Machine(folder / "lifecycle", aws=AWS, systemctl=NOTE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.machine = machine
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        done = machine.run("lifecycle", ADMIN=url, METADATA=url)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    ready = ["aws", "--output", "json", "autoscaling", "complete-lifecycle-action", "--lifecycle-action-result", "CONTINUE",
             "--lifecycle-hook-name", "ready", "--auto-scaling-group-name", "forebay", "--instance-id", "i-1"]
    stop = ["systemctl", "stop", "forebay.service"]
    assert machine.noted() == [*[["readyz"]] * 3, ready, *[["state"]] * 2, stop]


# Secrets Manager is away.
SYSTEMCTL = NOTE + """
sys.exit("forebay-tls.service" in sys.argv)
"""
DPKG = NOTE + """
if "--print-architecture" in sys.argv:
    print("arm64")
"""


def boot(folder, url, checksum, sessions=""):
    """The script with its paths below `folder`; what it called, and whether it came to its end."""
    machine = Machine(folder, aws=NOTE, apt_get=NOTE, curl=CURL, sysctl=NOTE, systemctl=SYSTEMCTL, dpkg=DPKG)
    for path in ("etc/forebay", "etc/sysctl.d", "usr/share/doc/forebay/examples"):
        (folder / path).mkdir(parents=True)
    (folder / "usr/share/doc/forebay/examples/sysctl.conf").touch()
    (folder / "etc/forebay/instance.env").write_text(f"PACKAGE_URL='{url}'\nPACKAGE_SHA256='{checksum}'\nSESSIONS_URL='{sessions}'\n")
    (folder / "boot").write_text(re.sub(r"(?<=[ (])/(?=etc|usr)", f"{folder}/", (FILES / "boot").read_text()))
    done = subprocess.run(["sh", folder / "boot"], env=machine.environment | {"TMPDIR": str(folder)}, capture_output=True, text=True,
                          timeout=PATIENCE)
    return done.returncode, machine.noted()


STARTED = ["systemctl", "enable", "--now", "forebay-tls.timer", "forebay.service", "forebay-lifecycle.service"]


def test_the_first_boot_installs_the_package_and_starts_the_gateway(folder):
    checksum = hashlib.sha256(b"a package").hexdigest()
    url = "https://example.com/forebay.deb?a=1&b=2"
    status, calls = boot(folder / "boot", url, checksum)
    (fetched,) = [call for call in calls if call[0] == "curl"]
    assert status == 0 and fetched[-1] == url and calls[-1] == STARTED
    (installed,) = [call for call in calls if call[:3] == ["apt-get", "-qq", "install"]]
    assert installed[-1] == fetched[fetched.index("--output") + 1]
    status, calls = boot(folder / "boot-image", "", "")
    assert status == 0 and calls[-1] == STARTED and {call[0] for call in calls} == {"sysctl", "systemctl"}


def test_logs_leave_and_somebody_can_look_before_anything_can_fail(folder):
    sessions = "https://s3.eu-central-1.amazonaws.com/amazon-ssm-eu-central-1/latest"
    status, calls = boot(folder / "boot-look", "https://example.com/forebay.deb", "0" * 64, sessions)
    assert status != 0, "the package is not the one that was meant"
    assert ["systemctl", "enable", "--now", "forebay-logs.service"] in calls
    (installed,) = [call for call in calls if call[:2] == ["dpkg", "--install"]]
    fetched = next(call for call in calls if call[0] == "curl")
    assert fetched[-1] == f"{sessions}/debian_arm64/amazon-ssm-agent.deb" and fetched[-2] == installed[-1]


def test_another_package_than_the_one_that_was_meant_is_not_installed(folder):
    status, calls = boot(folder / "boot-wrong", "https://example.com/forebay.deb", "0" * 64)
    assert status != 0 and [call[0] for call in calls if call[0] != "systemctl"] == ["curl"] and STARTED not in calls


def test_units_run_what_is_there():
    for file in FILES.glob("*.service"):
        unit = Unit(file)
        for command in unit.all("ExecStart") + unit.all("ExecStopPost"):
            path, argument = command.lstrip("-").split()
            assert path == "/usr/local/lib/forebay/instance" and f'"{argument}": {argument}' in (FILES / "instance.py").read_text()
        assert unit.one("EnvironmentFile") == "/etc/forebay/instance.env"
