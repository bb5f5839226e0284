"""What stands around the code: workflows, templates, the licence, the changelog."""

import re
import tomllib

import yaml
from conftest import DEPLOY, ROOT, run, tool

GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text())


def test_workflows_are_valid():
    run(tool("actionlint"), "-shellcheck=", "-pyflakes=", *WORKFLOWS, cwd=ROOT)


def test_what_workflows_run_is_there():
    for file in WORKFLOWS:
        for path in re.findall(r"(?:scripts|deploy|\.ci)/[\w./-]*\w\b(?![*-])", file.read_text()):
            assert (ROOT / path).exists(), f"{file.name}: {path}"


def test_dependabot_is_valid():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.dependabot", GITHUB / "dependabot.yml")


def test_templates_of_issues_are_forms():
    for file in GITHUB.glob("ISSUE_TEMPLATE/*.yml"):
        form = yaml.safe_load(file.read_text())
        if file.name == "config.yml":
            continue
        assert form["name"] and form["description"], file
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) and all(part["attributes"]["label"] for part in form["body"]), file


def test_the_licence_is_the_one_that_the_manifest_names():
    assert MANIFEST["package"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()


def test_versions_agree():
    version = MANIFEST["package"]["version"]
    chart = yaml.safe_load((DEPLOY / "helm/forebay/Chart.yaml").read_text())
    assert chart["appVersion"] == version
    titles = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert titles[0] == "Unreleased" and (version in titles or titles == ["Unreleased"])
