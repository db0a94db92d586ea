"""Store against store: the same operations, of the last hour, and a gate that closes where one is too slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from shadow.config import CollectionSettings, Defaults, Settings
from shadow.fleet.health_gates import ENOUGH, Gate, gates_of
from shadow.model.events import Event, OperationFinished, ReadTimed, RouteChanged
from shadow.model.guards import BOUNDS
from shadow.model.health import CollectionHealth, LatencyHealth
from shadow.model.latencies import added, of_text, percentile, text_of
from shadow.model.operation import Query, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Phase, Role, Route, StoreName
from shadow.model.reads import Aggregate, Count, Distinct, Find, FindOne, Read
from shadow.model.shapes import shape_of
from shadow.observe.latencies import OTHER_SHAPES, Latencies
from shadow.reads import shadow_read
from tests.support.cases import each_of
from tests.support.clock import Clock
from tests.support.faulty import Fault, hang, lose
from tests.support.pair import Pair

BY_OWNER: Final = Find(Query({"owner": {"$eq": "hunter2"}}, sort=[("at", -1)], limit=10))
ADA: Final = FindOne(Query({"_id": {"$eq": "ada"}}))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def latencies(clock: Clock) -> Latencies:
    return Latencies(("users",), now=clock)


def count(latencies: Latencies, event: Event, times: int = 1) -> None:
    for _ in range(times):
        latencies.handlers()[type(event)](event)


def write(role: Role, seconds: float, verb: Verb = Verb.UPDATE_ONE, outcome: Outcome = Outcome.ACKED) -> Event:
    return OperationFinished("users", verb, StoreName.MONGO, role, outcome, seconds)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("seconds", [[n / 10_000 for n in range(1, 2001)], [0.004] * 50, [0.001] * 90 + [0.2] * 10])
def test_a_quantile_is_as_near_as_its_bucket_is_narrow(
    share: float, seconds: list[float], latencies: Latencies
) -> None:
    for each in seconds:
        count(latencies, ReadTimed("users", ADA, each, each))
    (shape,) = latencies.status("users")
    true = sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]
    told = shape["primary"][f"p{share * 100:.0f}"]
    assert true / 1.3 <= told <= true * 1.3
    assert shape["ratio"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}


def test_quantiles_of_nothing_and_of_what_takes_longer_than_all_buckets() -> None:
    assert percentile({}, 0.95) == 0.0
    assert percentile({len(BOUNDS): 3}, 0.95) == BOUNDS[-1]
    assert 0 < percentile({0: 1}, 0.95) <= BOUNDS[0]


def test_times_travel_as_a_short_text_and_nothing_else_is_read() -> None:
    times = {3: 17, len(BOUNDS): 2, 12: 400}
    assert of_text(text_of(times)) == times
    assert of_text(text_of({})) == {}
    assert added([times, {3: 1}]) == {**times, 3: 18}
    for text in ("x", "3:", "3:-1", f"{len(BOUNDS) + 1}:1", "-1:1"):
        with pytest.raises(ValueError):
            of_text(text)
        broken = {"slower": 3.0, "read_times": [text, ""], "write_times": ["", ""]}
        assert CollectionHealth.of_record(broken).latency is None
    assert CollectionHealth.of_record({"slower": 3.0, "read_times": [""], "write_times": ["", ""]}).latency is None


def test_reads_are_counted_by_shape_and_writes_of_one_document_by_verb(latencies: Latencies) -> None:
    count(latencies, ReadTimed("users", BY_OWNER, 0.001, 0.01), 3)
    count(latencies, write(Role.PRIMARY, 0.002), 2)
    count(latencies, write(Role.SECONDARY, 0.004), 2)
    count(latencies, write(Role.PRIMARY, 9.0, Verb.INSERT_MANY))
    count(latencies, write(Role.SECONDARY, 9.0, outcome=Outcome.UNKNOWN))
    count(latencies, ReadTimed("not configured", BY_OWNER, 0.001, 0.01))
    shapes = latencies.status("users")
    assert [each["shape"] for each in shapes] == ["find {owner: $eq} sort -at limit", "update_one"]
    assert [each["primary"]["count"] for each in shapes] == [3, 2]
    assert shapes[0]["ratio"]["p95"] == pytest.approx(10, rel=0.3)
    assert shapes[1]["ratio"]["p99"] == pytest.approx(2, rel=0.3)
    health = latencies.of("users", 3.0)
    assert [sum(of_text(each).values()) for each in (*health.read_times, *health.write_times)] == [3, 3, 2, 2]


def test_an_hour_counts_and_no_more_and_nothing_from_before_a_flip(latencies: Latencies, clock: Clock) -> None:
    def seen() -> int:
        return sum(each["primary"]["count"] for each in latencies.status("users"))

    count(latencies, RouteChanged("users", Route(StoreName.MONGO, Phase.SHADOW)))
    for _ in range(12):
        count(latencies, ReadTimed("users", ADA, 0.001, 0.001))
        clock.at += 300
    assert seen() == 11
    clock.at += 3600
    assert seen() == 0
    count(latencies, ReadTimed("users", ADA, 0.001, 0.001))
    count(latencies, RouteChanged("users", Route(StoreName.MONGO, Phase.SHADOW, shadow_reads=0.5)))
    assert seen() == 1
    count(latencies, RouteChanged("users", Route(StoreName.DYNAMO, Phase.SHADOW)))
    assert seen() == 0


def test_shapes_are_bounded_and_none_is_lost(latencies: Latencies) -> None:
    for number in range(100):
        count(latencies, ReadTimed("users", FindOne(Query({f"path{number}": {"$eq": 1}})), 0.001, 0.001))
    count(latencies, write(Role.PRIMARY, 0.002))
    shapes = {each["shape"]: each["primary"]["count"] for each in latencies.status("users")}
    assert len(shapes) == 22
    assert shapes[OTHER_SHAPES] == 80
    assert shapes["update_one"] == 1
    assert sum(of_text(latencies.of("users", 3.0).read_times[0]).values()) == 100


@each_of(
    ("read", "shape"),
    [
        (ADA, "find_one {_id: $eq}"),
        (Find(Query({"b": {"$lt": 2, "$gte": 1}, "a": "hunter2"}, skip=3)), "find {a: $eq, b: $gte $lt} skip"),
        (Find(Query({"a": {"hunter": 2}})), "find {a: $eq}"),
        (Find(Query({"$or": [{"a": 1}, {"b": 2}, {"a": 3}]})), "find {$or: [{a: $eq}, {b: $eq}]}"),
        (Find(Query({"$expr": {"$gt": ["$a", 2]}})), "find {$expr}"),
        (Count({}, estimated=True), "estimated_document_count"),
        (Count({"a": 1}), "count_documents {a: $eq}"),
        (Distinct("tags", {"a": 1}), "distinct tags {a: $eq}"),
        (
            Aggregate([{"$match": {"a": 1}}, {"$group": {"_id": "$hunter2"}}, {"$sort": {"_id": 1}}]),
            "aggregate [$match {a: $eq}, $group, $sort]",
        ),
    ],
)
def test_a_shape_names_fields_and_operators_and_no_value(read: Read, shape: str) -> None:
    assert shape_of(read) == shape


# --- the gate -----------------------------------------------------------------------------------------------------


def times(milliseconds: float, number: int = ENOUGH) -> str:
    latencies = Latencies(("users",))
    count(latencies, ReadTimed("users", ADA, milliseconds / 1000, 0.0))
    (bucket,) = of_text(latencies.of("users", 3.0).read_times[0])
    return text_of({bucket: number})


def gate(*processes: LatencyHealth | None) -> Gate:
    gates = gates_of([{"users": CollectionHealth(latency=each)} for each in processes])
    return next(each for each in gates if each.name == "fast enough")


QUIET: Final = ("", "")


def test_a_secondary_that_is_too_slow_for_reads_or_for_writes_closes_the_gate() -> None:
    slow, well = (times(1), times(4)), (times(1), times(2))
    for health, what in ((LatencyHealth(3, slow, well), "reads"), (LatencyHealth(3, well, slow), "writes")):
        found = gate(health)
        assert not found.ok
        assert f"too slow for {what} of users" in found.look_at
        assert "(at most 3 times)" in found.said
    assert gate(LatencyHealth(3, well, well)).ok
    assert gate(LatencyHealth(5, slow, slow)).ok
    assert gate(LatencyHealth(0, slow, slow)) == Gate("users", "fast enough", True, "switched off")


def test_too_few_operations_close_nothing_and_say_that_it_is_not_known() -> None:
    few = (times(1, ENOUGH - 1), times(900, ENOUGH - 1))
    for health in (LatencyHealth(3, few, QUIET), LatencyHealth(3, QUIET, QUIET)):
        found = gate(health)
        assert found.ok
        assert found.said.count("not known") == 2
    assert "reads: not known, 999 in the last hour (at least 1000)" in gate(LatencyHealth(3, few, QUIET)).said


def test_all_processes_count_together_and_the_strictest_limit_holds() -> None:
    half = (times(1, ENOUGH // 2), times(8, ENOUGH // 2))
    one = LatencyHealth(3, half, QUIET)
    assert gate(one).ok
    assert not gate(one, one).ok
    assert not gate(LatencyHealth(100, half, QUIET), one).ok
    assert not gate(LatencyHealth(0, half, QUIET), one).ok
    assert gate(LatencyHealth(100, half, QUIET), LatencyHealth(0, half, QUIET)).ok
    assert not gate(one, None).ok, "a process that tells nothing"


def test_the_limit_is_a_setting_of_a_collection_and_of_all() -> None:
    entries = {"users": CollectionSettings(), "orders": CollectionSettings(slower=0)}
    found = Settings(defaults=Defaults(slower=5), collections=entries)
    assert found.slower() == {"users": 5.0, "orders": 0.0}
    assert Settings(collections={"users": CollectionSettings()}).slower() == {"users": 3.0}
    with pytest.raises(ValueError, match="slower"):
        CollectionSettings(slower=-1)


# --- where the times come from ------------------------------------------------------------------------------------


class Timed:
    """The pairs of times that a pair of stores reports."""

    def __init__(self, pair: Pair) -> None:
        self.found: list[ReadTimed] = []
        self._publish: Callable[[Any], None] = pair.report.publish
        pair.report.publish = self  # type: ignore[method-assign, assignment]

    def __call__(self, event: Event) -> None:
        if isinstance(event, ReadTimed):
            self.found.append(event)
        self._publish(event)


def late(seconds: float) -> Fault:
    async def fault(call: Callable[[], Any]) -> Any:
        time.sleep(seconds)  # of the clock, and not of the loop: nothing else is in between
        return await call()

    return fault


async def test_a_shadow_read_is_timed_with_the_answer_that_the_application_got(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        timed = Timed(pair)
        await pair.things.insert_many([{"_id": n, "n": n} for n in range(5)])
        await pair.settled()
        for store, seconds in ((pair.primary, 0.02), (pair.secondary, 0.06)):
            for call in ("find_one", "find", "count"):
                store.on(call, late(seconds))
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        await pair.things.find({"n": {"$gt": 1}}).to_list(None)
        await pair.settled()
        await pair.things.count_documents({"n": 1})
        await pair.settled()
        assert [each.asked.verb for each in timed.found] == [Verb.FIND_ONE, Verb.FIND, Verb.COUNT_DOCUMENTS]
        assert all(each.primary_seconds >= 0.02 and each.secondary_seconds >= 0.06 for each in timed.found)


async def test_what_was_given_up_on_counts_and_what_failed_or_was_left_early_does_not(tmp_path: Path) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        timed = Timed(pair)
        await pair.things.insert_many([{"_id": n} for n in range(5)])
        await pair.settled()
        pair.secondary.on("find_one", lose)
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        async for _ in pair.things.find(batch_size=2):
            break
        await pair.settled()
        assert timed.found == []
        pair.secondary.on("find_one", hang)
        await pair.things.find_one({"_id": 1})
        await pair.settled()
        (found,) = timed.found
        assert found.secondary_seconds >= 0.4


async def test_of_key_reads_that_are_batched_one_is_timed_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Pair(tmp_path, phase=Phase.SHADOW) as pair:
        timed = Timed(pair)
        keys = [f"key {number}" for number in range(10)]
        await pair.things.insert_many([{"_id": key} for key in keys])
        await pair.settled()

        async def read_all() -> int:
            for key in keys:
                await pair.things.find_one({"_id": key})
            await pair.settled()
            found, timed.found[:] = len(timed.found), []
            return found

        monkeypatch.setattr(shadow_read, "TIMED_EVERY", 0.0)
        assert await read_all() == len(keys)
        assert pair.secondary.calls["images"] == 0
        monkeypatch.setattr(shadow_read, "TIMED_EVERY", 3600.0)
        assert await read_all() == 1
        assert await read_all() == 0
        assert pair.secondary.calls["images"] == 2
