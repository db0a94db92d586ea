"""What the process that decides makes of the watch window of a flip. No I/O, and no clock of its own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shadow.control.flip_record import Routing
from shadow.control.guard_record import GuardRecord, Move, WatchState, WatchWindow, open_windows
from shadow.fleet.guards import Guard

__all__ = [
    "WATCH",
    "described",
    "ended",
    "judged",
    "left_alone",
    "listed",
    "not_taken_back",
    "opened",
    "pruned",
]

WATCH: Final = "watch"
"""The kind of the receipts of a watch window."""
_PROCESSES: Final = "processes"
"""The guard without which time does not count as watched."""
_FIGURES: Final = re.compile(r"\d[\d.]*")
_KEPT: Final = 20
"""Windows that are over, of flips that are not in force any more, for people."""

Guards = Mapping[str, Sequence[Guard]]
"""By collection."""


def opened(window: WatchWindow) -> Move:
    """That the window of a flip is seen for the first time."""
    return _move(window, "opened")


def judged(window: WatchWindow, guards: Guards, elapsed: float, now: float) -> tuple[WatchWindow, list[Move]]:
    """A window that is not over after one round, and what happened to it. `elapsed`: seconds since the last round, 0
    where they were not watched; `now`: epoch seconds, for people."""
    if window.state is WatchState.GOING_BACK:
        return window, []
    broken, unknown = _said(guards, holds=False), _said(guards, holds=None)
    still = any(each.holds is None and each.name == _PROCESSES for several in guards.values() for each in several)
    known = {*window.known, *_holding(guards)}
    was = window.state
    state = WatchState.WATCHING if not broken else WatchState.GOING_BACK
    if broken and not window.plan.take_back:
        state = WatchState.REPORTED
    window = dataclasses.replace(
        window,
        state=state,
        watched=window.watched + (0.0 if still else elapsed),
        still=still,
        known=tuple(sorted(known)),
        breaks=window.breaks + (bool(broken) and was is WatchState.WATCHING),
        reason=broken or window.reason,
        figures=_figures(guards),
        waits=unknown,
    )
    if broken and was is WatchState.WATCHING:
        return window, [_move(window, "broken")]
    if state is WatchState.GOING_BACK or window.watched < window.plan.seconds:
        return window, []
    return _finished(window, guards, now)


def _finished(window: WatchWindow, guards: Guards, now: float) -> tuple[WatchWindow, list[Move]]:
    every = {_place(name, each) for name, several in guards.items() for each in several}
    never = sorted(every - {*window.known})
    if window.breaks:
        return ended(window, WatchState.UNPROVEN, f"broken {window.breaks} times, the last time: {window.reason}", now)
    if never:
        said = f"never known, for there was too little traffic: {', '.join(never)}"
        return ended(window, WatchState.UNPROVEN, said, now)
    return ended(window, WatchState.HELD, "every guard held", now)


def ended(window: WatchWindow, state: WatchState, reason: str, now: float) -> tuple[WatchWindow, list[Move]]:
    """The window in a state that is over."""
    after = dataclasses.replace(window, state=state, ended=now, reason=reason, waits="")
    return after, [_move(after, "taken_back" if state is WatchState.TAKEN_BACK else "ended")]


def left_alone(window: WatchWindow, seen: Routing, now: float) -> tuple[WatchWindow, list[Move]]:
    """A window all of whose collections have another route since: the flip was taken back, or somebody has flipped or
    completed them."""
    back = all(name in seen.placed and seen.placed[name].primary is not window.to for name in window.epochs)
    if back and window.state is WatchState.GOING_BACK:
        return ended(window, WatchState.TAKEN_BACK, window.reason, now)
    by = "" if seen.flip is None else f" by {seen.flip.by}"
    return ended(window, WatchState.ENDED, f"flipped or completed{by}", now)


def not_taken_back(window: WatchWindow, why_not: str) -> tuple[WatchWindow, list[Move]]:
    """The flip could not be taken back; each reason is reported once, whatever its figures."""
    after = dataclasses.replace(window, waits=why_not)
    if _FIGURES.sub("", window.waits) == _FIGURES.sub("", why_not):
        return after, []
    return after, [_move(after, "not_taken_back")]


def pruned(record: GuardRecord, seen: Routing) -> GuardRecord:
    """Without old windows. One of a flip that is still in force stays: it would begin again."""
    in_force = {each.flip for each in seen.watched}
    spent = [id for id, each in record.watches.items() if each.state.over and id not in in_force]
    if len(spent) <= _KEPT:
        return record
    gone = {*sorted(spent, key=lambda id: record.watches[id].ended)[:-_KEPT]}
    return dataclasses.replace(record, watches={id: each for id, each in record.watches.items() if id not in gone})


def _place(name: str, guard: Guard) -> str:
    return f"{guard.name} of {name}"


def _holding(guards: Guards) -> set[str]:
    return {_place(name, each) for name, several in guards.items() for each in several if each.holds}


def _said(guards: Guards, *, holds: bool | None) -> str:
    return "; ".join(
        f"{each.name} of {name}: {each.said}"
        for name, several in guards.items()
        for each in several
        if each.holds is holds
    )


def _figures(guards: Guards) -> dict[str, str]:
    """By the name of a guard: names of collections may hold dots, which not every store takes in names of fields."""
    found: dict[str, list[str]] = {}
    for name, several in guards.items():
        for each in several:
            found.setdefault(each.name, []).append(f"{name}: {each.said}")
    return {name: "; ".join(each) for name, each in found.items()}


def _move(window: WatchWindow, step: str) -> Move:
    """What the receipt, the log and the hooks say of a step."""
    return Move.of(
        WATCH,
        {
            "step": step,
            "flip": window.flip,
            "collections": window.collections,
            "to": str(window.to),
            "state": str(window.state),
            "watched_seconds": round(window.watched, 1),
            "window_seconds": window.plan.seconds,
            "takes_back": window.plan.take_back,
            "reason": window.reason,
            "said": window.waits,
            "guards": dict(window.figures),
            "done": step != "not_taken_back",
        },
    )


def described(window: WatchWindow, now: float) -> dict[str, Any]:
    """For people, JSON-able. `now`: epoch seconds. `ends_at`: None while it is not known."""
    left = max(0.0, window.plan.seconds - window.watched)
    running = window.state in (WatchState.WATCHING, WatchState.REPORTED)
    limits = window.plan.limits
    return {
        "flip": window.flip,
        "collections": window.collections,
        "to": str(window.to),
        "state": str(window.state),
        "open": not window.state.over,
        "by": window.by,
        "since": window.since,
        "ended": window.ended or None,
        "seconds": window.plan.seconds,
        "watched_seconds": round(window.watched, 1),
        "left_seconds": round(left, 1) if running else None,
        "ends_at": round(now + left, 1) if running and not window.still else None,
        "takes_back": window.plan.take_back,
        "at_least": limits.at_least,
        "guards": dict(window.figures),
        "reason": window.reason,
        "waits": window.waits,
    }


def listed(seen: Routing, record: GuardRecord, now: float) -> list[dict[str, Any]]:
    """Every window as `described`, the newest first, those that are over last."""
    every = {**record.watches, **open_windows(seen, record)}
    found = sorted(every.values(), key=lambda each: (each.state.over, -each.since))
    return [described(each, now) for each in found]
