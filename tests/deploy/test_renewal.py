"""What renews by itself: the service that a timer starts, and the job of Kubernetes, run as they are written beside a gateway, which
takes what they have signed. Their commands are theirs; the machine that they reach is a folder here."""

import base64
import os
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY, FOREBAY, PATIENCE, Gateway, eventually, run, tool
from units import Unit

COMPONENT = DEPLOY / "kustomize/components/renewal/renewal.yaml"
VERSION = "1.34"  # of Kubernetes, as test_kubernetes.py has it
DAY = 86_400


def authority(home):
    """Whose list and server's certificate end tomorrow."""
    pki = home / "pki"
    run(FOREBAY, "pki", "init", "--dir", pki, "--crl-days", "1")
    run(FOREBAY, "pki", "server", "--dir", pki, "--name", "localhost", "--name", "127.0.0.1", "--days", "1")
    run(FOREBAY, "pki", "device", "--dir", pki, "plc-7", "plc-8")
    return pki


def shell(text, **environment):
    run("bash", "-euc", text, env={"PATH": os.environ["PATH"]} | {name: str(value) for name, value in environment.items()})


def post(gateway, device):
    ca, certificate, key = gateway.files(device)
    done = subprocess.run(
        ["curl", "-sS", "--cacert", ca, "--cert", certificate, "--key", key, "-d", "1", "-o", os.devnull, "-w", "%{http_code}",
         f"https://localhost:{gateway.port}/v1/telemetry"], capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout, done.stderr


def days_left(gateway, what):
    text = gateway.ask_admin("/metrics")
    end = float(re.search(rf"^forebay_tls_{what}_timestamp_seconds (\S+)$", text, flags=re.M)[1])
    return (end - float(run("date", "+%s"))) / DAY


def is_renewed(gateway):
    return days_left(gateway, "crl_next_update") > 29 and days_left(gateway, "certificate_expiry") > 300


def holds(gateway, renew):
    """The gateway has what ends tomorrow; then what was renewed, with all that has been revoked since, and without a failure."""
    assert days_left(gateway, "crl_next_update") < 2 and days_left(gateway, "certificate_expiry") < 2
    assert post(gateway, "plc-8")[0] == "204"
    run(FOREBAY, "pki", "revoke", "--dir", gateway.folder / "pki", "plc-8", "--days", "1")
    renew()
    eventually("what was renewed", lambda: is_renewed(gateway))
    assert post(gateway, "plc-7")[0] == "204"
    assert "revoked" in post(gateway, "plc-8")[1]
    assert not re.search(r"^forebay_tls_reload_failures_total\S* [1-9]", gateway.ask_admin("/metrics"), flags=re.M)
    renew()  # tomorrow
    assert post(gateway, "plc-7")[0] == "204"


def test_the_timers_service(folder):
    home = folder / "timer"
    pki, tls = authority(home), home / "tls"
    tls.mkdir()
    for source, target in (("ca.pem", "devices-ca.pem"), ("crl.pem", "devices-crl.pem"), ("server.pem", "server.pem"), ("server.key", "server.key")):
        shutil.copy(pki / source, tls / target)
    unit = Unit(DEPLOY / "systemd/forebay-renewal.service")
    given = dict(line.split("=", 1) for line in unit.all("Environment"))
    assert given["GATEWAY"].endswith(":/etc/forebay/tls"), "as the gateway's own unit has its files"
    # A machine without rsync is given what this needs of it: a copy beside, and a rename.
    rsync = shutil.which("rsync") or home / "rsync"
    if rsync == home / "rsync":
        rsync.write_text('#!/bin/sh -e\ncp -p "$2" "$3.new"\nmv "$3.new" "$3"\n')
        rsync.chmod(0o755)
    commands = [line.replace("/usr/bin/forebay", str(FOREBAY)).replace("/usr/bin/rsync", str(rsync)) for line in unit.all("ExecStart")]
    gateway = Gateway(
        home, FOREBAY_TLS_CERT=str(tls / "server.pem"), FOREBAY_TLS_KEY=str(tls / "server.key"),
        FOREBAY_TLS_CLIENT_CA=str(tls / "devices-ca.pem"), FOREBAY_TLS_CRL=str(tls / "devices-crl.pem"))
    try:
        holds(gateway, lambda: [shell(command, PKI=pki, GATEWAY=tls) for command in commands])
    finally:
        gateway.stop()


class Secrets:
    """What the kubelet makes of Secrets: a folder each, whose files change together, behind a link."""

    def __init__(self, root):
        self.root, self.versions = root, 0

    def apply(self, secret):
        assert secret["kind"] == "Secret"
        folder = self.root / secret["metadata"]["name"]
        self.versions += 1
        (version := folder / f"..{self.versions}").mkdir(parents=True)
        for name, content in secret["data"].items():
            (version / name).write_bytes(base64.b64decode(content))
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        (folder / "..new").symlink_to(version.name)
        (folder / "..new").rename(folder / "..data")


@pytest.fixture(scope="module")
def job():
    objects = list(yaml.safe_load_all(COMPONENT.read_text()))
    for found in objects:
        kubernetes_validate.validate(found, VERSION, strict=True)
    (job,) = [found for found in objects if found["kind"] == "CronJob"]
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_job_of_kubernetes(folder, job):
    home = folder / "cronjob"
    pki, secrets = authority(home), Secrets(home / "secrets")
    (home / "bin").mkdir()
    applied = home / "applied"
    # What is made locally is kubectl's own; what would go to a cluster comes here.
    (home / "bin/kubectl").write_text(
        f'#!/bin/sh -e\nif [ "$1" = apply ]; then cat >>{applied}; echo --- >>{applied}; else exec {tool("kubectl")} "$@"; fi\n')
    (home / "bin/kubectl").chmod(0o755)

    def renew():
        for container in job["initContainers"]:
            assert container["image"] == "forebay", "whose entry point is the program"
            run(FOREBAY, *(word.replace("/pki", str(pki)) for word in container["args"]))
        publish()

    def publish():
        (container,) = job["containers"]
        applied.unlink(missing_ok=True)
        words = [*container["command"], *(word.replace("/pki/", f"{pki}/") for word in container["args"])]
        run(*words, env={"PATH": f"{home}/bin:{os.environ['PATH']}"})
        for secret in yaml.safe_load_all(applied.read_text()):
            if secret:
                secrets.apply(secret)

    publish()
    server, crl = secrets.root / "forebay-server", secrets.root / "forebay-crl"
    gateway = Gateway(
        home, FOREBAY_TLS_CERT=str(server / "tls.crt"), FOREBAY_TLS_KEY=str(server / "tls.key"), FOREBAY_TLS_CRL=str(crl / "crl.pem"))
    try:
        holds(gateway, renew)
    finally:
        gateway.stop()


def test_the_component_stands_in_an_overlay(folder):
    """The image and the namespace are the overlay's, in the job too."""
    copy = folder / "kustomize"
    shutil.copytree(DEPLOY / "kustomize", copy)
    overlay = copy / "overlays/example/kustomization.yaml"
    text = overlay.read_text()
    overlay.write_text(text.replace("[../../components/prometheus-operator]", "[../../components/renewal]"))
    objects = list(yaml.safe_load_all(run(tool("kubectl"), "kustomize", overlay.parent)))
    (job,) = [found for found in objects if found["kind"] == "CronJob"]
    spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {container["image"] for container in spec["initContainers"]} == {"registry.example.com/forebay:0.1.0"}
    (binding,) = [found for found in objects if found["kind"] == "RoleBinding"]
    assert binding["subjects"][0]["namespace"] == job["metadata"]["namespace"] == "ingest"
