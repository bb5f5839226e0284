"""What the checks of deploy/ and docs/ drive: the real program, with certificates that it makes itself, in a temporary
folder and on free ports. FOREBAY is the program (target/debug/forebay), TOOLS where the tools are."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = Path(os.environ.get("TOOLS", ROOT / "target/tools"))
FOREBAY = Path(os.environ.get("FOREBAY", ROOT / "target/debug/forebay")).resolve()
PATIENCE = 120  # seconds; far more than anything takes, also on a busy machine


def eventually(what, ask):
    """Asks until there is an answer, and returns it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.05)
    pytest.fail(f"in vain waited for: {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tool(name):
    """A program that scripts/install-tools.sh has installed."""
    for folder in (TOOLS / "bin", TOOLS / "venv-deploy/bin"):
        if (folder / name).exists():
            return folder / name
    pytest.fail(f"{name} is not in {TOOLS}: run `make tools`")


def run(*command, **options):
    """What it printed; it must exit with 0."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Gateway:
    """The program, serving into files."""

    def __init__(self, folder, prefix=(), command=(), **variables):
        self.folder = folder
        if not (folder / "pki").exists():
            run(FOREBAY, "pki", "init", "--dir", folder / "pki")
            run(FOREBAY, "pki", "server", "--dir", folder / "pki", "--name", "localhost", "--name", "127.0.0.1")
            run(FOREBAY, "pki", "device", "--dir", folder / "pki", "plc-7", "plc-8")
        self.environment = {
            "PATH": os.environ["PATH"],
            "FOREBAY_LISTEN": "127.0.0.1:0",
            "FOREBAY_ADMIN_LISTEN": "127.0.0.1:0",
            "FOREBAY_WORKERS": "2",
            "FOREBAY_TLS_CERT": str(folder / "pki/server.pem"),
            "FOREBAY_TLS_KEY": str(folder / "pki/server.key"),
            "FOREBAY_TLS_CLIENT_CA": str(folder / "pki/ca.pem"),
            "FOREBAY_TLS_CRL": str(folder / "pki/crl.pem"),
            "FOREBAY_FILE_DIR": str(folder / "data"),
            "FOREBAY_LOG_FORMAT": "json",
        } | {name: value for name, value in variables.items() if value is not None}
        command = [*prefix, *(command or (FOREBAY, "serve"))]
        self.process = subprocess.Popen(
            [str(part) for part in command], env=self.environment, stderr=subprocess.PIPE, text=True,
            cwd=folder, pass_fds=[int(fd) for fd in variables.get("PASS_FDS", "").split()],
        )
        self.log, self.listening = [], threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()
        assert self.listening.wait(PATIENCE), "".join(self.log)
        eventually("a gateway that is ready", self.is_ready)

    def _follow(self):
        for line in self.process.stderr:
            self.log.append(line)
            fields = json.loads(line).get("fields", json.loads(line)) if line.startswith("{") else {}
            if "listen" in fields and "admin" in fields:
                self.address, self.admin = fields["listen"], fields["admin"]
                self.port = int(self.address.rsplit(":", 1)[1])
                self.listening.set()

    def ask_admin(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
            return answer.read().decode()

    def is_ready(self):
        try:
            return self.ask_admin("/readyz")
        except OSError:
            return None

    def files(self, device="plc-7"):
        pki = self.folder / "pki"
        return pki / "ca.pem", pki / f"devices/{device}.pem", pki / f"devices/{device}.key"

    def tls(self, device="plc-7"):
        ca, certificate, key = self.files(device)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        return context

    def records(self, stream="telemetry"):
        files = sorted((self.folder / "data" / stream).glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="session")
def folder():
    path = Path(tempfile.mkdtemp(prefix="forebay-deploy-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def gateway(folder):
    """One that every check may post to: nothing is limited."""
    (folder / "shared").mkdir()
    unlimited = {f"FOREBAY_{what}_RATE": "0" for what in ("DEVICE", "DEVICE_BYTE", "ADDRESS", "HANDSHAKE")}
    gateway = Gateway(folder / "shared", **unlimited)
    yield gateway
    assert gateway.stop() == 0, "".join(gateway.log)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(tool("chromium")), args=["--no-sandbox"])
        yield browser
        browser.close()
