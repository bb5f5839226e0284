"""docs/quick-start.md, typed in as it stands: from no certificate to a reading in Kafka. Other ports, because those of the page may be
taken; Kafka's scripts are its own classes."""

import os
import re
import signal
import subprocess
from contextlib import suppress

import pytest
from conftest import FOREBAY, PATIENCE, ROOT, free_port
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
    typed = typed.replace("127.0.0.1:9444", f"127.0.0.1:{admin}")
    script = f"set -euo pipefail\ntrap 'kill %1; wait %1' EXIT\n{typed}"
    environment = {
        "PATH": f"{programs(home / 'bin', broker)}:/usr/local/bin:/usr/bin:/bin",
        "FOREBAY_LISTEN": f"127.0.0.1:{port}", "FOREBAY_ADMIN_LISTEN": f"127.0.0.1:{admin}",
    }
    code, said = run_shell(script, home, environment)
    lines = said.splitlines()
    assert code == 0 and lines[-1] == "refused", said
    assert "HTTP/2 204" in [line.strip() for line in lines] and expected() in lines, said


def run_shell(script, home, environment):
    """The exit code and what was printed; nothing that was started stays."""
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=home, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = shell.communicate(timeout=2 * PATIENCE)
        return shell.returncode, said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
