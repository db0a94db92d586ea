"""Findings: bounded, grouped, one for each document, and without values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from bson import Int64

from shadow.compare.diff import Hasher
from shadow.model.operation import Verb
from shadow.model.verdict import Difference, Kind, Mismatch
from shadow.model.version import ABSENT, Tombstone, Version
from shadow.observe.findings import ELSEWHERE, Findings, path_pattern, state_text

HASHER = Hasher(b"secret")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Callable[..., Findings]:
    return lambda **options: Findings(HASHER, clock=clock, **options)


def found(key: Any = "k", *paths: str, kind: Kind = Kind.VALUE, collection: str = "users", **more: Any) -> Mismatch:
    differences = tuple(Difference(kind, path, "int", "int", "aa", "bb") for path in paths or ("a",))
    return Mismatch(collection, Verb.FIND_ONE, kind, key, differences, **more)


def test_the_same_document_seen_again_is_the_same_finding(make: Callable[..., Findings], clock: Clock) -> None:
    findings = make()
    first = findings.add(found(1, "a", primary_state=Version("x", 2), secondary_state=Version("x", 1)))
    clock.now = 200.0
    assert findings.add(found(Int64(1), "b", primary_state=Version("x", 3), secondary_state=ABSENT)) == first
    (row,) = findings.list()
    assert (row["count"], row["first_seen"], row["last_seen"]) == (2, 100.0, 200.0)
    assert [each["path"] for each in row["differences"]] == ["b"]
    assert (row["primary_state"], row["secondary_state"]) == ("x@3", "absent")
    assert row["verbs"] == {"find_one": 2}
    assert row["key_hash"] == HASHER.hash_key(1)


def test_other_keys_and_other_collections_are_other_findings(make: Callable[..., Findings]) -> None:
    findings = make()
    ids = {findings.add(found(key, collection=name)) for key in (1, True, "1") for name in ("users", "documents")}
    assert len(ids) == len(findings) == 6


def test_groups_add_up_by_collection_kind_and_path(make: Callable[..., Findings], clock: Clock) -> None:
    findings = make()
    for key in range(3):
        findings.add(found(key, f"items.{key}.price", "name"))
        clock.now += 1
    findings.add(found("gone", "$document", kind=Kind.MISSING))
    rows = {(row["collection"], row["kind"], row["path"]): row for row in findings.groups()}
    assert rows.keys() == {
        ("users", "value", "items.*.price"),
        ("users", "value", "name"),
        ("users", "missing_in_secondary", "$document"),
    }
    assert rows["users", "value", "items.*.price"]["count"] == 3
    assert rows["users", "value", "name"]["first_seen"] == 100.0
    assert rows["users", "value", "name"]["last_seen"] == 102.0


def test_the_oldest_and_the_newest_are_kept(make: Callable[..., Findings]) -> None:
    findings = make(limit=6)
    ids = [findings.add(found(key)) for key in range(100)]
    kept = [name for name in ids if findings.get(name)]
    assert kept == ids[:3] + ids[-3:]
    assert findings.summary() == {"seen": 100, "kept": 6, "open": 6, "dropped": 94}


def test_groups_are_bounded_and_count_on(make: Callable[..., Findings]) -> None:
    findings = make(limit=4, groups=3)
    for i in range(50):
        findings.add(found(i, f"path{i}"))
    rows = findings.groups()
    assert len(rows) <= 4 + len(Kind)
    assert sum(row["count"] for row in rows) == 50
    assert ELSEWHERE in {row["path"] for row in rows}


def test_findings_can_be_filtered(make: Callable[..., Findings], clock: Clock) -> None:
    findings = make()
    for key, arguments in enumerate(
        [("users", Kind.VALUE, "items.0.x"), ("users", Kind.TYPE, "name"), ("documents", Kind.VALUE, "name")]
    ):
        collection, kind, path = arguments
        findings.add(found(key, path, kind=kind, collection=collection))
        clock.now += 1
    findings.mark_healed("users", 1)

    def hashes(**by: Any) -> list[str]:
        return [row["key_hash"] for row in findings.list(**by)]

    keys = [HASHER.hash_key(key) for key in range(3)]
    assert hashes() == keys[::-1]
    assert hashes(collection="users") == [keys[1], keys[0]]
    assert hashes(kind=Kind.VALUE) == [keys[2], keys[0]]
    assert hashes(path="items.7.x") == [keys[0]]
    assert hashes(healed=True) == [keys[1]]
    assert hashes(healed=False, collection="users") == [keys[0]]
    assert hashes(limit=1) == [keys[2]]


def test_healed_is_remembered_until_the_document_differs_again(make: Callable[..., Findings]) -> None:
    findings = make()
    name = findings.add(found("k"))
    assert findings.mark_healed("users", "k")
    assert not findings.mark_healed("users", "other")
    assert findings.summary()["open"] == 0
    findings.add(found("k"))
    row = findings.get(name)
    assert row is not None
    assert row["healed"] is False
    findings.add(found("k", healed=True))
    assert findings.summary()["open"] == 0


def test_a_whole_answer_is_one_finding_for_each_verb_and_has_no_key(make: Callable[..., Findings]) -> None:
    findings = make()
    name = findings.add(found(None, kind=Kind.ORDER))
    assert findings.add(found(None, kind=Kind.COUNT)) == name
    row = findings.get(name)
    assert row is not None
    assert row["key_hash"] == ""
    assert findings.key_of(name) is None


def test_the_key_is_there_for_the_one_who_heals(make: Callable[..., Findings]) -> None:
    findings = make()
    name = findings.add(found({"tenant": 1, "n": 2}))
    assert findings.key_of(name) == ("users", {"tenant": 1, "n": 2})
    assert findings.key_of("gone") is None
    assert findings.get("gone") is None


def test_what_is_shown_is_json_and_has_no_key_unless_that_is_allowed(make: Callable[..., Findings]) -> None:
    hidden, shown = make(), make(reveal_keys=True)
    for findings in (hidden, shown):
        findings.add(found("hunter2", "a", primary_state=Tombstone("t")))
    assert "hunter2" not in json.dumps([hidden.list(), hidden.groups(), hidden.summary()])
    assert shown.list()[0]["key"] == "hunter2"


def test_differences_of_one_finding_are_bounded(make: Callable[..., Findings]) -> None:
    findings = make()
    findings.add(found("k", *(f"f{i}" for i in range(1000))))
    assert len(findings.list()[0]["differences"]) == 50


def test_words_for_states_and_paths() -> None:
    assert [state_text(each) for each in (Version("b", 3), Version("", 0), Tombstone("t"), ABSENT, None)] == [
        "b@3",
        "unversioned@0",
        "tombstone",
        "absent",
        "",
    ]
    assert path_pattern("a.0.b.12") == "a.*.b.*"
