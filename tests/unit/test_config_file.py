"""Changes of the configuration file: the values of the collections named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shadow.jobs.config_file import edited, put_in_file, replace_file
from shadow.jobs.target import JobRefused
from tests.support.cases import each_of

FILE = """\
# kept
defaults: {phase: shadow}   # kept too
collections:
  empty:
  tilde: ~
  flow: {indexes: [{name: a-index, hash: a}]}   # a comment
  bare: {}
  block:
    # inside
    shadow_reads: 0.5
    indexes:
      - {name: b-index, hash: b}
  known:
    phase: shadow
    primary: mongo   # now
  inline: {primary: "mongo", phase: shadow}
"""
NAMES = ["empty", "tilde", "flow", "bare", "block", "known", "inline"]


@each_of("name", NAMES)
def test_only_the_primary_of_the_collection_changes(name: str) -> None:
    before, after = yaml.safe_load(FILE), yaml.safe_load(edited(FILE, [name], {"primary": "dynamo"}))
    before["collections"][name] = {**(before["collections"][name] or {}), "primary": "dynamo"}
    assert after == before


def test_several_at_once_keep_every_comment_and_go_back() -> None:
    there = edited(FILE, NAMES, {"primary": "dynamo"})
    assert {each["primary"] for each in yaml.safe_load(there)["collections"].values()} == {"dynamo"}
    for comment in ("# kept", "# kept too", "# a comment", "# inside", "# now"):
        assert comment in there
    back = edited(there, NAMES, {"primary": "mongo"})
    assert edited(back, NAMES, {"primary": "dynamo"}) == there


@pytest.mark.parametrize("text", ["", "collections: [users]", "collections:\n  users: 3\n", "collections: {other: {}}"])
def test_what_cannot_be_changed_in_place_is_refused(text: str) -> None:
    with pytest.raises(JobRefused, match="users"):
        edited(text, ["users"], {"primary": "dynamo"})


def test_the_file_is_replaced_at_once_with_its_rights_through_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("a: 1")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, "b: 2")
    assert (real.read_text(), link.is_symlink(), real.stat().st_mode & 0o777) == ("b: 2", True, 0o640)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


def test_a_file_that_cannot_be_changed_says_so_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "shadow.yaml"
    assert "FileNotFoundError" in put_in_file(file, ["users"], {"primary": "dynamo"})
    file.write_text("collections: [users]")
    assert "JobRefused" in put_in_file(file, ["users"], {"primary": "dynamo"})
    assert file.read_text() == "collections: [users]"


def test_a_file_takes_several_values_at_once(tmp_path: Path) -> None:
    file = tmp_path / "shadow.yaml"
    file.write_text(FILE)
    assert put_in_file(file, NAMES, {"primary": "dynamo", "phase": "off"}) == ""
    entries = yaml.safe_load(file.read_text())["collections"].values()
    assert {(each["primary"], each["phase"]) for each in entries} == {("dynamo", False)}, "YAML reads off as false"
