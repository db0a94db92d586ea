"""The epochs of dual writes: what changes in the routing record before a process writes one store alone, or both.

What was copied, verified and rehearsed holds only while dual writes went on without a gap. So each epoch of dual writes
has an id, and what is proven notes it. These moves keep the record ahead of the writes:

- A process has a record of its own that says how it writes, and then enters (`entered`): all this is before its first
  write. Where it writes a collection alone that others may write twice, or does not know it at all, the next epoch
  begins there.
- A process that wants to write both stores of a collection raises it, step by step (`advanced`). It goes on only when
  every living process has taken note of the step before, or is not allowed to write by itself any more.
- Where no process writes both any more, the collection is lowered again (`lowered`). The first step shows it to those
  that begin meanwhile, the second one comes after another look at all processes.

A proof begins with `proof_of`: first the epoch is read, then the processes. A process that writes alone says so in its
own record, and begins the next epoch afterwards. One of them sees the other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import RouteRecord, Routing, WriteState
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.model.phase import Phase, StoreName

__all__ = [
    "TWICE",
    "advanced",
    "alone",
    "bare",
    "entered",
    "has_epoch",
    "interrupted",
    "lowered",
    "proof_of",
    "stamped",
    "wants_both",
    "writes_alone",
]

TWICE: Final = (WriteState.DUAL, WriteState.CLOSING)
"""While some process may write both."""


def entered(
    seen: Routing,
    kept: Mapping[str, StoreName],
    dual: Collection[str],
    rows: Sequence[Member],
    *,
    chosen: Mapping[str, StoreName] = MappingProxyType({}),
) -> Routing | None:
    """As a process of the application changes it before its first write; None: as it is. `kept`: the primary of each
    collection that nobody has placed yet; `dual`: those that it wants to write twice, all others it may write alone;
    `chosen`: the primary that its configuration names; `rows`: all processes, itself left out."""
    now = time.time()
    placed = dict(seen.placed)
    for name, primary in kept.items():
        placed.setdefault(name, RouteRecord(primary, since=now))
    fence = seen.fence
    for name, each in placed.items():
        if name in dual and not each.completed:
            placed[name], asks = _wanted(each, now)
            if asks:
                fence = _next_fence(seen, rows)
        elif each.writing in TWICE:
            placed[name] = each.renewed(now)
        elif _is_free(each, rows) and chosen.get(name, each.primary) is not each.primary:
            placed[name] = dataclasses.replace(each, primary=chosen[name], epoch=each.epoch + 1, since=now)
    return None if placed == dict(seen.placed) else dataclasses.replace(seen, placed=placed, fence=fence)


def _wanted(each: RouteRecord, now: float) -> tuple[RouteRecord, bool]:
    """With dual writes wanted, and whether the others have to take note of it."""
    if each.writing is WriteState.SINGLE:
        return dataclasses.replace(each, writing=WriteState.ANNOUNCED, previous=None), True
    if each.writing is WriteState.CLOSING or not each.mark:
        return _begun(each, now) if each.writing in TWICE else each, False
    return each, False


def _begun(each: RouteRecord, now: float) -> RouteRecord:
    return dataclasses.replace(each, writing=WriteState.DUAL).renewed(now)


def _is_free(each: RouteRecord, rows: Iterable[Member]) -> bool:
    """Whether nothing rests on the collection's primary: it was never written twice, and nobody else is there."""
    return each.writing is WriteState.SINGLE and each.dual == 0 and all(row.tool for row in rows)


def _next_fence(seen: Routing, rows: Iterable[Member]) -> int:
    """Beyond what any process has taken note of: an older version may have lost the number."""
    return max([seen.fence, *(row.fence for row in rows)]) + 1


def advanced(
    seen: Routing, names: Iterable[str], rows: Sequence[Member], silent: Collection[str] = ()
) -> Routing | None:
    """One step nearer to dual writes of these; None: there is none, or not every process has taken note yet. `silent`:
    the ids of processes that may not write by themselves any more."""
    asked = [row for row in rows if not row.tool and row.format >= members.FENCED and row.id not in silent]
    if any(row.fence < seen.fence for row in asked):
        return None
    now, changes, fence = time.time(), {}, seen.fence
    for name in names:
        each = seen.placed.get(name)
        if each is None or each.completed:
            continue
        if each.writing is WriteState.ANNOUNCED:
            changes[name], fence = dataclasses.replace(each, writing=WriteState.RAISING), _next_fence(seen, rows)
        elif each.writing is WriteState.RAISING or (each.writing is WriteState.DUAL and not each.mark):
            changes[name] = _begun(each, now)
    return dataclasses.replace(seen.with_placed(changes), fence=fence) if changes else None


def lowered(seen: Routing, names: Iterable[str], rows: Iterable[Member]) -> Routing | None:
    """One step nearer to writes of one store alone for those of these that nobody writes twice or wants to; None: there
    is none. `rows` must have been read after `seen`."""
    application = [row for row in rows if not row.tool]
    changes = {}
    for name in names:
        each = seen.placed.get(name)
        if each is None or each.writing is WriteState.SINGLE or any(wants_both(row, name) for row in application):
            continue
        # Whoever comes back from `closing` writes both at once, so it is for those alone that were there. Where dual
        # writes had not begun, nobody wrote both; what was written meanwhile may have versions.
        down = WriteState.CLOSING if each.writing is WriteState.DUAL else WriteState.SINGLE
        dual = each.dual + (each.writing is WriteState.RAISING)
        changes[name] = dataclasses.replace(each, writing=down, dual=dual, mark="", previous=None)
    return seen.with_placed(changes) if changes else None


def wants_both(row: Member, name: str) -> bool:
    """Whether a process writes both stores of the collection, or is about to."""
    if row.tool:
        return False
    standing = row.standing.get(name)
    return name in row.wants or (standing is not None and standing.phase is not Phase.OFF)


def interrupted(seen: Routing, names: Iterable[str]) -> Routing | None:
    """With the next epoch for those of these that are written twice; None: there are none."""
    now = time.time()
    changes = {
        name: seen.placed[name].renewed(now)
        for name in names
        if name in seen.placed and seen.placed[name].writing in TWICE
    }
    return seen.with_placed(changes) if changes else None


# --- what the record lets a process do ------------------------------------------------------------------------------


def bare(each: RouteRecord) -> bool:
    """Whether a write may be the driver's own call, as far as the record goes."""
    return each.writing in (WriteState.SINGLE, WriteState.ANNOUNCED)


def stamped(each: RouteRecord) -> bool:
    """Whether documents may carry versions, and tombstones may stand between them."""
    return each.dual > 0 or each.writing is not WriteState.SINGLE


# --- what is proven -------------------------------------------------------------------------------------------------


def has_epoch(placed: RouteRecord | None, mark: str) -> bool:
    """Whether what was proven in the epoch of this id counts now."""
    return placed is not None and placed.writing is WriteState.DUAL and mark not in ("", None) and placed.mark == mark


def writes_alone(row: Member, name: str) -> bool:
    """Whether a process may write one store of the collection alone, as far as it says."""
    if row.tool:
        return False
    standing = row.standing.get(name)
    return row.format < members.FENCED or standing is None or standing.phase is Phase.OFF


def alone(rows: Iterable[Member], name: str) -> list[Member]:
    """Those of `rows`, all processes, that may write one store of the collection alone, or may have sent such a write
    that can still arrive: one that died counts until its record goes, see `Raising.bury`."""
    return [row for row in rows if writes_alone(row, name) and (row.alone or not row.owner.known_dead())]


def proof_of(records: Records, name: str) -> str:
    """The id of the epoch that a proof begins in which begins now; "": nothing that it finds would count. Does I/O;
    raises `ControlError`."""
    placed = routing.load(records).placed.get(name)
    if placed is None or placed.writing is not WriteState.DUAL:
        return ""
    return "" if alone(members.members(records), name) else placed.mark
