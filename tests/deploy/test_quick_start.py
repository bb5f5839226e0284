"""docs/quick-start.md, typed in as it stands: from no certificate to a reading in Kafka. Other ports, because those of the page may be
taken; Kafka's scripts are its own classes."""

import re
import subprocess

import pytest
from conftest import FOREBAY, ROOT, free_port
from processes import Broker

PAGE = ROOT / "docs/quick-start.md"
SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}


@pytest.fixture(scope="module")
def broker(folder):
    home = folder / "quick-start-broker"
    home.mkdir()
    broker = Broker(home, topic=None)
    yield broker
    broker.stop()


def commands():
    return "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S))


def expected():
    return re.search(r"^```text\n(.*?)\n```$", PAGE.read_text(), flags=re.M | re.S)[1]


def programs(folder, broker):
    """A folder with what the page expects in the PATH."""
    folder.mkdir()
    (folder / "forebay").symlink_to(FOREBAY)
    for name, main in SCRIPTS.items():
        java = " ".join(f"'{part}'" for part in broker.java)
        (folder / name).write_text(f"#!/bin/sh\nexec {java} {main} \"$@\"\n")
        (folder / name).chmod(0o755)
    return folder


def test_it_works_as_it_is_written(folder, broker):
    home = folder / "quick-start"
    home.mkdir()
    port, admin = free_port(), free_port()
    typed = commands().replace("localhost:9092", broker.address).replace("localhost:8443", f"localhost:{port}")
    typed = typed.replace("127.0.0.1:9090", f"127.0.0.1:{admin}")
    script = f"set -euo pipefail\ntrap 'kill %1; wait %1' EXIT\n{typed}"
    environment = {
        "PATH": f"{programs(home / 'bin', broker)}:/usr/local/bin:/usr/bin:/bin",
        "FOREBAY_LISTEN": f"127.0.0.1:{port}", "FOREBAY_ADMIN_LISTEN": f"127.0.0.1:{admin}",
    }
    done = subprocess.run(["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "HTTP/2 204" in done.stdout and expected() in done.stdout and "refused" in done.stdout.splitlines()[-1], done.stdout
