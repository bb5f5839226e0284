"""The programs of docs/devices/: `device`, which posts readings one by one, and `buffer`, which gathers them, in six languages each."""

import os
import re
import shutil
import sys

import pytest
from conftest import ROOT, run

DEVICES = ROOT / "docs/devices"
LANGUAGES = ["curl", "python", "go", "rust", "java", "c"]
TOOLS = {"curl": "curl", "python": "python3", "go": "go", "rust": "cargo", "java": "java", "c": "cc"}
RUST = ROOT / "target/devices"


def compiled(program, folder):
    """How it is started, by language, after it has been compiled where it has to be; without those that lack their tool."""
    commands = {
        "curl": ["bash", DEVICES / f"{program}.sh"], "python": [sys.executable, DEVICES / f"{program}.py"],
        "go": [folder / f"go/{program}"], "rust": [RUST / f"debug/{program}"],
        "java": ["java", DEVICES / f"{program.capitalize()}.java"], "c": [folder / f"c/{program}"],
    }
    sources = {"go": f"{program}.go", "c": f"{program}.c",
               "rust": "rust/src/main.rs" if program == "device" else f"rust/src/bin/{program}.rs"}
    present = {language: command for language, command in commands.items() if shutil.which(TOOLS[language])}
    for language in present.keys() & sources.keys():
        build(language, DEVICES / sources[language], folder / language)
    return present


def build(language, source, folder):
    """As the head of the program says; the one in Rust faster, and nothing else than what its lock file says."""
    shutil.copytree(DEVICES / "rust" if language == "rust" else DEVICES, folder, ignore=shutil.ignore_patterns("target", "rust"))
    line = re.search(r"^\W*((?:cc|go|cargo) .+)$", source.read_text(), re.M)[1]
    line = line.replace("--release", "--locked --quiet").replace("cc ", "cc -Wall -Wextra -Werror ")
    run(*line.split(), cwd=folder, env=os.environ | {"CARGO_TARGET_DIR": str(RUST), "CGO_ENABLED": "0"})


def must_be_there(language, commands):
    """On a machine that scripts/install-packages.sh has prepared, each of them is."""
    if language not in commands:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"there is no {TOOLS[language]}")


def arguments(language, port, pki, ca, boot):
    """What every program is given: where the gateway is, whom it trusts, who it is, and which start of it this is."""
    where = ["localhost", port] if language == "c" else [f"https://localhost:{port}"]
    return [str(part) for part in [*where, ca, pki / f"devices/{language}.pem", pki / f"devices/{language}.key", boot]]
