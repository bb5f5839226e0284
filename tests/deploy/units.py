"""Reads a unit of systemd: sections count for nothing, no key of ours stands in two."""

import subprocess
from pathlib import Path

# Keys that an older systemd passes over, and its first version that does not. docs/deploy.md says what is different then.
SINCE = {"RestartSteps": 254, "RestartMaxDelaySec": 254}


def complaints(*files):
    """What `systemd-analyze verify` says of these units, but for keys that this machine's systemd is too old for. It exits with 0 where
    a unit has a key that it does not know, and says so on standard error."""
    version = int(subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout.split()[1])
    done = subprocess.run(["systemd-analyze", "verify", *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    newer = [f"Unknown key '{name}' in section [Service], ignoring" for name, since in SINCE.items() if version < since]
    said = [line for line in done.stdout.splitlines() if not any(words in line for words in newer)]
    return said if done.returncode == 0 else [*said, f"exit code {done.returncode}"]


class Unit:
    def __init__(self, file):
        lines = [line.strip() for line in Path(file).read_text().splitlines()]
        self.settings = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]

    def all(self, key):
        return [value for name, value in self.settings if name == key]

    def one(self, key):
        (value,) = self.all(key)
        return value

    def environment(self, root):
        """What the environment file says, of the package that is installed in `root`."""
        file = Path(root, self.one("EnvironmentFile").lstrip("/"))
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.split("=", 1) for line in lines)
