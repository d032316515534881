"""What a public project needs beside its code: the files agree with each other, and with what is built."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.support.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GITHUB = ROOT / ".github"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parsed(name: str) -> Any:
    return yaml.safe_load(text(name))


def pythons() -> list[str]:
    """The versions that the package says it supports."""
    return re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))


def test_continuous_integration_runs_what_everybody_can_run_on_each_python() -> None:
    job = parsed(".github/workflows/ci.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == pythons()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    commands = text(".ci/run").splitlines()
    for needed in ("make lint", "make test", "make test-slow", "make sanitize", "make fuzz"):
        assert needed in commands


def test_every_fuzz_target_is_run_by_make_fuzz() -> None:
    targets = {
        path.stem for path in (ROOT / "tests/fuzz").glob("*.py") if "def one(" in path.read_text(encoding="utf-8")
    }
    (listed,) = re.findall(r"^\tfor target in (.+?); do .*tests\.fuzz\.", text("Makefile"), re.MULTILINE)
    assert set(listed.split()) == targets


def test_a_release_has_sdist_wheels_for_each_python_on_both_processors_and_hashes() -> None:
    jobs = parsed(".github/workflows/release.yml")["jobs"]
    assert jobs["wheels"]["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    wheels = {f"cp{version.replace('.', '')}-manylinux_*" for version in pythons()}
    assert set(PROJECT["tool"]["cibuildwheel"]["build"].split()) == wheels
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for needed in ("build --sdist", "twine check", "sha256sum"):
        assert needed in commands


def test_a_release_lists_its_components_and_attests_every_file_that_it_publishes() -> None:
    steps = parsed(".github/workflows/release.yml")["jobs"]["draft"]["steps"]

    def place(what: str) -> int:
        (found,) = [number for number, step in enumerate(steps) if what in str(step)]
        return found

    listed, attested = place("cyclonedx-py requirements constraints.txt"), place("actions/attest-build-provenance")
    assert "--output-file dist/sbom.cdx.json" in steps[listed]["run"]
    assert steps[attested]["with"] == {"subject-path": "dist/*"}
    assert place("actions/download-artifact") < listed < attested < place("sha256sum") < place("gh release create")
    assert all("dist/" not in str(step) for step in steps[attested + 1 :] if "gh release" not in str(step)), (
        "nothing is added"
    )


@pytest.mark.parametrize("path", sorted(GITHUB.glob("ISSUE_TEMPLATE/[!c]*.yml")), ids=lambda path: path.name)
def test_issue_forms_have_what_github_asks_for(path: Any) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert parsed("CITATION.cff")["version"] == version
    released = re.findall(r"^## \[(\d[^\]]*)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert released[:1] in ([], [version]), "the newest section of the changelog is the version of pyproject.toml"
    pinned = dict(re.findall(r"^([a-z-]+)==(\S+)", text("constraints.txt"), re.MULTILINE))
    hooks = {repo["repo"].rpartition("/")[2]: repo for repo in parsed(".pre-commit-config.yaml")["repos"]}
    assert hooks["ruff-pre-commit"]["rev"] == f"v{pinned['ruff']}"


def test_the_changelog_has_the_sections_of_its_form_and_no_other() -> None:
    headings = re.findall(r"^### (.+)", text("CHANGELOG.md"), re.MULTILINE)
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Migration"}
    assert {"Added", "Changed", "Fixed", "Migration"} <= set(headings)


def test_a_vulnerability_has_a_private_way_to_the_maintainers() -> None:
    form = f"{PROJECT['project']['urls']['Source']}/security/advisories/new"
    assert form in text("SECURITY.md")
    contacts = parsed(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert form in [contact["url"] for contact in contacts]
