"""The findings of all processes of a host: added up, bounded, kept over restarts, and never in the way."""

from __future__ import annotations

import json
import multiprocessing
import stat
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from shadow.compare.diff import Hasher
from shadow.model.operation import Verb
from shadow.model.verdict import Difference, Kind, Mismatch
from shadow.observe.findings import Findings
from shadow.observe.findings_file import FindingsFile, SharedFindings, shared_secret
from shadow.observe.mismatch_file import MismatchFile

HASHER = Hasher(b"secret")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> FindingsFile:
    return FindingsFile(MismatchFile(tmp_path / "var" / "findings.db"), limit=6, groups=3)


def process(clock: Clock) -> Findings:
    """The findings of one more process."""
    return Findings(HASHER, notes=True, clock=clock)


def found(key: Any = "k", *paths: str, kind: Kind = Kind.VALUE, verb: Verb = Verb.FIND_ONE, **more: Any) -> Mismatch:
    differences = tuple(Difference(kind, path, "int", "int", "aa", "bb") for path in paths or ("a",))
    return Mismatch("users", verb, kind, key, differences, **more)


def test_two_processes_that_see_the_same_document_have_one_finding(file: FindingsFile, clock: Clock) -> None:
    one, other = process(clock), process(clock)
    name = one.add(found(1, "a"))
    assert other.add(found(1, "a", verb=Verb.FIND)) == name
    assert (file.save(other), file.save(one)) == (1, 1)
    (row,) = file.list()
    assert (row["id"], row["count"], row["verbs"]) == (name, 2, {"find": 1, "find_one": 1})
    assert (row["first_seen"], file.summary()["open"]) == (101.0, 1)
    assert [(group["path"], group["count"]) for group in file.groups()] == [("a", 2)]
    assert file.key_of(name) == ("users", 1)


def test_a_heal_in_one_process_is_seen_by_the_others(file: FindingsFile, clock: Clock) -> None:
    one, other = process(clock), process(clock)
    name = one.add(found("k"))
    file.save(one)
    assert not other.mark_healed("users", "k")
    other.mark_healed("users", "never found")
    file.save(other)
    row = file.get(name)
    assert row is not None
    assert row["healed"] is True
    assert file.summary() == {"seen": 1, "kept": 1, "open": 0, "dropped": 0}
    one.add(found("k"))
    file.save(one)
    assert [each["id"] for each in file.list(healed=False)] == [name]


def test_the_oldest_and_the_newest_are_kept_and_groups_are_bounded(file: FindingsFile, clock: Clock) -> None:
    findings = process(clock)
    ids = [findings.add(found(key, f"path{key}")) for key in range(40)]
    file.save(findings)
    assert {row["id"] for row in file.list()} == {*ids[:3], *ids[-3:]}
    assert file.summary() == {"seen": 40, "kept": 6, "open": 6, "dropped": 34}
    groups = file.groups()
    assert sum(group["count"] for group in groups) == 40
    assert {group["path"] for group in groups} == {"path0", "path1", "path2", "*"}


def test_findings_can_be_filtered(file: FindingsFile, clock: Clock) -> None:
    findings = process(clock)
    findings.add(found(1, "items.0.x"))
    findings.add(found(2, "name", kind=Kind.TYPE))
    file.save(findings)
    keys = {HASHER.hash_key(key): key for key in (1, 2)}

    def listed(**by: Any) -> list[int]:
        return [keys[row["key_hash"]] for row in file.list(**by)]

    assert listed() == [2, 1]
    assert listed(kind=Kind.TYPE) == [2]
    assert listed(path="items.7.x") == [1]
    assert listed(collection="documents") == []
    assert listed(limit=1) == [2]


def test_a_whole_answer_has_no_key_and_keys_show_only_where_that_is_allowed(tmp_path: Path, clock: Clock) -> None:
    findings = process(clock)
    whole = findings.add(found(None, kind=Kind.COUNT))
    findings.add(found("hunter2"))
    hidden = FindingsFile(MismatchFile(tmp_path / "f.db"))
    hidden.save(findings)
    assert hidden.key_of(whole) is None
    assert hidden.key_of("gone") is None
    assert hidden.get("gone") is None
    assert "hunter2" not in json.dumps([hidden.list(), hidden.groups()])
    assert "hunter2" in json.dumps(FindingsFile(MismatchFile(tmp_path / "f.db"), reveal_keys=True).list())


def test_what_could_not_be_written_is_written_later(tmp_path: Path, clock: Clock) -> None:
    findings = process(clock)
    name = findings.add(found("k"))
    (tmp_path / "a").write_text("a file, no folder")
    with pytest.raises(OSError):
        FindingsFile(MismatchFile(tmp_path / "a" / "f.db")).save(findings)
    file = FindingsFile(MismatchFile(tmp_path / "f.db"))
    assert file.save(findings) == 1
    assert file.get(name) is not None


async def test_where_the_file_cannot_be_used_a_process_shows_its_own(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "f.db").write_bytes(b"no database" * 1000)
    errors: list[Exception] = []
    findings = process(clock)
    shared = SharedFindings(findings, FindingsFile(MismatchFile(tmp_path / "f.db")), errors.append)
    name = findings.add(found("k"))
    await shared.save()
    assert [row["id"] for row in await shared.list()] == [name]
    assert (await shared.summary())["open"] == 1
    assert await shared.key_of(name) == ("users", "k")
    assert (await shared.groups())[0]["count"] == 1
    assert errors
    alone = SharedFindings(findings, None, errors.append)
    assert (await alone.get(name) or {})["id"] == name


def tell_secret(path: Path, together: Barrier, told: SimpleQueue[bytes]) -> None:
    together.wait(30)
    told.put(shared_secret(path))


def test_the_secret_is_one_for_all_processes_and_for_no_other_eyes(tmp_path: Path) -> None:
    path = tmp_path / "var" / "key"
    context = multiprocessing.get_context("fork")
    together, told = context.Barrier(3), context.SimpleQueue()
    running = [context.Process(target=tell_secret, args=(path, together, told)) for _ in range(3)]
    for process in running:
        process.start()
    secrets = {told.get() for _ in running}
    for process in running:
        process.join(30)
    assert secrets == {shared_secret(path)}
    assert len(shared_secret(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_the_file_is_for_no_other_eyes(file: FindingsFile, clock: Clock) -> None:
    findings = process(clock)
    findings.add(found("k"))
    file.save(findings)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
