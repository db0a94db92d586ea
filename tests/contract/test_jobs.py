"""Jobs in every control store: who works on which range, what counts, and what becomes of it when somebody dies."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from shadow.control import receipts
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.host.process import Owner, this_process
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import SILENT, Jobs, RangeClaim, reasons_of
from shadow.jobs.target import JobRefused

pytestmark = [
    pytest.mark.parametrize("open_records", ["sqlite", "mongo", "dynamo-local"], indirect=True),
    pytest.mark.drawn_over(
        "open_records", reason="whatever test_control_store holds a control store to is all it uses"
    ),
]

Open = Callable[[], Records]
ELSEWHERE = Owner("another-host/boot/pid:[1]", 7, 1.0)
"""A process of which this host can never know whether it lives."""


class Hand:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def jobs(open_records: Open) -> Jobs:
    return Jobs(open_records())


def begun(jobs: Jobs, *, ranges: int = 3, kind: str = "backfill", collection: str = "things", **more: Any) -> int:
    job = jobs.begin(kind, collection, "mark", {"full": True}, **more)
    jobs.create_ranges(job, [{"from": number} for number in range(ranges)], 100 * ranges)
    return job


def claimed(jobs: Jobs, job: int, owner: Owner | None = None, part: str = "part") -> RangeClaim:
    claim = jobs.claim(job, part, owner or this_process())
    assert claim is not None
    return claim


def issues_of(jobs: Jobs, job: int) -> dict[Any, str]:
    return {each.key: each.kind for page in jobs.issues(job) for each in page}


def test_a_job_that_has_not_ended_is_gone_on_with_by_whoever_comes(jobs: Jobs, open_records: Open) -> None:
    job = begun(jobs)
    jobs.stop(job)
    other = Jobs(open_records())
    assert other.begin("backfill", "things", "mark", {"full": True}) == job
    assert not jobs.job(job).stopping, "whoever goes on with it wants it to go on"
    assert other.begin("verify", "things", "mark", {}) != job
    assert other.begin("backfill", "others", "mark", {}) != job


def test_a_job_of_another_configuration_is_refused_until_it_is_given_up(jobs: Jobs) -> None:
    job = begun(jobs)
    with pytest.raises(JobRefused, match="configuration and the options changed since"):
        jobs.begin("backfill", "things", "another", {"full": False})
    again = jobs.begin("backfill", "things", "another", {"full": False}, restart=True)
    assert (jobs.job(job).outcome, jobs.job(again).finished) == ("abandoned", None)
    assert jobs.begin("backfill", "things", "another", {"full": False}) == again


def test_those_that_begin_at_once_have_one_job_with_one_cut(open_records: Open) -> None:
    """Each would cut otherwise: ranges of two cuts side by side would leave gaps."""
    several = [Jobs(open_records()) for _ in range(4)]
    start = threading.Barrier(len(several))

    def begin(number: int) -> int:
        start.wait()
        return begun(several[number], ranges=number + 2)

    with ThreadPoolExecutor(len(several)) as pool:
        (job,) = set(pool.map(begin, range(len(several))))
    found = several[0].job(job)
    assert found.total == 100 * found.ranges
    claims = [claimed(several[0], job) for _ in range(found.ranges)]
    assert sorted(each.range["from"] for each in claims) == list(range(found.ranges))
    assert several[0].claim(job, "part", this_process()) is None


def test_of_two_claimers_one_has_the_range(open_records: Open) -> None:
    several = [Jobs(open_records()) for _ in range(4)]
    job = begun(several[0], ranges=12)
    start = threading.Barrier(len(several))

    def take_all(jobs: Jobs) -> list[int]:
        start.wait()
        taken = []
        while (claim := jobs.claim(job, "part", this_process())) is not None:
            taken.append(claim.range["from"])
        return taken

    with ThreadPoolExecutor(len(several)) as pool:
        taken = [each for some in pool.map(take_all, several) for each in some]
    assert set(taken) == set(range(12))
    # A claimer that lost a race goes to the next free range; one that lost all is told that there is none now.
    assert len(taken) == 12


def test_a_job_goes_on_where_its_checkpoints_are(jobs: Jobs, open_records: Open) -> None:
    job = begun(jobs, ranges=1)
    claim = claimed(jobs, job)
    assert jobs.advance(claim, {"after": 10}, {"seen": 10, "copied": 9}, [])
    assert jobs.advance(claim, {"after": 20}, {"seen": 10, "copied": 10}, [])
    assert jobs.release(claim)
    again = claimed(Jobs(open_records()), job)
    assert again.cursor == {"after": 20}
    assert jobs.advance(again, {"after": 25}, {"seen": 5}, [])
    assert jobs.complete(again)
    found = jobs.job(job)
    assert (found.counts, found.ranges_done, found.done) == ({"seen": 25, "copied": 19}, 1, True)


def test_a_late_workers_checkpoint_is_refused_and_its_issues_with_it(jobs: Jobs, open_records: Open) -> None:
    """Unless the worker that has the range now came upon the same."""
    hand = Hand(0.0)
    other = Jobs(open_records(), clock=hand)
    job = begun(jobs, ranges=1)
    late = claimed(jobs, job, ELSEWHERE)
    assert other.claim(job, "other", this_process()) is None
    hand.now += SILENT
    now = claimed(other, job)
    assert other.advance(now, {"after": 1}, {"seen": 1}, [Issue(1, "missing")])
    assert not jobs.advance(late, {"after": 9}, {"seen": 9}, [Issue(1, "missing"), Issue(2, "missing")])
    assert not jobs.complete(late)
    assert not jobs.release(late)
    assert not jobs.beat(late)
    assert other.advance(now, {"after": 2}, {"seen": 1}, []), "the late one has not disturbed it"
    found = jobs.job(job)
    assert (found.counts, found.issues, found.ranges_done) == ({"seen": 2}, {"missing": 1}, 0)
    assert issues_of(jobs, job) in ({1: "missing"}, {}), "what is not counted is not there"


def test_a_range_of_a_dead_process_of_this_host_is_free_at_once(jobs: Jobs) -> None:
    own = this_process()
    job = begun(jobs, ranges=1)
    dead = claimed(jobs, job, Owner(own.place, own.pid, own.started - 1000))
    assert jobs.advance(dead, {"after": 5}, {"seen": 5}, [])
    assert jobs.job(job).parts == 0
    assert claimed(jobs, job).cursor == {"after": 5}


def test_a_range_of_another_host_is_free_when_it_stands_still_by_ones_own_clock(open_records: Open) -> None:
    """The other host's clock is hours off, one way or the other; what counts is that nothing changes."""
    hand = Hand(0.0)
    mine = Jobs(open_records(), clock=hand)
    for off in (-7200.0, 7200.0):
        theirs = Jobs(open_records(), now=Hand(1_000_000.0 + off))
        job = begun(mine, ranges=1, restart=True)
        claim = claimed(theirs, job, ELSEWHERE)
        for _ in range(4):
            assert mine.claim(job, "mine", this_process()) is None
            hand.now += SILENT - 1
            assert theirs.beat(claim)
        assert mine.claim(job, "mine", this_process()) is None
        hand.now += SILENT
        assert claimed(mine, job).range == {"from": 0}


class LosesAnswers:
    """A control store whose writes are done, and whose answer is lost, once each time it is told to."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.losing = False

    def put(self, key: str, value: Mapping[str, Any], *, expected: str | None = None) -> str | None:
        revision = self._records.put(key, value, expected=expected)
        if self.losing:
            self.losing = False
            raise ControlError("the answer was lost")
        return revision

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)


def test_a_checkpoint_whose_answer_was_lost_counts_once(open_records: Open) -> None:
    records = LosesAnswers(open_records())
    jobs = Jobs(records)  # type: ignore[arg-type]
    job = begun(jobs, ranges=1)
    claim = claimed(jobs, job)
    for place in range(3):
        records.losing = True
        with pytest.raises(ControlError):
            jobs.advance(claim, {"after": place}, {"seen": 1}, [Issue(place, "failed", "X")])
        assert jobs.advance(claim, {"after": place}, {"seen": 1}, [Issue(place, "failed", "X")])
    records.losing = True
    with pytest.raises(ControlError):
        jobs.complete(claim)
    jobs.complete(claim)
    found = jobs.job(job)
    assert (found.counts, found.issues, found.done) == ({"seen": 3}, {"failed": 3}, True)


def test_a_batch_costs_one_write_and_its_issues_no_scan(open_records: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    records = open_records()
    jobs = Jobs(records)
    claim = claimed(jobs, begun(jobs))
    asked: Counter[str] = Counter()

    def count(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        asked[name] += 1
        return real(*arguments, **options)

    for name in ("get", "scan", "put", "put_many", "delete"):
        monkeypatch.setattr(records, name, partial(count, name, getattr(records, name)))
    assert jobs.advance(claim, {"after": 1}, {"seen": 100}, [Issue(number, "failed", "X") for number in range(50)])
    assert asked == {"put_many": 1, "put": 1}
    assert jobs.advance(claim, {"after": 2}, {"seen": 100}, [])
    assert asked == {"put_many": 1, "put": 2}


def test_issues_are_counted_by_kind_and_reason_each_key_once_in_the_end(jobs: Jobs) -> None:
    job = begun(jobs, ranges=2, kind="verify")
    one, two = claimed(jobs, job), claimed(jobs, job)
    assert jobs.advance(one, {}, {}, [Issue(1, "different", "value"), Issue(2, "failed", "A"), Issue(3, "failed", "B")])
    # The other direction comes upon the first key as well.
    assert jobs.advance(two, {}, {}, [Issue(1, "different", "value"), Issue(4, "failed", "B")])
    assert jobs.count_issues(job).issues == {"different": 1, "failed": 3}
    assert reasons_of(jobs.job(job)) == {"failed: B": 2, "different: value": 1, "failed: A": 1}
    before = jobs.job(job).counts
    jobs.tried_again(job, [1, 2, 3], {"copied": 2}, [Issue(3, "failed", "C")])
    jobs.tried_again(job, [3], {}, [Issue(3, "failed", "C")])
    assert jobs.job(job).counts == {**before, "copied": before.get("copied", 0) + 2}
    assert reasons_of(jobs.count_issues(job)) == {"failed: C": 1, "failed: B": 1}
    jobs.finish(job, "different")
    jobs.finish(job, "equal")
    found = jobs.job(job)
    assert (found.outcome, found.issues) == ("different", {"failed": 2}), "a job ends once"


def test_issues_come_back_whole_some_at_a_time(jobs: Jobs) -> None:
    job = begun(jobs)
    claim = claimed(jobs, job)
    keys: list[Any] = [*range(600), *(f"k{number}" for number in range(600)), {"a": 1}]
    made = [Issue(key, "missing", "missing", '{"b": "x"}', "null") for key in keys]
    assert jobs.advance(claim, {}, {}, made)
    pages = list(jobs.issues(job))
    assert len(pages) > 1
    assert sorted((each for page in pages for each in page), key=repr) == sorted(made, key=repr)


def test_the_rate_and_the_end_reach_every_process(jobs: Jobs, open_records: Open) -> None:
    job, other = begun(jobs), Jobs(open_records())
    claims = [claimed(jobs, job, part="a"), claimed(jobs, job, part="a"), claimed(other, job, ELSEWHERE, "b")]
    other.set_rate(job, 500.0)
    other.stop(job)
    found = jobs.job(job)
    assert (found.rate, found.stopping, found.parts) == (500.0, True, 2)
    assert jobs.complete(claims[0])
    assert jobs.release(claims[1])
    assert jobs.job(job).parts == 1
    for ask in (lambda: jobs.job(99), lambda: jobs.set_rate(99, 1.0), lambda: jobs.stop(99)):
        with pytest.raises(JobRefused, match="no job 99"):
            ask()


def test_of_older_jobs_the_figures_stay(jobs: Jobs, open_records: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadow.jobs.jobs._KEPT", 3)
    made = []
    for turn in range(5):
        job = begun(jobs, ranges=1, kind="verify")
        claim = claimed(jobs, job)
        assert jobs.advance(claim, {}, {"seen": turn}, [Issue(turn, "missing")])
        jobs.complete(claim)
        jobs.finish(job, "different")
        made.append(job)
    begun(jobs, kind="backfill")
    found = Jobs(open_records()).jobs(kind="verify", collection="things")
    assert [job.id for job in found] == made[:1:-1], "the newest first, and only so many"
    assert [(job.counts["seen"], job.issues) for job in found] == [(turn, {"missing": 1}) for turn in (4, 3, 2)]
    assert issues_of(jobs, made[-1]) == {4: "missing"}
    assert issues_of(jobs, made[-2]) == {}
    assert [job.kind for job in jobs.jobs(limit=2)] == ["backfill", "verify"]


def test_receipts_are_numbered_and_come_newest_first(open_records: Open) -> None:
    several = [open_records() for _ in range(3)]
    assert receipts.listed(several[0]) == []

    def keep(number: int) -> int:
        kind = "flip" if number % 2 else "repair"
        return receipts.file(several[number % 3], kind, {"n": number, "who": os, "id": "mine"}, at=float(number))

    with ThreadPoolExecutor(3) as pool:
        numbers = list(pool.map(keep, range(12)))
    assert sorted(numbers) == list(range(1, 13)), "each has a number of its own"
    found = receipts.listed(several[0])
    assert [each["id"] for each in found] == list(range(12, 0, -1))
    assert {each["id"]: each["n"] for each in found} == dict(zip(numbers, range(12), strict=True))
    flips = receipts.listed(several[0], "flip", limit=4)
    assert [each["id"] for each in flips] == [each["id"] for each in found if each["kind"] == "flip"][:4]
    assert all(each["at"] == each["n"] for each in flips)
