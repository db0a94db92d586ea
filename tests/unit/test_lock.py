"""requirements.lock is what pyproject.toml asks for, with hashes, and names no place that packages come from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = (ROOT / "requirements.lock").read_text("utf-8")


def direct() -> list[Requirement]:
    """The dependencies of the project and of its extras, itself left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [wanted for wanted in map(Requirement, lines) if wanted.name != "shadow"]


def locked() -> dict[str, Version]:
    return {name: Version(version) for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE)}


def test_every_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    versions = locked()
    for wanted in direct():
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        assert name in versions, f"{name} is not in requirements.lock: run the command at its top"
        assert versions[name] in wanted.specifier, f"{name} in requirements.lock is not {wanted.specifier}"


def test_every_package_has_hashes() -> None:
    packages = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(locked())
    assert all("--hash=sha256:" in package for package in packages)


def test_no_index_and_no_path_is_named() -> None:
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert not re.search(r"(^|\s)/\w", LOCK)
