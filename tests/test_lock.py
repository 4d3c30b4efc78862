"""The lock file of CI: what this project asks for, with hashes, and from no server by name."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "launch" / "requirements-test.lock"


def locked() -> list[tuple[str, str, Marker | None, int]]:
    """(name, version, for which Pythons, hashes) of the lock file's entries."""
    text = LOCK.read_text()
    entries = re.findall(
        r"^([\w.-]+)==([\w.+!]+)(?: ; (.*?))? \\\n((?:    --hash.*\n?)+)", text, re.M
    )
    assert len(entries) == len(re.findall(r"^\w", text, re.M)), "a line is of no known form"
    return [
        (canonicalize_name(name), version, Marker(only) if only else None, hashes.count("sha256:"))
        for name, version, only, hashes in entries
    ]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_is_of_this_project(python):
    """What CI installs satisfies pyproject.toml; `uv` in the lock's first lines renews it."""
    there = {"python_version": python, "python_full_version": f"{python}.4"}
    fits = {n: v for n, v, only, _ in locked() if only is None or only.evaluate(there)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *extras["test"],
        *extras["tfds"],
        *extras["docs"],
    ]
    for requirement in map(Requirement, wanted):
        version = fits.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_lock_has_hashes_and_names_no_server():
    assert all(hashes for *_, hashes in locked())
    assert "://" not in LOCK.read_text()
