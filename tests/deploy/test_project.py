"""What stands around the code: workflows, templates, the licence, the changelog."""

import re
import tomllib

import yaml
from conftest import DEPLOY, FOREBAY, ROOT, run, tool

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


def test_bash_completes_commands_and_flags():
    """As bash does it: the function is called with the words and the place of the cursor."""
    script = 'source <("$0" completions bash); COMP_WORDS=(forebay "${@:1}"); COMP_CWORD=$#; ' \
             '_forebay forebay "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"'
    assert run("bash", "-c", script, FOREBAY, "ser").split() == ["serve"]
    assert run("bash", "-c", script, FOREBAY, "serve", "--batch-lin").split() == ["--batch-linger"]


def test_the_manual_has_every_setting(folder):
    manual = folder / "manual"
    run(ROOT / "scripts/manual.sh", FOREBAY, manual)
    page = (manual / "man/forebay-serve.1").read_text()
    settings = set(re.findall(r"\[(FOREBAY_\w+)", run(FOREBAY, "serve", "--help", env={"COLUMNS": "500"})))
    assert len(settings) > 50 and all(name in page for name in settings), settings - set(re.findall(r"FOREBAY_\w+", page))
    assert all((manual / file).stat().st_size > 1000 for file in ("_forebay", "forebay.bash", "forebay.fish"))


def test_the_readme_names_what_a_release_has():
    readme, release = (ROOT / "README.md").read_text(), (GITHUB / "workflows/release.yml").read_text()
    version = MANIFEST["package"]["version"]
    (archive,) = re.findall(r'"dist/(\S+\.tar\.gz)"', release)
    for arch in re.findall(r"arch: (\w+), runner", release):
        assert f"`{arch}`" in readme
    assert archive.replace("${GITHUB_REF_NAME#v}", version).replace("$ARCH", "amd64") in readme
    assert "cargo deb" in release and f"forebay_{version}-1_amd64.deb" in readme, "as cargo-deb calls it"
    assert "IMAGE: ghcr.io/" in release and "`ghcr.io`" in readme
