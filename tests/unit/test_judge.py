"""Is it safe to flip? Never while anything is wrong, and never on figures that rest on nothing."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import bson
import pytest

from shadow.fleet.health_gates import ENOUGH, Gate, Readiness, gates_of
from shadow.fleet.status import as_json, of_json
from shadow.model.health import CollectionHealth


@pytest.fixture
def status() -> dict[str, Any]:
    """All is well."""
    return {
        "collections": {"users": {"primary": "mongo", "phase": "shadow", "writes": "background", "shadow_reads": 1.0}},
        "stores": {"mongo": {"up": True}, "dynamo": {"up": True}},
        "journal": {"open": {"users": 2}, "deferred": {}, "oldest_seconds": 0.4, "verify_since": {}, "state": "ok"},
        "findings": {"open_by_collection": {}},
        "comparison": {"users": {"working": True}},
        "bypassing": {},
        "index_health": {"users": {"indexes_known": True, "indexes_lost": ()}},
        "latency_health": {"users": {"slower": 3.0, "read_times": ("9:1000", "11:1000"), "write_times": ("", "")}},
        "totals": {
            "collections": {"users": {"match": 10 * ENOUGH, "excused": 0, "mismatch": 0, "shed": 0}},
            "recent": {"users": {"compared": ENOUGH, "shed": 3, "seconds": 3600.0}},
        },
    }


_A_RUN = 3600.0
"""Seconds from the collection of the tests, when cases are made, to the last one."""


def relay(
    *,
    store: str = "mongo",
    behind: float = 0.5,
    fault: str = "",
    count: int = 0,
    last: float = 0.0,
    unread: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    relayed = {"users": {"count": count, "last": last}}
    return {store: {"behind": behind, "fault": fault, "collections": relayed, "unread": dict(unread)}}


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
def test_what_one_store_does_not_tell_closes_the_gate_of_its_role_alone(status: dict[str, Any], primary: str) -> None:
    """The primary's stream counts now, the other one's after a flip; and of another collection neither."""
    other = {"mongo": "dynamo", "dynamo": "mongo"}[primary]
    status["collections"]["users"]["primary"] = primary
    for fault in ({"fault": "no right"}, {"unread": {"users": "no right"}}):
        for store, gate in ((primary, "writers"), (other, "writers after")):
            status["relay"] = {**relay(store="mongo"), **relay(store="dynamo"), **relay(store=store, **fault)}
            (shut,) = [each for each in judge(status).gates if not each.ok]
            assert (shut.name, "no right" in shut.said, "no right" in shut.look_at) == (gate, True, True)
    status["relay"] = {**relay(store=primary), **relay(store=other, unread={"others": "no right"}, behind=99.0)}
    assert judge(status).safe, "how far the secondary's is behind says nothing of it"


def test_writes_that_were_relayed_a_while_ago_close_nothing(status: dict[str, Any]) -> None:
    status["relay"] = relay(count=7, last=time.time() - 100)
    assert closed(figures(status)) == []
    status["bypassing"] = {"users": {"count": 1}}
    assert closed(figures(status)) == ["writers"]


def figures(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a process shows to the others, by collection."""
    return {name: health.record() for name, health in of_json(status).health().items()}


def of_figures(*processes: Any) -> list[Gate]:
    """The gates, of what processes show."""
    return list(gates_of([{name: CollectionHealth.of_record(one) for name, one in each.items()} for each in processes]))


def judge(status: dict[str, Any], more: Iterable[Gate] = ()) -> Readiness:
    return Readiness((*gates_of([of_json(status).health()]), *more))


def test_where_all_is_well_it_is_safe(status: dict[str, Any]) -> None:
    said = judge(status)
    assert (said.safe, said.look_at, said.collections) == (True, "", {"users": True})


@pytest.mark.parametrize(
    ("path", "value", "gate"),
    [
        ("stores.dynamo.up", False, "secondary"),
        ("findings.open_by_collection", {"users": 1}, "findings"),
        ("comparison.users.working", False, "comparison works"),
        ("comparison", {}, "comparison works"),
        ("journal.oldest_seconds", 61.0, "journal"),
        ("journal.refused", {"users": 1}, "journal"),
        ("journal.verify_since", {"users": "2026-01-01T00:00:00+00:00"}, "verified"),
        ("bypassing", {"users": {"count": 1}}, "writers"),
        ("relay", relay(behind=11.0), "writers"),
        ("relay", relay(fault="no replica set"), "writers"),
        ("relay", relay(count=1, last=time.time() + _A_RUN), "writers"),
        ("relay", {**relay(), **relay(store="dynamo", fault="no process relays")}, "writers after"),
        ("relay", {**relay(), **relay(store="dynamo", unread={"users": "no stream"})}, "writers after"),
        ("index_health.users", {"indexes_known": True, "indexes_lost": ["bio_text"]}, "indexes"),
        ("index_health.users", {"indexes_known": False, "indexes_lost": []}, "indexes"),
        ("not_portable", {"users": {"not_accepted": ["$where"]}}, "portable"),
        ("collections.users.phase", "dual_write", "phase"),
        ("collections.users.shadow_reads", 0.0, "phase"),
        ("journal.state", "failed: TimeoutError", "journal"),
        ("totals.recent.users.compared", ENOUGH - 1, "compared"),
        ("totals.recent", {}, "compared"),
        ("totals.recent", {}, "shed"),
        ("totals.recent.users", {"compared": 0, "shed": 0, "seconds": 3600.0}, "compared"),
        ("totals.recent.users", {"compared": 0, "shed": 0, "seconds": 3600.0}, "shed"),
        ("totals.recent.users.shed", ENOUGH, "shed"),
        ("latency_health.users.read_times", ("9:1000", "19:1000"), "fast enough"),
        ("latency_health.users.write_times", ("9:1000", "19:1000"), "fast enough"),
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
    assert said.safe is False
    assert said.collections == {"users": False}
    assert gate in [each.name for each in said.closed("users")]
    assert "users" in said.look_at


def test_what_weighs_most_is_what_to_look_at(status: dict[str, Any]) -> None:
    worse = copy.deepcopy(status)
    worse["totals"]["recent"] = {}
    worse["findings"]["open_by_collection"] = {"users": 3}
    assert judge(worse).look_at == "open findings in users: 3; shadow findings list --collection users"
    worse["stores"]["dynamo"]["up"] = False
    assert "does not answer" in judge(worse).look_at


def test_the_primary_that_is_down_is_not_the_secondary(status: dict[str, Any]) -> None:
    status["stores"]["mongo"]["up"] = False
    assert judge(status).safe is True


def test_other_gates_count_and_nothing_at_all_is_not_safe(status: dict[str, Any]) -> None:
    said = judge(status, [Gate("users", "copied", False, "never", "copy it first")])
    assert (said.safe, said.look_at) == (False, "copy it first")
    status["collections"] = {}
    assert judge(status).safe is False


def closed(*processes: Any) -> list[str]:
    return sorted(gate.name for gate in of_figures(*processes) if not gate.ok)


def changed(status: dict[str, Any], **fields: Any) -> dict[str, dict[str, Any]]:
    """The figures of a process that says something else of `users`."""
    return {"users": {**figures(status)["users"], **fields}}


def test_one_process_is_the_fleet_of_one(status: dict[str, Any]) -> None:
    assert list(judge(status).gates) == of_figures(figures(status))


def test_figures_are_small_and_survive_the_stores_that_a_fleet_shares(status: dict[str, Any]) -> None:
    said = figures(status)
    assert json.loads(json.dumps(said)) == said
    assert bson.decode(bson.encode(said)) == said
    assert len(json.dumps(said["users"])) < 550


def test_what_a_fleet_has_compared_and_shed_is_added_up(status: dict[str, Any]) -> None:
    half = changed(status, compared=ENOUGH // 2, shed=0)
    assert closed(half) == ["compared"]
    assert closed(half, half) == []
    assert closed(half, changed(status, compared=ENOUGH // 2, shed=ENOUGH)) == ["shed"]
    idle = changed(status, compared=0, shed=0)
    assert closed(idle, changed(status)) == []
    assert closed(idle, idle) == ["compared", "shed"]


@pytest.mark.parametrize(
    ("fields", "gate"),
    [
        ({"down": ["dynamo"]}, "secondary"),
        ({"findings": 1}, "findings"),
        ({"waiting": 1, "oldest": 61.0}, "journal"),
        ({"read": False}, "journal"),
        ({"unverified": "2026-01-01T00:00:00+00:00"}, "verified"),
        ({"bypassing": 1}, "writers"),
        ({"not_portable": ["$where"]}, "portable"),
        ({"phase": "dual_write"}, "phase"),
        ({"shadow_reads": 0.0}, "phase"),
        ({"primary": "dynamo"}, "phase"),
    ],
)
def test_one_process_of_many_closes_a_gate(status: dict[str, Any], fields: dict[str, Any], gate: str) -> None:
    well = changed(status)
    assert closed(well, changed(status, **fields), well) == [gate]


@pytest.mark.parametrize("fields", [{"works": False}, {"planted": False}, {"works": None}])
def test_where_the_comparison_does_not_work_nothing_that_rests_on_it_is_open(
    status: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert closed(changed(status), changed(status, **fields)) == ["comparison works", "findings", "writers"]


def test_a_process_that_does_not_know_a_collection_or_a_figure_closes_its_gates(status: dict[str, Any]) -> None:
    well = changed(status)
    every = sorted(gate.name for gate in of_figures(well))
    assert closed(well, {}) == every
    # Where findings are kept is shown; whether a comparison that does not work proves nothing yet is for guards; and
    # versions before know nothing of the stream of the secondary.
    for name in figures(status)["users"].keys() - {"kept", "undecided", "unrelayed_after"}:
        less = {"users": {key: value for key, value in well["users"].items() if key != name}}
        assert closed(well, less), name
        assert closed(well, changed(status, **{name: None})), name


def test_gates_of_no_process_are_never_safe() -> None:
    assert list(gates_of([])) == []
    assert Readiness().safe is False


def test_a_status_survives_the_way_over_http(status: dict[str, Any]) -> None:
    status["fleet"] = {"state": "ok"}
    status["excuses"] = ["shown as it is"]
    seen = dataclasses.replace(of_json(status), readiness=judge(status))
    sent = json.loads(json.dumps(as_json(seen)))
    assert of_json(sent) == seen
    assert as_json(of_json(sent)) == sent
    assert sent["verdict"] == {
        "safe": True,
        "look_at": "",
        "collections": {"users": True},
        "gates": [dataclasses.asdict(gate) for gate in judge(status).gates],
    }


def test_a_status_of_an_older_version_is_read_as_far_as_it_goes(status: dict[str, Any]) -> None:
    older = of_json({"collections": status["collections"], "journal": {"open": {"users": 1}, "later": 1}})
    assert (older.journal.waiting("users"), older.readiness) == (1, None)
    assert not judge({"collections": status["collections"]}).safe
