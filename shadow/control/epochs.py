"""The epochs of dual writes: the changes of the routing record before a process writes to one store only, or to both.

A copy, a verification and a rehearsal prove something only while dual writes have no gap. So each epoch of dual writes
has an id, and each proof notes it. These changes keep the record ahead of the writes:

- A process writes its own record, which says how it writes, and then enters (`entered`), both before its first write.
  Where it writes a collection to one store that others may write to both, or does not know the collection, the next
  epoch begins.
- A process that wants to write both stores of a collection raises it, step by step (`advanced`). It continues only
  when every living process has acknowledged the previous step, or may no longer write by itself.
- Where no process writes both any more, the collection is lowered again (`lowered`). The first step shows it to
  processes that start meanwhile; the second one comes after all processes were read again.

A proof begins with `proof_of`: first it reads the epoch, then the processes. A process that writes to one store says so
in its own record first, and begins the next epoch afterwards. So one of the two sees the other.
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
"""While some process may write to both stores."""


def entered(
    seen: Routing,
    kept: Mapping[str, StoreName],
    dual: Collection[str],
    rows: Sequence[Member],
    *,
    chosen: Mapping[str, StoreName] = MappingProxyType({}),
) -> Routing | None:
    """The routing record as a process of the application changes it before its first write; None: unchanged. `kept`:
    the primary of each collection that has no route yet; `dual`: those that it wants to write to both stores, all
    others it may write to one; `chosen`: the primary that its configuration names; `rows`: all other processes."""
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
    """With dual writes wanted, and whether the other processes must acknowledge it."""
    if each.writing is WriteState.SINGLE:
        return dataclasses.replace(each, writing=WriteState.ANNOUNCED, previous=None), True
    if each.writing is WriteState.CLOSING or not each.mark:
        return _begun(each, now) if each.writing in TWICE else each, False
    return each, False


def _begun(each: RouteRecord, now: float) -> RouteRecord:
    return dataclasses.replace(each, writing=WriteState.DUAL).renewed(now)


def _is_free(each: RouteRecord, rows: Iterable[Member]) -> bool:
    """Whether nothing depends on the collection's primary: there were no dual writes ever, and no other process."""
    return each.writing is WriteState.SINGLE and each.dual == 0 and all(row.tool for row in rows)


def _next_fence(seen: Routing, rows: Iterable[Member]) -> int:
    """Above what any process has acknowledged: an older version may have lost the number."""
    return max([seen.fence, *(row.fence for row in rows)]) + 1


def advanced(
    seen: Routing, names: Iterable[str], rows: Sequence[Member], silent: Collection[str] = ()
) -> Routing | None:
    """The next step to dual writes of these collections; None: there is none, or not every process has acknowledged the
    last. `silent`: the ids of processes that may no longer write by themselves."""
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
    """The next step to writes of one store for those collections that no process writes to both stores or wants to;
    None: there is none. `rows` must have been read after `seen`."""
    application = [row for row in rows if not row.tool]
    changes = {}
    for name in names:
        each = seen.placed.get(name)
        if each is None or each.writing is WriteState.SINGLE or any(wants_both(row, name) for row in application):
            continue
        # A process that returns from `closing` writes to both at once, so only a collection in `dual` goes there.
        # Where dual writes had not begun, nobody wrote to both; what was written meanwhile may have versions.
        down = WriteState.CLOSING if each.writing is WriteState.DUAL else WriteState.SINGLE
        dual = each.dual + (each.writing is WriteState.RAISING)
        changes[name] = dataclasses.replace(each, writing=down, dual=dual, mark="", previous=None)
    return seen.with_placed(changes) if changes else None


def wants_both(row: Member, name: str) -> bool:
    """Whether a process writes the collection to both stores, or is about to."""
    if row.tool:
        return False
    standing = row.standing.get(name)
    return name in row.wants or (standing is not None and standing.phase is not Phase.OFF)


def interrupted(seen: Routing, names: Iterable[str]) -> Routing | None:
    """With the next epoch for those collections that are written to both stores; None: there are none."""
    now = time.time()
    changes = {
        name: seen.placed[name].renewed(now)
        for name in names
        if name in seen.placed and seen.placed[name].writing in TWICE
    }
    return seen.with_placed(changes) if changes else None


# --- what the record lets a process do ------------------------------------------------------------------------------


def bare(each: RouteRecord) -> bool:
    """Whether the record allows that a write is the driver's own call."""
    return each.writing in (WriteState.SINGLE, WriteState.ANNOUNCED)


def stamped(each: RouteRecord) -> bool:
    """Whether there may be versions in documents, and tombstones beside them."""
    return each.dual > 0 or each.writing is not WriteState.SINGLE


# --- what is proven -------------------------------------------------------------------------------------------------


def has_epoch(placed: RouteRecord | None, mark: str) -> bool:
    """Whether a proof from the epoch of this id still counts."""
    return placed is not None and placed.writing is WriteState.DUAL and mark not in ("", None) and placed.mark == mark


def writes_alone(row: Member, name: str) -> bool:
    """Whether a process reports that it may write the collection to one store only."""
    if row.tool:
        return False
    standing = row.standing.get(name)
    return row.format < members.FENCED or standing is None or standing.phase is Phase.OFF


def alone(rows: Iterable[Member], name: str) -> list[Member]:
    """Those of `rows`, all processes, that may write the collection to one store only, or may have sent such a write
    that can still arrive: a dead one counts until its record is deleted, see `Raising.bury`."""
    return [row for row in rows if writes_alone(row, name) and (row.alone or not row.owner.known_dead())]


def proof_of(records: Records, name: str) -> str:
    """The id of the epoch for a proof that begins now; "": its result would not count. Does I/O; raises
    `ControlError`."""
    placed = routing.load(records).placed.get(name)
    if placed is None or placed.writing is not WriteState.DUAL:
        return ""
    return "" if alone(members.members(records), name) else placed.mark
