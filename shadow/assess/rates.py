"""Rates: from two readings of the server's counters, or as given by the user. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shadow.assess.model import Rates
from shadow.assess.server import Asked, Counts

__all__ = ["parse", "rates", "stated"]


def rates(before: Counts, after: Counts, asked: tuple[Asked, Asked, float] | None) -> Rates:
    """`asked`: the collection's counters at both readings, and the server's uptime in seconds. The greater of the rate
    between the readings and the rate since the server started counts. One command of the assessment lies in between."""
    seconds = after.moment - before.moment
    if seconds <= 0:
        return Rates()
    inserts = updates = deletes = reads = None
    sources = []
    if None not in (before.written, after.written, before.removed, after.removed):
        written = max(0, (after.written or 0) - (before.written or 0))
        removed = max(0, (after.removed or 0) - (before.removed or 0))
        inserted = min(written, max(0, after.documents - before.documents + removed))
        inserts, updates, deletes = (each / seconds for each in (inserted, written - inserted, removed))
        sources.append(f"collStats over {seconds:.0f} s")
    if asked is not None:
        first, last, uptime = asked
        reads = max((max(0, last.reads - first.reads - 1)) / seconds, last.reads / uptime if uptime else 0.0)
        if uptime:
            inserts = max(inserts or 0.0, last.inserts / uptime)
            updates = max(updates or 0.0, last.updates / uptime)
            deletes = max(deletes or 0.0, last.deletes / uptime)
        sources.append("top since the server started")
    return Rates(inserts, updates, deletes, reads, ", ".join(sources))


def stated(found: Rates, collection: str, share: float, reads: Sequence[str], writes: Sequence[str]) -> Rates:
    """Rates given by the user override the others. `reads` and `writes` are texts that `parse` accepts; a number for
    all collections is distributed by `share`. Writes count as updates in the observed proportion, otherwise as
    inserts."""
    told_reads, told_writes = _told(parse(reads), collection, share), _told(parse(writes), collection, share)
    if told_reads is None and told_writes is None:
        return found
    source = ", ".join(each for each in (found.source, "as stated") if each)
    inserts, updates, deletes = found.inserts, found.updates, found.deletes
    if told_writes is not None:
        seen = (inserts or 0.0) + (updates or 0.0) + (deletes or 0.0)
        if seen:
            inserts, updates, deletes = ((each or 0.0) / seen * told_writes for each in (inserts, updates, deletes))
        else:
            inserts, updates, deletes = told_writes, 0.0, 0.0
    return Rates(inserts, updates, deletes, found.reads if told_reads is None else told_reads, source)


def parse(given: Sequence[str]) -> Mapping[str, float]:
    """`5` (all collections together, under "") or `users=5`, in operations per second. Raises ValueError."""
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        value = float(number)
        if not 0 <= value < float("inf"):
            raise ValueError(f"{text}: a rate is a number of operations per second")
        found[name] = value
    return found


def _told(given: Mapping[str, float], collection: str, share: float) -> float | None:
    if collection in given:
        return given[collection]
    return given[""] * share if "" in given else None
