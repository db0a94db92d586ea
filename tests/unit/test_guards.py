"""The guards of a ramp by their figures, and what a round makes of them: on while all hold, back when one breaks."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from shadow.control.guard_record import Ramp, RampState
from shadow.fleet.guards import Guard, ramp_guards
from shadow.fleet.ramp import decided, described
from shadow.model.events import ComparisonFinished, NoiseMeasured, OperationFinished, ReadRouted, RequestThrottled
from shadow.model.guards import BOUNDS, GuardLimits, RampBack, RampPlan, bucket_of, quantile
from shadow.model.health import CollectionHealth, ComparisonHealth, GuardHealth, SecondaryHealth
from shadow.model.operation import Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.verdict import Routed, Verdict
from shadow.observe.guard_windows import GuardWindows
from shadow.observe.metrics import Metrics
from tests.support.cases import each_of
from tests.support.clock import Clock

LIMITS = GuardLimits(window=100.0)
PLAN = RampPlan((0.01, 0.05, 0.5), every=60.0, limits=LIMITS)
MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO


def traffic(metrics: Metrics, **odd: int) -> None:
    """A hundred of everything, well; `odd`: how many of what went otherwise."""
    count = metrics.count
    late = odd.get("late", 0)
    for number in range(100):
        failed = number < odd.get("failed", 0)
        count(ReadRouted("users", MONGO if failed else DYNAMO, Routed.ERROR if failed else Routed.SHARE, 0.002))
        slow = 0.05 if number < odd.get("slow", 0) else 0.0012
        count(
            ReadRouted(
                "users", MONGO if late > number else DYNAMO, Routed.SLOW if late > number else Routed.SHARE, slow
            )
        )
        lost = number < odd.get("primary_failed", 0)
        outcome = Outcome.UNKNOWN if lost else Outcome.ACKED
        count(OperationFinished("users", Verb.FIND_ONE, MONGO, Role.PRIMARY, outcome, 0.001))
        count(OperationFinished("users", Verb.FIND_ONE, DYNAMO, Role.SECONDARY, Outcome.ACKED, 0.001))
        differs = number < odd.get("differing", 0)
        count(ComparisonFinished("users", Verb.FIND_ONE, Verdict.MISMATCH if differs else Verdict.MATCH))
        noisy = number < odd.get("noisy", 0)
        count(NoiseMeasured("users", Verb.FIND_ONE, Verdict.MISMATCH if noisy else Verdict.MATCH))
        if number < odd.get("throttled", 0):
            metrics.throttled()


def health(figures: GuardHealth | None, *, works: bool = True, planted: bool = True, down: bool = False) -> Any:
    return CollectionHealth(
        secondary=SecondaryHealth((DYNAMO,) if down else ()),
        comparison=ComparisonHealth(planted, works),
        guards=figures,
    )


def figures(number: int = 3, plan: RampPlan = PLAN, **odd: int) -> GuardHealth:
    metrics = Metrics(["users"])
    metrics.guards.follow("users", plan=plan.text, number=number, seconds=1000.0)
    traffic(metrics, **odd)
    found = metrics.guards.of("users")
    assert found is not None
    return found


def states(*each: CollectionHealth, share: float = 0.05, number: int = 3) -> dict[str, bool | None]:
    guards = ramp_guards(each, LIMITS, share=share, number=number, plan=PLAN.text)
    return {guard.name: guard.holds for guard in guards}


WELL = dict.fromkeys(
    ("processes", "secondary", "comparison works", "mismatches", "throttled", "errors", "slower"), True
)


def test_what_goes_well_holds_in_every_guard() -> None:
    assert states(health(figures())) == WELL
    assert states(health(figures()), health(figures())) == WELL
    assert states(health(figures()), share=0.0) == {name: True for name in WELL if name not in ("errors", "slower")}, (
        "nothing is routed yet"
    )


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("mismatches", {"differing": 2}),
        ("errors", {"failed": 5}),
        ("errors", {"late": 5}),
        ("slower", {"slow": 30}),
        ("throttled", {"throttled": 5}),
    ],
)
def test_each_guard_breaks_by_its_own_figure_alone_and_a_process_that_goes_well_does_not_hide_it(
    name: str, odd: dict[str, int]
) -> None:
    bad = figures(**odd)
    assert states(health(bad)) == {**WELL, name: False}
    assert states(health(bad), health(figures())) == {**WELL, name: False}


def test_a_figure_is_measured_against_the_other_store_and_the_noise() -> None:
    assert states(health(figures(differing=2, noisy=3))) == WELL
    assert states(health(figures(failed=5, primary_failed=6))) == WELL


def test_working_comparison_and_secondary_that_is_up_are_guards_too() -> None:
    assert states(health(figures(), works=False)) == {**WELL, "comparison works": False}
    assert states(health(figures(), planted=False)) == {**WELL, "comparison works": None}
    assert states(health(figures()), health(figures(), down=True)) == {**WELL, "secondary": False}


def test_unknown_is_neither_good_nor_broken() -> None:
    """Old figures, other plans, silent processes and too little traffic."""
    assert states()["processes"] is None
    assert states(health(figures()), health(figures(number=2)))["processes"] is None
    assert states(health(figures()), health(None))["processes"] is None
    assert states(health(figures(), works=True), CollectionHealth())["comparison works"] is None
    other = dataclasses.replace(PLAN, every=61.0)
    assert states(health(figures()), health(figures(plan=other)))["processes"] is None
    empty = dataclasses.replace(
        figures(), matched=19, routed=19, asked=19, routed_times=(19,), primary_times=(19,), secondary_times=(19,)
    )
    unknown = {"mismatches": None, "errors": None, "slower": None}
    assert states(health(empty)) == {**WELL, **unknown}
    # Figures of a step that is over prove nothing, however bad they are.
    assert states(health(figures(number=2, failed=100, differing=100)))["errors"] is None


def test_few_comparisons_prove_nothing_good_but_two_differences_are_enough() -> None:
    assert states(health(dataclasses.replace(figures(), matched=3, differing=1)))["mismatches"] is None
    assert states(health(dataclasses.replace(figures(), matched=3, differing=2)))["mismatches"] is False


def test_the_figures_survive_the_control_store() -> None:
    whole = health(figures(failed=3))
    assert CollectionHealth.of_record(whole.record()) == whole
    assert CollectionHealth.of_record({**whole.record(), "routed_times": "many"}).guards is None


def test_a_window_counts_what_is_young_and_begins_with_each_step() -> None:
    clock = Clock()
    windows = GuardWindows(now=clock)
    read = ReadRouted("users", DYNAMO, Routed.SHARE, 0.001)
    routed = windows.handlers()[ReadRouted]
    routed(read)
    assert windows.of("users") is None
    windows.follow("users", plan="p", number=1, seconds=100.0)
    for _ in range(20):
        routed(read)
        clock.at += 10
    assert 9 <= windows.of("users").routed <= 10  # type: ignore[union-attr]
    windows.follow("users", plan="p", number=1, seconds=100.0)
    assert windows.of("users").routed  # type: ignore[union-attr]
    windows.follow("users", plan="p", number=2, seconds=100.0)
    assert windows.of("users").routed == 0  # type: ignore[union-attr]
    for reason in Routed:
        routed(ReadRouted("users", MONGO, reason))
    found = windows.of("users")
    assert found is not None
    assert (found.routed, found.routed_failed) == (4, 3), "share, slow, down, error; the others say nothing"
    windows.handlers()[RequestThrottled](RequestThrottled())
    windows.drop("users")
    assert windows.of("users") is None


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    assert quantile(tuple(counts), 0.95) == 0.0
    for seconds in (0.0001, 0.001, 0.02, 100.0):
        counts[bucket_of(seconds)] += 25
    assert quantile(tuple(counts), 0.25) == BOUNDS[0]
    assert 0.02 <= quantile(tuple(counts), 0.75) <= 0.02 * 1.25
    assert quantile(tuple(counts), 0.95) == BOUNDS[-1], "beyond the last bound"
    assert all(low < high for low, high in itertools.pairwise(BOUNDS))


# --- a round -----------------------------------------------------------------------------------------------------


def ramp(share: float = 0.05, **changed: Any) -> Ramp:
    return dataclasses.replace(Ramp("users", DYNAMO, share, 3, since=5.0), **changed)


HOLDS, BROKEN, UNKNOWN = (Guard("errors", each, "a figure") for each in (True, False, None))


def test_a_ramp_steps_on_when_the_guards_have_held_for_its_time_and_not_before() -> None:
    now, moves = ramp(0.0, number=0), []
    for _ in range(20):
        now, move = decided(now, PLAN, [HOLDS], 20.0, 100.0)
        if move is not None:
            moves.append(tuple(move.body[each] for each in ("share_before", "share", "guards_held_seconds")))
    assert moves == [(0.0, 0.01, 20.0), (0.01, 0.05, 60.0), (0.05, 0.5, 60.0)]
    assert (now.state, now.number) == (RampState.DONE, 3)


def test_time_that_nobody_vouches_for_does_not_count() -> None:
    now = ramp()
    for guards, elapsed in [([HOLDS], 30.0), ([UNKNOWN], 1000.0), ([HOLDS], 0.0), ([HOLDS, UNKNOWN], 1000.0)]:
        now, move = decided(now, PLAN, guards, elapsed, 100.0)
        assert move is None
    assert now.held == 30.0
    assert "errors: a figure" in now.waits
    now, move = decided(now, PLAN, [HOLDS], 30.0, 100.0)
    assert move is not None
    assert now.share == 0.5


@each_of(("back", "share"), [(RampBack.ZERO, 0.0), (RampBack.STEP, 0.01)])
@each_of("state", list(RampState))
def test_a_broken_guard_takes_it_back_and_stops_it_whatever_its_state(
    back: RampBack, share: float, state: RampState
) -> None:
    plan = dataclasses.replace(PLAN, back=back)
    now, move = decided(ramp(state=state, held=59.0), plan, [HOLDS, BROKEN, UNKNOWN], 30.0, 100.0)
    assert move is not None
    assert (now.share, now.state, now.number, now.held) == (share, RampState.STOPPED, 4, 0.0)
    assert move.body["back"]
    assert move.body["guards"] == {"errors": "a figure"}
    assert "errors: a figure" in now.waits
    again, more = decided(now, plan, [HOLDS], 1000.0, 200.0)
    assert more is None, "it stays until it is resumed"
    assert again == now


def test_a_broken_guard_at_the_start_keeps_it_there_and_it_begins_once_the_guard_holds() -> None:
    now, move = decided(ramp(0.0), PLAN, [BROKEN], 60.0, 100.0)
    assert move is None
    assert (now.share, now.state) == (0.0, RampState.RAMPING)
    now, move = decided(now, PLAN, [HOLDS], 1.0, 100.0)
    assert move is not None
    assert now.share == 0.01


def test_another_plan_in_the_file_never_raises_the_share_at_once() -> None:
    higher = dataclasses.replace(PLAN, steps=(0.02, 0.3, 0.9))
    now, move = decided(ramp(0.5, state=RampState.DONE), higher, [HOLDS], 10.0, 100.0)
    assert move is None
    assert (now.share, now.state) == (0.5, RampState.RAMPING)
    lower = dataclasses.replace(PLAN, steps=(0.01, 0.2))
    now, move = decided(ramp(0.5), lower, [UNKNOWN], 10.0, 100.0)
    assert move is not None
    assert now.share == 0.2


def test_people_see_the_next_step_and_its_time() -> None:
    shown = described(ramp(held=20.0), PLAN, 1000.0)
    assert (shown["next_share"], shown["next_at"]) == (0.5, 1040.0)
    assert described(ramp(waits="errors"), PLAN, 1000.0)["next_at"] is None
    assert described(ramp(0.5, state=RampState.DONE), PLAN, 1000.0)["next_share"] is None
    assert described(ramp(state=RampState.STOPPED), PLAN, 1000.0)["next_share"] is None
    assert described(ramp(), None, 1000.0)["next_at"] is None
