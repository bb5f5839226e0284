"""The image without an engine: its file is linted, its root is made by the script that makes it there, and the program runs
in that root, with nothing else of this machine."""

import os
import shutil
import subprocess

import pytest
from conftest import DEPLOY, FOREBAY, ROOT, Gateway, eventually, run, tool

DOCKERFILE = DEPLOY / "docker/Dockerfile"


def test_dockerfile_has_no_findings():
    assert run(tool("hadolint"), "--failure-threshold", "style", DOCKERFILE) == ""


def test_the_layer_of_dependencies_can_be_built_without_the_code(folder):
    build = folder / "build"
    (build / "loadtest").mkdir(parents=True)
    for file in ("Cargo.toml", "Cargo.lock", "loadtest/Cargo.toml"):
        shutil.copy(ROOT / file, build / file)
    run(DEPLOY / "docker/skeleton.sh", cwd=build)
    run("cargo", "metadata", "--locked", "--offline", "--format-version=1", cwd=build)


@pytest.fixture(scope="module")
def image(folder):
    root = folder / "image"
    run(DEPLOY / "docker/root.sh", FOREBAY, root)
    return root


def may_unshare():
    command = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_the_program_runs_with_what_the_image_holds(folder, image):
    if not may_unshare():
        pytest.skip("this machine lets nobody unshare: THE IMAGE'S ROOT WAS NOT TRIED")
    home = folder / "boxed"
    home.mkdir()
    # /data is the one place that may be written to: the certificates are mounted there too, for want of another.
    inside = f"mount --bind {home} {image}/data && mount -o remount,bind,ro {image} && ! touch {image}/x 2>/dev/null && " \
             f"exec chroot {image} /usr/bin/forebay serve"
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    pki = {"FOREBAY_TLS_CERT": "/data/pki/server.pem", "FOREBAY_TLS_KEY": "/data/pki/server.key",
           "FOREBAY_TLS_CLIENT_CA": "/data/pki/ca.pem", "FOREBAY_TLS_CRL": "/data/pki/crl.pem",
           "FOREBAY_FILE_DIR": "/data/readings"}
    gateway = Gateway(home, prefix=prefix, command=[f"mount --bind {image} {image} && {inside}"], **pki)
    ca, certificate, key = gateway.files()
    try:
        status = run("curl", "-sS", "--cacert", ca, "--cert", certificate, "--key", key, "-d", "21.5", "-o", os.devnull,
                     "-w", "%{http_code}", f"https://localhost:{gateway.port}/v1/telemetry")
        assert status == "204"
        health = ["chroot", image, "/usr/bin/forebay", "health", "--admin-listen", gateway.admin]
        in_image = ["unshare", "--user", "--map-root-user"] + [str(part) for part in health]
        assert run(*in_image).strip() == "ready"
    finally:
        assert gateway.stop() == 0, "".join(gateway.log)
    assert (home / "readings/telemetry").exists()


def test_health_says_no_where_nobody_answers():
    from conftest import free_port

    command = [FOREBAY, "health", "--admin-listen", f"127.0.0.1:{free_port()}"]
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_the_image_holds_nothing_else(image):
    programs = [path for path in image.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    names = {path.name for path in programs if ".so" not in path.name}
    assert names == {"forebay"}
    assert (image / "etc/ssl/certs/ca-certificates.crt").stat().st_size > 100_000
