"""What docs/operations.md tells to type, typed in."""

import os
import re
import subprocess

from conftest import FOREBAY, ROOT, Gateway

PAGE = ROOT / "docs/operations.md"


def commands_under(title):
    section = re.split(r"^#+ ", PAGE.read_text().split(f" {title}\n", 1)[1], flags=re.M)[0]
    return re.search(r"^```sh\n(.*?)^```$", section, flags=re.M | re.S)[1]


def test_the_drill_for_revocation(folder):
    home = folder / "drill"
    (home / "bin").mkdir(parents=True)
    (home / "bin/forebay").symlink_to(FOREBAY)
    gateway = Gateway(home)
    typed = commands_under("A drill for revocation")
    typed = typed.replace("localhost:8443", f"localhost:{gateway.port}").replace("127.0.0.1:9444", gateway.admin)
    try:
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{typed}"], cwd=home, capture_output=True, text=True, timeout=60,
            env={"PATH": f"{home}/bin:{os.environ['PATH']}"})
    finally:
        gateway.stop()
    answers = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert done.returncode == 0 and answers == ["204", "000"], f"{done.stdout}{done.stderr}"
    assert "revoked" in done.stderr and re.search(r'result="revoked"\} [1-9]', done.stdout), f"{done.stdout}{done.stderr}"
