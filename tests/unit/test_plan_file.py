"""A plan and an undo log as files: whole or not at all, never overwritten, refused by name where they are damaged."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadow.control.sqlite import SqliteRecords
from shadow.host.process import this_process
from shadow.jobs.issues import Issue
from shadow.jobs.plan_file import Line, header_of, line_of, made_whole, new_file, read, undone_of, write_plan
from shadow.jobs.target import JobRefused
from shadow.model.version import ABSENT, Version
from tests.support.migration import OpenJobs

HEADER = {"plan": 1, "collection": "things", "fingerprint": "mark", "job": 1}
LINE = {"key": "k", "kind": "missing", "primary": {"b": "born", "r": 1}, "secondary": None}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[OpenJobs]:
    records = SqliteRecords(tmp_path / "control.db")
    records.prepare()
    yield OpenJobs(records)
    records.close()


def verified(jobs: OpenJobs, *, ended: bool = True) -> int:
    job = jobs.begin("verify", "things", "mark", {})
    jobs.create_ranges(job, [{}], 10)
    claim = jobs.claim(job, "part", this_process())
    assert claim is not None
    state = json.dumps(None)
    assert jobs.advance(claim, {"after": 1}, {}, [Issue("k", "missing", "", state, state)])
    jobs.complete(claim)
    if ended:
        jobs.finish(job, "different")
    return job


def lines(path: Path, *rows: Any, end: str = "\n") -> Path:
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows) + end)
    return path


def test_a_plan_is_written_and_read(jobs: OpenJobs, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    with made_whole(path) as file:
        assert write_plan(file, jobs, jobs.job(verified(jobs))) == 1
        assert not path.exists(), "not before it is whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert header_of(path)["collection"] == "things"
    assert list(read(path, line_of, may_be_cut=False)) == [[Line("k", "missing", ABSENT, ABSENT)]]
    assert sorted(each.name for each in tmp_path.glob("*plan*")) == ["plan"], "no draft is left"


def test_no_plan_is_made_of_what_has_not_ended_and_nothing_is_left_of_it(jobs: OpenJobs, tmp_path: Path) -> None:
    job = jobs.job(verified(jobs, ended=False))
    with pytest.raises(JobRefused, match="no verification that has ended"), made_whole(tmp_path / "plan") as file:
        write_plan(file, jobs, job)
    assert list(tmp_path.glob("*plan*")) == []


def _there(path: Path) -> Path:
    path.write_text("mine")
    return path


def _link(path: Path) -> Path:
    path.symlink_to(path.parent / "nowhere")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


CANNOT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a file that is there": (_there, "exists, and is not overwritten"),
    "a link to nothing": (_link, "exists, and is not overwritten"),
    "a folder": (_folder, "exists, and is not overwritten"),
    "no folder": (lambda path: path / "x" / "y", "there is no folder"),
    "a file for a folder": (lambda path: _there(path) / "y", "cannot be written"),
}


@pytest.mark.parametrize("name", list(CANNOT))
@pytest.mark.parametrize("make", [new_file, made_whole])
def test_where_none_can_be_made_says_why(make: Any, name: str, tmp_path: Path) -> None:
    prepare, said = CANNOT[name]
    path = prepare(tmp_path / "plan")
    with pytest.raises(JobRefused, match=said) as caught, make(path):
        pass
    assert caught.value.hint
    assert str(path) in caught.value.message
    if name == "a file that is there":
        assert path.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JobRefused, match="cannot be written"), made_whole(tmp_path / "plan"):
        pass


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "plan"

    def make() -> None:
        with made_whole(path) as file:
            file.write("ours")
            path.write_text("theirs")

    with pytest.raises(JobRefused, match="exists, and is not overwritten"):
        make()
    assert path.read_text() == "theirs"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"mongo: {}\n", "neither a plan nor an undo log"),
        (b"[1]\n", "neither a plan nor an undo log"),
        (b'{"a": 1}\n', "neither a plan nor an undo log"),
        (b'{"plan": 1', "neither a plan nor an undo log"),
        (b'{"plan": 9, "collection": "c", "fingerprint": "f"}\n', "another version of shadow"),
        (b'{"plan": 1, "fingerprint": "f"}\n', "no collection"),
        (b'{"plan": 1, "collection": 5, "fingerprint": "f"}\n', "no collection"),
    ],
)
def test_a_file_that_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(content)
    with pytest.raises(JobRefused, match=said) as caught:
        header_of(path)
    assert caught.value.hint


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(JobRefused, match="cannot be read"):
            header_of(path)


@pytest.mark.parametrize(
    "damage",
    ['{"key": "k"', "null", "5", json.dumps({**LINE, "primary": 7}), json.dumps({"kind": "missing"}),
     json.dumps({**LINE, "key": {"$oid": "short"}})],
)  # fmt: skip
def test_a_damaged_line_is_named_before_anything_is_done(damage: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "plan", HEADER, LINE, damage, LINE)
    with pytest.raises(JobRefused, match="line 3 is truncated or was changed; nothing was done"):
        next(read(path, line_of, may_be_cut=False))


def test_a_plan_that_was_cut_off_is_refused_and_the_last_line_of_an_undo_log_passed_over(tmp_path: Path) -> None:
    """What was cut off there belongs to a change that was not made: the log is on the disk before it."""
    row = {"_id": "k", "document": None, "before": None, "after": {"b": "born", "r": 2}}
    log = lines(tmp_path / "log", {**HEADER, "plan": "undo"}, row, '{"_id": "k2", "docum', end="")
    ((only,),) = read(log, undone_of, may_be_cut=True)
    assert (only.key, only.before, only.after) == ("k", ABSENT, Version("born", 2))
    plan = lines(tmp_path / "plan", HEADER, LINE, '{"key": "k2", "ki', end="")
    with pytest.raises(JobRefused, match="line 3"):
        next(read(plan, line_of, may_be_cut=False))
    in_between = lines(tmp_path / "between", {**HEADER, "plan": "undo"}, '{"_id": "k2"', row)
    with pytest.raises(JobRefused, match="line 2"):
        next(read(in_between, undone_of, may_be_cut=True))
