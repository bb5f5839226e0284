"""Reads a unit of systemd: sections count for nothing, no key of ours stands in two."""

from pathlib import Path


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
