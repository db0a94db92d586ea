"""The change of the configuration file that a flip is: `primary` of the collections named, and nothing else."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import psutil
import pytest
import yaml

from shadow.migrate.flip import edited, living, replace_file
from shadow.migrate.sides import JobRefused
from shadow.model.phase import StoreName
from shadow.replicate.process import Owner, this_process

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


@pytest.mark.parametrize("name", NAMES)
def test_only_the_primary_of_the_collection_changes(name: str) -> None:
    before, after = yaml.safe_load(FILE), yaml.safe_load(edited(FILE, [name], StoreName.DYNAMO))
    before["collections"][name] = {**(before["collections"][name] or {}), "primary": "dynamo"}
    assert after == before


def test_several_at_once_keep_every_comment_and_go_back() -> None:
    there = edited(FILE, NAMES, StoreName.DYNAMO)
    assert {each["primary"] for each in yaml.safe_load(there)["collections"].values()} == {"dynamo"}
    for comment in ("# kept", "# kept too", "# a comment", "# inside", "# now"):
        assert comment in there
    back = edited(there, NAMES, StoreName.MONGO)
    assert edited(back, NAMES, StoreName.DYNAMO) == there


@pytest.mark.parametrize("text", ["", "collections: [users]", "collections:\n  users: 3\n", "collections: {other: {}}"])
def test_what_cannot_be_changed_in_place_is_refused(text: str) -> None:
    with pytest.raises(JobRefused, match="users"):
        edited(text, ["users"], StoreName.DYNAMO)


def test_the_file_is_replaced_at_once_with_its_rights_through_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("a: 1")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_file(link, "b: 2")
    assert (real.read_text(), link.is_symlink(), real.stat().st_mode & 0o777) == ("b: 2", True, 0o640)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


def test_only_other_processes_that_may_be_alive_are_counted(tmp_path: Path) -> None:
    journal = tmp_path / "shadow.db"
    assert living(journal) == 0
    own = this_process()
    parent = Owner(own.place, os.getppid(), psutil.Process(os.getppid()).create_time())
    dead = Owner(own.place, own.pid, own.started - 1000)
    elsewhere = Owner("another-host/boot/pid:[1]", 7, 1.0)
    with sqlite3.connect(journal) as db:
        db.execute("CREATE TABLE owners (id TEXT PRIMARY KEY, place TEXT, pid INTEGER, started REAL)")
        for each in (own, parent, dead, elsewhere):
            db.execute("INSERT INTO owners VALUES (?, ?, ?, ?)", (each.id, each.place, each.pid, each.started))
    db.close()
    assert living(journal) == 2, "the parent, and the one of which nothing is known"


def test_a_journal_that_cannot_be_read_counts_as_shared(tmp_path: Path) -> None:
    journal = tmp_path / "shadow.db"
    journal.write_text("no database")
    with pytest.raises(JobRefused, match="does not say"):
        living(journal)
