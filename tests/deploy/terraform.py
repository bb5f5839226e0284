"""Terraform on a copy of deploy/terraform, with the provider that this machine has, and AWS nowhere near: credentials are made up.

The provider comes from where TF_CLI_CONFIG_FILE says; else from a mirror, TF_PLUGIN_MIRROR or a usual place; else from the registry.
Where it cannot be had, the tests that need it are skipped, and say so."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import DEPLOY, run

SOURCE = DEPLOY / "terraform"
PROVIDER = "5.100.0"
MISSING = ("Failed to query available provider packages", "Failed to install provider", "could not connect to registry")

PINNED = {"required_providers": {"aws": {"source": "hashicorp/aws", "version": PROVIDER}}}


def program():
    return shutil.which("terraform") or pytest.skip("this machine has no terraform: THE MODULE WAS PARSED ONLY")


class Terraform:
    """`folder` is one below deploy/terraform; `overrides` stand beside its files, as Terraform has it."""

    def __init__(self, copy, folder=".", **overrides):
        if not copy.exists():
            shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self.folder = copy / folder
        self.environment = environment(copy)
        (self.folder / "tests_override.tf.json").write_text(json.dumps({"terraform": PINNED} | overrides))
        self.init()

    def init(self):
        done = subprocess.run(
            [program(), "init", "-no-color", "-input=false"], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode and any(words in done.stderr for words in MISSING):
            pytest.skip(f"no provider hashicorp/aws {PROVIDER} here: THE MODULE WAS PARSED ONLY")
        assert done.returncode == 0, done.stderr

    def __call__(self, command, *arguments):
        return run(program(), command, *arguments, cwd=self.folder, env=self.environment)


def environment(copy):
    cache = copy.parent / "providers"
    cache.mkdir(exist_ok=True)
    made_up = {"TF_CLI_CONFIG_FILE": str(configuration(copy.parent)), "TF_PLUGIN_CACHE_DIR": str(cache), "TF_IN_AUTOMATION": "1",
               "CHECKPOINT_DISABLE": "1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(copy.parent))} | made_up


def configuration(folder):
    given = os.environ.get("TF_CLI_CONFIG_FILE")
    if given and Path(given).is_file():
        return given
    file = folder / "terraformrc"
    file.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{found}"\n  }}\n}}\n' if (found := mirror()) else "")
    return file


def mirror():
    shared = [place for folder in ("/usr/share/terraform", "/usr/local/share/terraform", "/opt") for place in Path(folder).glob("*")]
    usual = [Path.home() / ".terraform.d/plugins", *shared]
    places = [Path(os.environ["TF_PLUGIN_MIRROR"])] if "TF_PLUGIN_MIRROR" in os.environ else usual
    return next((place for place in places if (place / "registry.terraform.io/hashicorp/aws").is_dir()), None)


class Plan:
    """What would be made: resources by their address, without `module.forebay.`."""

    def __init__(self, text):
        self.text = json.loads(text)
        self.outputs = {name: output.get("value") for name, output in self.text["planned_values"]["outputs"].items()}
        self.resources = list(resources(self.text["planned_values"]["root_module"]))
        self.actions = {short(change["address"]): change["change"]["actions"] for change in self.text["resource_changes"]}
        module = self.text["configuration"]["root_module"]["module_calls"]["forebay"]["module"]
        self.expressions = {found["address"]: found.get("expressions", {}) for found in module["resources"]}

    def all(self, kind):
        return {short(found["address"]): found["values"] for found in self.resources if found["type"] == kind}

    def one(self, kind):
        (values,) = self.all(kind).values()
        return values

    def references(self, address, argument):
        """What an argument refers to, be its value known before the apply or not."""
        return self.expressions[address.split("[")[0]].get(argument, {}).get("references", [])


def short(address):
    return address.removeprefix("module.forebay.")


def resources(module):
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources(child)
