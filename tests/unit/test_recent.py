"""What was compared of late: an hour and no more, and nothing from before the collection was routed as it is now."""

from __future__ import annotations

import threading

import pytest

from shadow.model.events import ComparisonFinished, RouteChanged
from shadow.model.health import RecentReads
from shadow.model.operation import Verb
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Verdict
from shadow.observe.metrics import Metrics
from shadow.observe.recent import WINDOW, Recent
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Recent:
    return Recent(now=clock)


def test_equal_excused_and_different_count_and_what_says_neither_does_not(recent: Recent) -> None:
    for verdict in Verdict:
        recent.add("users", verdict)
    assert recent.of("users") == RecentReads(3, 1, 0.0)


def test_what_is_older_than_the_window_is_forgotten(recent: Recent, clock: Clock) -> None:
    recent.add("users", Verdict.MATCH)
    clock.at += WINDOW / 2
    recent.add("users", Verdict.SHED)
    assert recent.of("users") == RecentReads(1, 1, WINDOW / 2)
    clock.at += WINDOW / 2
    assert recent.of("users") == RecentReads(0, 1, WINDOW)
    clock.at += WINDOW
    assert recent.of("users") == RecentReads(0, 0, WINDOW)


def test_a_window_holds_an_hour_of_steps_at_most(recent: Recent, clock: Clock) -> None:
    for _ in range(10_000):
        recent.add("users", Verdict.MATCH)
        clock.at += 7.0
    assert recent.of("users").compared == pytest.approx(WINDOW / 7.0, rel=0.02)
    assert len(recent._series["users"].steps) <= WINDOW / 60 + 1


def test_another_standing_begins_anew_and_the_same_one_does_not(recent: Recent, clock: Clock) -> None:
    recent.stands("users", "mongo")
    recent.add("users", Verdict.MATCH)
    recent.add("documents", Verdict.MATCH)
    clock.at += 10.0
    recent.stands("users", "mongo")
    assert recent.of("users") == RecentReads(1, 0, 10.0)
    recent.stands("users", "dynamo")
    clock.at += 1.0
    assert recent.of("users") == RecentReads(0, 0, 1.0)
    assert recent.of("documents").compared == 1


def test_a_flip_or_another_phase_makes_the_figures_of_the_gates_begin_anew() -> None:
    metrics = Metrics(["users"])
    route = Route(StoreName.MONGO, Phase.SHADOW)
    metrics.count(RouteChanged("users", route))

    def compared() -> int:
        return metrics.recent.of("users").compared

    def compare() -> None:
        metrics.count(ComparisonFinished("users", Verb.FIND_ONE, Verdict.MATCH))

    compare()
    metrics.count(ComparisonFinished("users", Verb.UPDATE_ONE, Verdict.MATCH))
    metrics.count(ComparisonFinished("unheard of", Verb.FIND_ONE, Verdict.MATCH))
    assert compared() == 1
    metrics.count(RouteChanged("users", Route(StoreName.MONGO, Phase.SHADOW, shadow_reads=0.5)))
    assert compared() == 1
    metrics.count(RouteChanged("users", Route(StoreName.DYNAMO, Phase.SHADOW)))
    assert compared() == 0
    compare()
    metrics.count(RouteChanged("users", Route(StoreName.DYNAMO, Phase.DUAL_WRITE)))
    metrics.count(RouteChanged("users", Route(StoreName.DYNAMO, Phase.SHADOW)))
    assert compared() == 0
    assert metrics.totals()["collections"]["users"]["match"] == 2


def test_threads_lose_no_count() -> None:
    recent = Recent()

    def work() -> None:
        for _ in range(2000):
            recent.add("users", Verdict.MATCH)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert recent.of("users").compared == 8000
