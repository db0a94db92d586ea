"""What the processes have compared, by hour, on every control store: nothing counts twice, and old hours go."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from shadow.control.history import DAYS, compared_by_hour, forget_before, note
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.fleet.history import SharedHistory
from shadow.model.compared import Compared
from shadow.model.events import ComparisonFinished, NoiseMeasured, RuleApplied
from shadow.model.operation import Verb
from shadow.model.verdict import Verdict
from shadow.observe.history import HOUR, History
from tests.support.counted_records import CountedRecords
from tests.support.drawn import in_one_deployment

pytestmark = in_one_deployment("open_records")

NAME = "a.b/ä$" * 30


class Process:
    def __init__(self, records: Records) -> None:
        self.hour = 1000
        self.records: Any = CountedRecords(records)
        self.own = History(now=lambda: self.hour * HOUR + 1.0)
        self.shared = SharedHistory(self.own, self.records)

    def compare(self, verdict: Verdict, count: int = 1, name: str = NAME) -> None:
        self.own.handlers()[ComparisonFinished](ComparisonFinished(name, Verb.FIND_ONE, verdict, count))

    async def write(self) -> None:
        await self.shared.exchange(ending=True)


async def test_the_counts_of_all_processes_are_one_sum_by_hour(open_records: Callable[[], Records]) -> None:
    first, second, records = Process(open_records()), Process(open_records()), open_records()
    first.compare(Verdict.MATCH, 5)
    second.compare(Verdict.MISMATCH)
    await first.write()
    await second.write()
    await first.write()
    first.compare(Verdict.EXCUSED, 2)
    for handle, event in (
        (RuleApplied, RuleApplied(NAME, "clock")),
        (NoiseMeasured, NoiseMeasured(NAME, Verb.FIND_ONE, Verdict.MATCH)),
        (NoiseMeasured, NoiseMeasured(NAME, Verb.FIND_ONE, Verdict.MISMATCH)),
    ):
        first.own.handlers()[handle](event)
    first.compare(Verdict.SHED, name="other")
    await first.write()
    await first.write()
    first.hour += 1
    first.compare(Verdict.MATCH)
    await first.write()
    found = compared_by_hour(records, NAME, 0)
    assert found == {
        1000: Compared({"match": 5, "excused": 2, "mismatch": 1}, {"clock": 1}, {"match": 1, "mismatch": 1}),
        1001: Compared({"match": 1}),
    }
    assert (found[1000].decided, found[1000].differing, found[1000].measured, found[1000].noisy) == (8, 1, 2, 1)
    assert compared_by_hour(records, NAME, 1001).keys() == {1001}
    assert compared_by_hour(records, "other", 0) == {1000: Compared({"shed": 1})}


async def test_what_could_not_be_written_is_written_later_and_once(open_records: Callable[[], Records]) -> None:
    process, records = Process(open_records()), open_records()
    process.compare(Verdict.MATCH, 3)
    process.records.down = True
    with pytest.raises(ControlError):
        await process.write()
    process.hour += 1
    process.compare(Verdict.MISMATCH)
    process.records.down = False
    await process.write()
    await process.write()
    assert compared_by_hour(records, NAME, 0) == {1000: Compared({"match": 3}), 1001: Compared({"mismatch": 1})}


async def test_a_process_writes_every_few_minutes_and_not_for_each_comparison(
    open_records: Callable[[], Records],
) -> None:
    now, records = 0.0, open_records()
    own = History(now=lambda: 1000.0 * HOUR)
    shared = SharedHistory(own, records, clock=lambda: now)
    own.handlers()[ComparisonFinished](ComparisonFinished(NAME, Verb.FIND_ONE, Verdict.MATCH))
    await shared.exchange()
    assert compared_by_hour(records, NAME, 0) == {}
    now = 301.0
    await shared.exchange()
    assert compared_by_hour(records, NAME, 0).keys() == {1000}


async def test_hours_are_kept_for_some_days(open_records: Callable[[], Records]) -> None:
    records, this = open_records(), int(time.time()) // HOUR
    for hour in (3, this - DAYS * 24 - 1, this - DAYS * 24, this):
        note(records, "writer", hour, {NAME: Compared({"match": 1})})
    process = Process(records)
    process.hour = this
    process.compare(Verdict.MATCH)
    await process.write()
    assert compared_by_hour(records, NAME, 0).keys() == {this - DAYS * 24, this}
    assert forget_before(records, this) == 1


async def test_a_forked_process_does_not_write_the_counts_of_its_parent(
    open_records: Callable[[], Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = open_records()
    process = Process(records)
    process.compare(Verdict.MATCH, 7)
    await process.write()
    process.compare(Verdict.MATCH, 7)
    process.own._lock.acquire()  # as by a thread of the parent, which the child does not have
    monkeypatch.setattr(os, "getpid", lambda: 1)
    process.compare(Verdict.MISMATCH)
    await process.write()
    assert compared_by_hour(records, NAME, 0) == {1000: Compared({"match": 7, "mismatch": 1})}
