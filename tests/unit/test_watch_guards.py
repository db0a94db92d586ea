"""The guards of a watched flip by their figures, and what a round makes of its window."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import bson
import pytest

from shadow.control import flip_record, guard_record
from shadow.control.flip_record import Flip, FlipKind, FlipState, RouteRecord, Routing, WatchedFlip
from shadow.control.guard_record import GuardRecord, WatchState, WatchWindow, open_windows
from shadow.fleet.guards import Guard, watch_guards
from shadow.fleet.watch_window import described, judged, left_alone, not_taken_back, pruned
from shadow.model.events import CallRefused, ComparisonFinished, NoiseMeasured, OperationFinished, ReadTimed
from shadow.model.guards import GuardLimits, WatchPlan
from shadow.model.health import _SECTIONS, CollectionHealth, ComparisonHealth, GuardHealth, SecondaryHealth
from shadow.model.operation import Query, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role, StoreName
from shadow.model.reads import FindOne
from shadow.model.verdict import Verdict
from shadow.observe.metrics import Metrics

MONGO, DYNAMO = StoreName.MONGO, StoreName.DYNAMO
LIMITS: Final = GuardLimits(window=100.0, at_least=50)
WINDOW: Final = "watch f"
EPOCH: Final = 3


def traffic(metrics: Metrics, of: str = "users", **odd: int) -> None:
    """A hundred of everything after a flip of `of` to DynamoDB, well; `odd`: how many of what went otherwise."""
    count = metrics.count
    for number in range(100):

        def goes(name: str, number: int = number) -> bool:
            return number < odd.get(name, 0)

        for store, role, fails in ((DYNAMO, Role.PRIMARY, "failed"), (MONGO, Role.SECONDARY, "other_failed")):
            outcome = Outcome.UNKNOWN if goes(fails) else Outcome.ACKED
            denied = role is Role.PRIMARY and goes("denied")
            if denied or goes("refused_rightly"):
                outcome = Outcome.REFUSED
            slow = 0.05 if role is Role.PRIMARY and goes("slow_writes") else 0.002
            count(OperationFinished(of, Verb.FIND_ONE, store, role, outcome, 0.001, denied=denied))
            count(OperationFinished(of, Verb.UPDATE_ONE, store, role, Outcome.ACKED, slow))
        asked = FindOne(Query(filter={"_id": 1}, limit=1))
        count(ReadTimed(of, asked, 0.05 if goes("slow_reads") else 0.002, 0.001))
        count(ComparisonFinished(of, Verb.FIND_ONE, Verdict.MISMATCH if goes("differing") else Verdict.MATCH))
        count(NoiseMeasured(of, Verb.FIND_ONE, Verdict.MISMATCH if goes("noisy") else Verdict.MATCH))
        if goes("refused"):
            count(CallRefused(of, "$where" if number % 3 else "collation"))
        if goes("throttled"):
            metrics.throttled()


def figures(number: int = EPOCH, plan: str = WINDOW, **odd: int) -> GuardHealth:
    metrics = Metrics(["users"])
    metrics.guards.follow("users", plan=plan, number=number, seconds=1000.0)
    traffic(metrics, **odd)
    found = metrics.guards.of("users")
    assert found is not None
    return found


def health(
    found: GuardHealth | None, *, works: bool = True, planted: bool = True, undecided: bool = False, down: bool = False
) -> CollectionHealth:
    return CollectionHealth(
        secondary=SecondaryHealth((MONGO,) if down else ()),
        comparison=ComparisonHealth(planted, works, undecided),
        guards=found,
    )


def states(*each: CollectionHealth, limits: GuardLimits = LIMITS) -> dict[str, bool | None]:
    return {guard.name: guard.holds for guard in watch_guards(each, limits, epoch=EPOCH, plan=WINDOW)}


WELL: Final = dict.fromkeys(
    ("processes", "secondary", "comparison works", "mismatches", "throttled", "errors", "refused", "slower"), True
)


def test_what_goes_well_holds_in_every_guard() -> None:
    assert states(health(figures())) == WELL
    assert states(health(figures()), health(figures())) == WELL


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("mismatches", {"differing": 2}),
        ("errors", {"failed": 5}),
        ("errors", {"denied": 5}),
        ("refused", {"refused": 5}),
        ("slower", {"slow_reads": 30}),
        ("slower", {"slow_writes": 30}),
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
    assert states(health(figures(failed=10, other_failed=10))) == WELL
    assert states(health(figures(slow_reads=100)), limits=dataclasses.replace(LIMITS, slower=0.0)) == WELL


def test_what_a_statement_deserves_breaks_nothing() -> None:
    """A duplicate key, or a filter that no server takes."""
    assert states(health(figures(refused_rightly=100))) == WELL


def test_calls_that_the_new_primary_does_not_support_are_named_with_their_operators_of_all_processes() -> None:
    several = [health(figures(refused=6)), health(figures(refused=3)), health(figures())]
    (guard,) = (each for each in watch_guards(several, LIMITS, epoch=EPOCH, plan=WINDOW) if each.name == "refused")
    assert (guard.holds, guard.said) == (
        False,
        "9 of 609 calls (1.48%) are not supported, at most 1.00%: $where 6, collation 3",
    )
    assert states(*several, limits=dataclasses.replace(LIMITS, errors=0.02)) == WELL
    odd = dataclasses.replace(figures(refused=6), unsupported_for=("x $where", "$text", "2 $where"))
    assert states(health(odd))["refused"] is False, "of another version: its names are of no use, and its count is"


def test_what_mongodb_does_is_no_refused_call_of_a_flip_to_it() -> None:
    """A process that has not changed over yet refuses for DynamoDB."""
    metrics = Metrics(["users"])
    metrics.guards.follow("users", plan=WINDOW, number=EPOCH, seconds=1000.0, primary=MONGO)
    metrics.count(CallRefused("users", "$where"))
    metrics.count(CallRefused("others", "$where"))
    found = metrics.guards.of("users")
    assert found is not None
    assert (found.unsupported, found.unsupported_for) == (0, ())


def test_a_store_that_is_down_now_says_nothing_about_the_new_primary() -> None:
    """Nothing can be compared then, and the way back would end there."""
    down = health(figures(), works=False, down=True)
    assert states(down) == {**WELL, "secondary": None, "comparison works": None}
    assert states(health(figures(), works=False)) == {**WELL, "comparison works": False}
    for unknown in ({"works": False, "undecided": True}, {"works": False, "planted": False}):
        assert states(health(figures(), **unknown)) == {**WELL, "comparison works": None}


def test_unknown_is_neither_good_nor_broken() -> None:
    """Figures of another window or route, of processes that do not report them, and too little traffic."""
    none = states(health(None))
    assert none["processes"] is none["mismatches"] is none["errors"] is none["refused"] is none["slower"] is None
    bad = {"failed": 100, "refused": 100, "differing": 100, "slow_reads": 100, "slow_writes": 100}
    for other in (figures(number=2, **bad), figures(plan="watch g", **bad)):
        assert False not in states(health(other)).values()
        assert states(health(figures()), health(other)) == {**WELL, "processes": None}
    assert states()["processes"] is None
    few = dataclasses.replace(
        figures(failed=10, slow_reads=100, slow_writes=100),
        asked=48,
        unsupported=1,
        matched=49,
        paired_times=(49,),
        single_writes=(49,),
    )
    assert states(health(few)) == {**WELL, "mismatches": None, "errors": None, "refused": None, "slower": None}
    # One of reads and writes is enough.
    assert states(health(dataclasses.replace(figures(), single_writes=(), secondary_single_writes=()))) == WELL


def test_the_figures_survive_the_control_store_and_those_of_an_older_version_count_as_far_as_they_go() -> None:
    whole = health(figures(failed=3), works=False, undecided=True)
    assert CollectionHealth.of_record(whole.record()) == whole
    old = {name: each for name, each in whole.record().items() if name not in ("paired_times", "single_writes")}
    assert CollectionHealth.of_record(old).guards is not None
    assert states(CollectionHealth.of_record(old))["slower"] is None
    assert states(CollectionHealth.of_record(old), whole)["slower"] is True
    older = {name: each for name, each in whole.record().items() if not name.startswith("unsupported")}
    assert len(older) == len(whole.record()) - 2
    assert states(CollectionHealth.of_record(older), health(figures(refused=9)))["refused"] is False


def test_what_began_before_the_flip_and_ends_after_it_is_not_counted() -> None:
    metrics = Metrics(["users"])
    metrics.guards.follow("users", plan=WINDOW, number=EPOCH, seconds=1000.0, primary=DYNAMO)
    traffic(metrics)
    before = metrics.guards.of("users")
    for store, role in ((MONGO, Role.PRIMARY), (DYNAMO, Role.SECONDARY)):
        metrics.count(OperationFinished("users", Verb.UPDATE_ONE, store, role, Outcome.UNKNOWN, 9.0))
    metrics.count(ReadTimed("users", FindOne(Query(filter={"_id": 1}, limit=1)), 9.0, 9.0, MONGO))
    after = metrics.guards.of("users")
    assert before is not None
    assert after is not None
    assert dataclasses.replace(after, requests=before.requests) == before


def test_no_two_sections_have_a_field_of_the_same_name() -> None:
    """All of them are in one flat object."""
    names = [each.name for kind in _SECTIONS.values() for each in dataclasses.fields(kind)]
    assert len(names) == len(set(names))


# --- a round -----------------------------------------------------------------------------------------------------

PLAN: Final = WatchPlan(60.0, limits=LIMITS)
HOLDS, BROKEN, UNKNOWN = (Guard("errors", each, "a figure") for each in (True, False, None))
THERE, AWAY = Guard("processes", True, "2"), Guard("processes", None, "1 of 2")


def window(**changed: Any) -> WatchWindow:
    return dataclasses.replace(WatchWindow("f", DYNAMO, {"users": EPOCH, "a.b": 5}, PLAN, since=5.0), **changed)


def rounds(now: WatchWindow, *each: tuple[Guard, ...], elapsed: float = 20.0) -> tuple[WatchWindow, list[str]]:
    steps: list[str] = []
    for guards in each:
        now, moves = judged(now, {"users": [THERE, HOLDS], "a.b": guards}, elapsed, 100.0)
        steps += [move.body["step"] for move in moves]
    return now, steps


def test_a_window_in_which_every_guard_holds_ends_after_its_time_and_not_before() -> None:
    now, steps = rounds(window(), *[(THERE, HOLDS)] * 2)
    assert (now.state, now.watched, steps) == (WatchState.WATCHING, 40.0, [])
    now, steps = rounds(now, (THERE, HOLDS))
    assert (now.state, now.ended, steps) == (WatchState.HELD, 100.0, ["ended"])
    assert now.reason == "every guard held"


def test_time_in_which_a_process_is_not_heard_of_does_not_count() -> None:
    now, steps = rounds(window(), *[(AWAY, HOLDS)] * 100)
    assert (now.state, now.watched, steps) == (WatchState.WATCHING, 0.0, [])
    assert described(now, 100.0)["ends_at"] is None
    assert described(window(watched=20.0), 100.0)["ends_at"] == 140.0


def test_a_guard_that_was_never_known_is_told_at_the_end_and_one_that_was_at_some_time_counts() -> None:
    now, _ = rounds(window(), *[(THERE, UNKNOWN)] * 3)
    assert now.state is WatchState.UNPROVEN
    assert "errors of a.b" in now.reason
    now, _ = rounds(window(), (THERE, UNKNOWN), (THERE, HOLDS), (THERE, UNKNOWN))
    assert now.state is WatchState.HELD


def test_a_broken_guard_of_one_collection_takes_the_whole_flip_back_whatever_is_not_known() -> None:
    now, steps = rounds(window(), (THERE, HOLDS), (AWAY, BROKEN, UNKNOWN))
    assert (now.state, steps) == (WatchState.GOING_BACK, ["broken"])
    assert now.reason == "errors of a.b: a figure"
    assert now.figures["errors"] == "users: a figure; a.b: a figure; a.b: a figure"
    again, steps = rounds(now, *[(THERE, HOLDS)] * 100)
    assert (again, steps) == (now, []), "what is decided stays, also if the guards hold again"


def test_where_it_is_not_to_be_taken_back_each_break_is_told_once_and_the_window_goes_on() -> None:
    plan = dataclasses.replace(PLAN, take_back=False, seconds=80.0)
    now, steps = rounds(window(plan=plan), (THERE, BROKEN), (THERE, BROKEN), (THERE, HOLDS), elapsed=20.0)
    assert (now.state, steps) == (WatchState.WATCHING, ["broken"])
    now, steps = rounds(now, (THERE, BROKEN))
    assert (now.state, now.breaks, steps) == (WatchState.REPORTED, 2, ["broken"])
    assert described(now, 1.0)["open"]
    now, steps = rounds(now, (THERE, HOLDS))
    assert (now.state, steps) == (WatchState.UNPROVEN, ["ended"])
    assert "broken 2 times" in now.reason


def seen(*placed: tuple[str, StoreName, int]) -> Routing:
    return Routing({name: RouteRecord(primary, epoch) for name, primary, epoch in placed})


def test_a_window_is_over_when_all_its_collections_have_another_route() -> None:
    going = window(state=WatchState.GOING_BACK, reason="errors")
    half = seen(("users", MONGO, 4), ("a.b", DYNAMO, 5))
    assert going.left(half) == ["a.b"]
    back = seen(("users", MONGO, 4), ("a.b", MONGO, 6))
    assert going.left(back) == []
    after, moves = left_alone(going, back, 9.0)
    assert (after.state, after.reason, moves[0].body["step"]) == (WatchState.TAKEN_BACK, "errors", "taken_back")
    after, moves = left_alone(window(), back, 9.0)
    assert (after.state, moves[0].body["step"]) == (WatchState.ENDED, "ended")
    after, _ = left_alone(going, seen(("users", DYNAMO, 5), ("a.b", MONGO, 6)), 9.0)
    assert after.state is WatchState.ENDED, "somebody has flipped it there again"


def test_why_it_cannot_be_taken_back_is_told_once_whatever_its_figures() -> None:
    now, told = window(state=WatchState.GOING_BACK), 0
    for why_not in ("gate journal: 61.5 s", "gate journal: 66 s", "gate secondary: down", "gate secondary: down"):
        now, moves = not_taken_back(now, why_not)
        assert now.waits == why_not
        told += len(moves)
    assert told == 2


# --- the records -------------------------------------------------------------------------------------------------


def committed(before: Routing, id: str, to: StoreName, *names: str, watch: WatchPlan | None = PLAN) -> Routing:
    flip = Flip(id, FlipKind.FLIP, FlipState.HOLDING, dict.fromkeys(names, to), by="me", watch=watch)
    return dataclasses.replace(before, flip=flip).committed(7.0, spent=True)


def test_the_write_that_decides_a_flip_opens_its_window_and_a_later_flip_ends_it() -> None:
    now = committed(seen(("users", MONGO, 2), ("a.b", MONGO, 4), ("c", MONGO, 1)), "f", DYNAMO, "users", "a.b")
    assert now.watched == (WatchedFlip("f", DYNAMO, {"users": 3, "a.b": 5}, PLAN, 7.0, "me"),)
    assert flip_record._decoded(flip_record._encoded(now), now.revision) == now
    assert [each.flip for each in open_windows(now, GuardRecord()).values()] == ["f"]
    now = committed(now, "g", DYNAMO, "c", watch=None)
    now = committed(now, "h", MONGO, "users", watch=None)
    assert [each.flip for each in now.watched] == ["f"]
    assert now.watched[0].left(now.placed) == ["a.b"]
    now = committed(now, "i", MONGO, "a.b", watch=None)
    assert now.watched == ()
    taken = Flip("t", FlipKind.FLIP, FlipState.HOLDING, {"c": MONGO}, takes_back=True)
    placed = dataclasses.replace(now, flip=taken).committed(8.0, spent=True)
    assert flip_record._decoded(flip_record._encoded(placed), placed.revision) == placed
    assert placed.placed["c"].previous is None, "to make it again needs every gate"
    assert now.placed["a.b"].previous is DYNAMO
    rehearsed = Flip("r", FlipKind.REOPEN, FlipState.HOLDING, {"c": DYNAMO}, watch=PLAN)
    assert dataclasses.replace(now, flip=rehearsed).committed(8.0, spent=True).watched == ()


def test_a_window_that_is_over_never_begins_again_while_its_flip_is_in_force() -> None:
    now = committed(seen(("users", MONGO, 2)), "f", DYNAMO, "users")
    over = WatchWindow.of(now.watched[0])
    kept, _ = rounds(dataclasses.replace(over, epochs={"users": 3, "a.b": 5}), (THERE, BROKEN))
    written = bson.decode(bson.encode(guard_record._encoded(GuardRecord().with_watch(kept))))
    assert guard_record._decoded(written, GuardRecord().revision).watches == {"f": kept}
    record = GuardRecord().with_watch(dataclasses.replace(over, state=WatchState.HELD))
    for number in range(100):
        record = record.with_watch(
            dataclasses.replace(over, flip=f"old {number}", state=WatchState.ENDED, ended=number)
        )
    record = pruned(record, now)
    assert len(record.watches) == 21
    assert {"f", "old 99"} <= record.watches.keys()
    assert open_windows(now, record) == {}
