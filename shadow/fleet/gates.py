"""Whether a collection may be flipped: the gates of all processes, of the jobs, and of the fleet itself.

The way back needs fewer gates. As long as every write has gone to both stores since the flip, it needs those that keep
writes from being lost, and none whose figures a new primary has had no time to collect.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from shadow.control import receipts
from shadow.control.epochs import has_epoch
from shadow.control.flip_record import RouteRecord
from shadow.control.members import FENCED, Member, disagreements, misplaced
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.fleet.health_gates import Gate, ProcessHealth, gates_of
from shadow.fleet.job_gates import read_gates
from shadow.model.health import CollectionHealth
from shadow.model.phase import StoreName

__all__ = ["REHEARSAL", "REHEARSED", "fleet_gates", "is_way_back", "more_gates"]

REHEARSAL: Final = "rehearsal"
"""The kind of a rehearsal's receipt."""
REHEARSED: Final = 7 * 24 * 3600.0
"""Seconds for which a rehearsal counts."""

_FOR_THE_WAY_BACK: Final = frozenset({"processes", "secondary", "journal", "verified"})


def is_way_back(placed: RouteRecord | None, to: StoreName) -> bool:
    """Whether `to` was primary before, and has had every write since."""
    return placed is not None and placed.previous is to and has_epoch(placed, placed.mark)


def fleet_gates(
    name: str,
    rows: Sequence[Member],
    silent: Iterable[str],
    placed: RouteRecord | None,
    to: StoreName,
    more: Iterable[Gate] = (),
    figures: Sequence[ProcessHealth] | None = None,
) -> list[Gate]:
    """The gates of one collection for a flip to `to`.

    `silent`: journals that no living process shares; `more`: the gates of the jobs; `figures`: the health in every
    process of the application, where it is fresher than in its row.
    """
    application = [row for row in rows if not row.tool]
    health = [row.figures for row in application] if figures is None else figures
    # A process that has reported nothing yet closes every gate.
    health = [{name: CollectionHealth(), **each} for each in health]
    found = [
        _processes(name, application, silent),
        *(gate for gate in gates_of(health) if gate.collection == name),
        *(gate for gate in more if gate.collection == name),
    ]
    if is_way_back(placed, to):
        return [gate for gate in found if gate.name in _FOR_THE_WAY_BACK]
    return found


def more_gates(records: Records, placed: Mapping[str, RouteRecord], names: Iterable[str]) -> list[Gate]:
    """The gates that the control store answers for: those of the jobs, and that the way back was rehearsed. Does I/O;
    closed where it does not answer."""
    names = list(names)
    found = read_gates(records, names, placed)
    try:
        rehearsed = receipts.listed(records, REHEARSAL)
    except ControlError as error:
        return [*found, *(Gate(name, "way back", False, "not known", error.message) for name in names)]
    return [*found, *(_way_back(name, rehearsed, placed.get(name)) for name in names)]


def _way_back(name: str, rehearsed: Sequence[Mapping[str, Any]], placed: RouteRecord | None) -> Gate:
    """A rehearsal of another epoch of dual writes does not count, nor does one of long ago."""
    done = [
        each
        for each in rehearsed
        if each["done"] and name in each["to"] and has_epoch(placed, each.get("epochs", {}).get(name, ""))
    ]
    advice = f"the way back of {name} has not been rehearsed in the last week: shadow flip {name} --to STORE --rehearse"
    if not done:
        return Gate(name, "way back", False, "never rehearsed", advice)
    age = time.time() - done[0]["at"]
    figure = f"rehearsed {age / 3600:.1f} h ago (at most {REHEARSED / 3600:.0f} h)"
    return Gate(name, "way back", age <= REHEARSED, figure, advice)


def _differing(setting: str, places: Mapping[str, Sequence[str]]) -> str:
    return f"{setting} is " + ", ".join(f"{place!r} in {' and '.join(who)}" for place, who in places.items())


def _processes(name: str, rows: Sequence[Member], silent: Iterable[str]) -> Gate:
    advice = f"the processes that write {name} do not report the same route: shadow fleet list"
    without = [row.name for row in rows if name not in row.standing]
    apart = disagreements(rows).get(name, {})
    left = sorted(silent)
    old = [row.name for row in rows if row.format < FENCED]
    if not rows:
        return Gate(name, "processes", False, "no process is registered", "no process of the application is registered")
    if without:
        return Gate(name, "processes", False, f"not in the configuration of {', '.join(without)}", advice)
    if old:
        return Gate(name, "processes", False, f"an older version of shadow runs in {', '.join(old)}", advice)
    if elsewhere := misplaced(rows):
        places = "; ".join(_differing(setting, each) for setting, each in elsewhere.items())
        return Gate(name, "processes", False, f"they are not configured with the same places: {places}", advice)
    if apart:
        routes = "; ".join(f"{len(who)} at {where}" for where, who in apart.items())
        return Gate(name, "processes", False, f"they do not report the same route: {routes}", advice)
    if left:
        advice = (
            f"a journal has entries or was not closed, and no process shares it: start one there ({', '.join(left)})"
        )
        return Gate(name, "processes", False, f"no process is responsible for {len(left)} journals", advice)
    return Gate(name, "processes", True, f"{len(rows)}, all on the same route")
