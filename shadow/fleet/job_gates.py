"""The gates of the jobs: is everything copied, and has all of it been verified, recently.

A job that never ran, that is not finished, or that compared nothing leaves its gate closed. So does one that began in
an earlier epoch of dual writes: a process may have written one store alone since.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from shadow.control.epochs import has_epoch
from shadow.control.flip_record import RouteRecord
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.fleet.health_gates import Gate
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.verify import Summary, summary

__all__ = ["FRESH", "job_gates", "read_gates"]

FRESH: Final = 24 * 3600.0
"""Seconds for which a clean verification counts."""

_ALL: Final = 10_000


def read_gates(
    records: Records, collections: Iterable[str], placed: Mapping[str, RouteRecord], *, now: float | None = None
) -> list[Gate]:
    """The gates of the jobs in a control store, in one scan, and one more for each job under way; closed where it does
    not answer. `placed`: the route record of each collection."""
    names = list(collections)
    try:
        every = Jobs(records).jobs(limit=_ALL)
    except ControlError as error:
        return [_unknown(name, gate, error) for name in names for gate in ("copied", "equal")]
    return [gate for name in names for gate in _gates(name, every, placed.get(name), now)]


def _gates(name: str, every: Iterable[Job], placed: RouteRecord | None, now: float | None) -> Iterator[Gate]:
    of_it = [job for job in every if job.collection == name]
    backfills = [job for job in of_it if job.kind == "backfill"]
    # A difference counts, whenever it was found.
    verifications = [job for job in of_it if job.kind == "verify"]
    counting = [job for job in verifications if job.outcome == "different" or has_epoch(placed, job.epoch)]
    copies = [job for job in backfills if has_epoch(placed, job.epoch)]
    past = [job for job in (*backfills, *verifications) if job not in (*copies, *counting)]
    last = max(past, key=lambda job: job.id, default=None)
    for gate in job_gates(name, copies, counting, now=now):
        if last is None or gate.ok:
            yield gate
        else:
            yield dataclasses.replace(gate, said=f"{gate.said}, {_SINCE if last.epoch else _ALONE}")


_SINCE: Final = "since dual writes began or were last interrupted in some process"
_ALONE: Final = f"{_SINCE}: as the last job began, one of them wrote one store alone, or had until a moment before"


def _unknown(name: str, gate: str, error: ControlError) -> Gate:
    return Gate(name, gate, False, "unknown: the control store did not answer", f"{error.message}: {error.hint}")


def job_gates(name: str, backfills: list[Job], verifications: list[Job], *, now: float | None = None) -> Iterator[Gate]:
    """Both gates of a collection. The jobs come newest first."""
    now = time.time() if now is None else now
    whole = [summary(job) for job in verifications if _is_whole(job)]
    last = whole[0] if whole else None
    yield _copied(name, backfills[0] if backfills else None, last)
    yield _verified(name, last, _found_since(last, verifications), now)


def _is_whole(job: Job) -> bool:
    one: dict[str, Any] = dict(job.options)
    return job.finished is not None and one["full"] and one["sample"] >= 1.0 and one["filter"] == "{}"


def _found_since(last: Summary | None, verifications: list[Job]) -> bool:
    """Whether a verification of any scope found a difference after the last whole one."""
    since = 0.0 if last is None else last.started
    return any(job.outcome == "different" and job.started > since for job in verifications)


def _copied(name: str, job: Job | None, verified: Summary | None) -> Gate:
    advice = f"not all of {name} is copied: shadow backfill {name}"
    if job is None:
        equal = verified is not None and verified.clean
        return Gate(name, "copied", equal, "never copied, but verified equal" if equal else "never copied", advice)
    if job.finished is None:
        return Gate(name, "copied", False, f"under way: {job.ranges_done} of {job.ranges} ranges", advice)
    figure = f"{job.outcome}: {job.counts.get('seen', 0)} documents, {sum(job.issues.values())} not copied"
    return Gate(name, "copied", job.outcome == "complete", figure, advice)


def _verified(name: str, last: Summary | None, found_since: bool, now: float) -> Gate:
    advice = f"{name} has not been found equal in the last day: shadow verify {name}"
    if last is None or last.finished is None:
        return Gate(name, "equal", False, "never verified as a whole", advice)
    age = now - last.finished
    counts = (
        f"{last.compared} compared, {last.missing + last.extra + last.different} differ, {last.undecided} undecided"
    )
    figure = f"{last.outcome}: {counts}, {age / 3600:.1f} h ago (at most {FRESH / 3600:.0f} h)"
    return Gate(name, "equal", last.clean and age <= FRESH and not found_since, figure, advice)
