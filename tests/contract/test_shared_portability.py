"""What the processes of a fleet have left to MongoDB alone is one list, on every control store: it outlives them, is
not written for each request, and forgets what was not used for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadow.control import portability
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.fleet.portability import SharedPortability
from shadow.model.operation import Verb
from shadow.model.uses import Uses
from shadow.observe.portability import Portability
from tests.support.counted_records import CountedRecords
from tests.support.drawn import in_one_deployment

pytestmark = in_one_deployment("open_records")

DAY = 86_400.0


class Process:
    def __init__(self, records: Records, *, keep: float = 30 * DAY) -> None:
        self.now = 0.0
        self.records: Any = CountedRecords(records)
        self.own = Portability()
        self.shared = SharedPortability(self.own, self.records, lambda: keep, clock=lambda: self.now)

    def use(self, operator: str, times: int = 1, collection: str = "things", verb: Verb = Verb.FIND) -> None:
        for _ in range(times):
            self.own.add(collection, verb, operator)

    def counts(self, collection: str = "things") -> dict[str, int]:
        shown = self.own.status({collection: ("collation",)}).get(collection, {"operators": {}})
        return {name: each["count"] for name, each in shown["operators"].items()}


async def test_what_one_process_used_all_of_them_know_also_after_its_end(open_records: Callable[[], Records]) -> None:
    first, second = Process(open_records()), Process(open_records())
    assert not second.own.known
    first.use("$where", 3)
    first.use("$where", 2, verb=Verb.COUNT_DOCUMENTS)
    second.use("collation", 2)
    second.use("$text", collection="a.b/ä" * 40)
    for process in (first, second, first):
        await process.shared.exchange()
    later = Process(open_records())
    await later.shared.exchange()
    for process in (first, second, later):
        assert process.own.known
        assert process.counts() == {"$where": 5, "collation": 2}
        assert process.counts("a.b/ä" * 40) == {"$text": 1}
        shown = process.own.status({"things": ("collation",)})["things"]
        assert shown["operators"]["$where"]["verbs"] == {"find": 3, "count_documents": 2}
        assert shown["not_accepted"] == ["$where"]
    # What is no longer configured closes no gate.
    assert later.own.status({"others": ()}) == {}


async def test_processes_that_write_at_once_lose_nothing(open_records: Callable[[], Records]) -> None:
    fleet = [Process(open_records()) for _ in range(4)]

    def work(place: int) -> None:
        for turn in range(5):
            fleet[place].use("$where", 2)
            fleet[place].use(f"own{place}-{turn}")  # each new name is written at once
            fleet[place].shared._exchange(ending=False)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    found = portability.listed(open_records(), now=time.time(), keep=DAY)["things"]
    assert found["$where"].count == 40
    assert len(found) == 21


async def test_a_name_is_written_at_once_and_counts_once_a_minute(open_records: Callable[[], Records]) -> None:
    process, other = Process(open_records()), Process(open_records())
    puts = process.records.calls
    process.use("$where", 1000)
    await process.shared.exchange()
    assert puts["put"] == 1
    for _ in range(10):
        process.now += 5.0
        process.use("$where", 10)
        await process.shared.exchange()
    assert (puts["put"], process.counts()) == (1, {"$where": 1100})
    await other.shared.exchange()
    assert other.counts() == {"$where": 1000}
    process.now += 10.0
    await process.shared.exchange()
    await other.shared.exchange()
    assert (puts["put"], other.counts()) == (2, {"$where": 1100})
    process.use("$where")
    await process.shared.exchange(ending=True)
    await other.shared.exchange()
    assert other.counts() == process.counts() == {"$where": 1101}
    assert other.records.calls["put"] == 0


async def test_what_a_control_store_did_not_take_comes_later(open_records: Callable[[], Records]) -> None:
    process = Process(open_records())
    process.records.down = True
    process.use("$where", 2)
    process.use("$text", collection="others")
    for _ in range(2):
        with pytest.raises(ControlError):
            await process.shared.exchange()
        assert process.counts() == {"$where": 2}
        assert not process.own.known
    process.records.down = False
    process.use("$where")
    await process.shared.exchange()
    found = portability.listed(open_records(), now=time.time(), keep=DAY)
    assert {name: {op: uses.count for op, uses in each.items()} for name, each in found.items()} == {
        "things": {"$where": 3},
        "others": {"$text": 1},
    }


async def test_what_was_not_used_for_long_is_forgotten_and_the_rest_by_command(
    open_records: Callable[[], Records],
) -> None:
    records, now = open_records(), time.time()
    old, new = Uses(now - 90 * DAY, now - 31 * DAY, {"find": 9}), Uses(now - 90 * DAY, now - DAY, {"find": 1})
    portability.note(records, "things", {"$where": old, "$text": new, "collation": new}, now=now - 31 * DAY, keep=DAY)
    process = Process(records)
    await process.shared.exchange()
    assert process.counts() == {"$text": 1, "collation": 1}
    # It is used again: counted from then on.
    process.use("$where")
    await process.shared.exchange()
    assert process.counts() == {"$text": 1, "$where": 1, "collation": 1}
    assert portability.forget(records, "things", "$text") == ["$text"]
    assert portability.forget(records, "things", "$text") == []
    await process.shared.exchange()
    assert process.counts() == {"$where": 1, "collation": 1}
    assert portability.forget(records, "things") == ["$where", "collation"]
    assert portability.forget(records, "nothing") == []
    await process.shared.exchange()
    assert process.counts() == {}


async def test_a_record_keeps_the_names_that_were_used_last(open_records: Callable[[], Records]) -> None:
    records, now = open_records(), time.time()
    found = {f"${number}": Uses(now - number, now - number, {"find": 1}) for number in range(600)}
    portability.note(records, "things", found, now=now, keep=DAY)
    assert set(portability.listed(records, now=now, keep=DAY)["things"]) == {f"${number}" for number in range(500)}
