"""Is it safe to flip? Never while anything is wrong, and never on figures that rest on nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from shadow.observe.judge import ENOUGH, Gate, judge


@pytest.fixture
def status() -> dict[str, Any]:
    """All is well."""
    return {
        "collections": {"users": {"primary": "mongo", "phase": "shadow", "writes": "background", "shadow_reads": 1.0}},
        "stores": {"mongo": {"up": True}, "dynamo": {"up": True}},
        "journal": {"open": {"users": 2}, "deferred": {}, "oldest_seconds": 0.4, "verify_since": {}},
        "findings": {"open_by_collection": {}},
        "comparison": {"users": {"working": True}},
        "bypassing": {},
        "totals": {"collections": {"users": {"match": ENOUGH, "excused": 0, "mismatch": 0, "shed": 3}}},
    }


def test_where_all_is_well_it_is_safe(status: dict[str, Any]) -> None:
    said = judge(status)
    assert (said["safe"], said["look_at"], said["collections"]) == (True, "", {"users": True})


@pytest.mark.parametrize(
    ("path", "value", "gate"),
    [
        ("stores.dynamo.up", False, "secondary"),
        ("findings.open_by_collection", {"users": 1}, "findings"),
        ("comparison.users.working", False, "comparison works"),
        ("comparison", {}, "comparison works"),
        ("journal.oldest_seconds", 61.0, "journal"),
        ("journal.verify_since", {"users": "2026-01-01T00:00:00+00:00"}, "verified"),
        ("bypassing", {"users": {"count": 1}}, "writers"),
        ("collections.users.phase", "dual_write", "phase"),
        ("collections.users.shadow_reads", 0.0, "phase"),
        ("totals.collections.users.match", ENOUGH - 1, "compared"),
        ("totals.collections", {}, "compared"),
        ("totals.collections.users.shed", ENOUGH, "shed"),
    ],
)
def test_one_thing_that_is_wrong_is_named_and_closes_the_way(
    status: dict[str, Any], path: str, value: Any, gate: str
) -> None:
    *folder, name = path.split(".")
    inner = status
    for each in folder:
        inner = inner[each]
    inner[name] = value
    said = judge(status)
    assert said["safe"] is False
    assert said["collections"] == {"users": False}
    assert gate in [each["name"] for each in said["gates"] if not each["ok"]]
    assert "users" in said["look_at"]


def test_what_weighs_most_is_what_to_look_at(status: dict[str, Any]) -> None:
    worse = copy.deepcopy(status)
    worse["totals"]["collections"] = {}
    worse["findings"]["open_by_collection"] = {"users": 3}
    assert judge(worse)["look_at"] == "3 documents or answers of users differ: shadow findings list --collection users"
    worse["stores"]["dynamo"]["up"] = False
    assert "does not answer" in judge(worse)["look_at"]


def test_the_primary_that_is_down_is_not_the_secondary(status: dict[str, Any]) -> None:
    status["stores"]["mongo"]["up"] = False
    assert judge(status)["safe"] is True


def test_other_gates_count_and_nothing_at_all_is_not_safe(status: dict[str, Any]) -> None:
    said = judge(status, [Gate("users", "copied", False, "never", "copy it first")])
    assert (said["safe"], said["look_at"]) == (False, "copy it first")
    status["collections"] = {}
    assert judge(status)["safe"] is False
