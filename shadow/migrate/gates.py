"""The gates that the jobs answer for: is everything copied, and has it been verified whole, and lately.

A job that never ran, that is not over, or that compared nothing leaves its gate closed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from shadow.migrate.control import Control, Job
from shadow.migrate.verify import Summary, summary
from shadow.observe.judge import Gate

__all__ = ["FRESH", "job_gates", "read_gates"]

FRESH: Final = 24 * 3600.0
"""Seconds for which a clean verification counts."""

_LAST: Final = 20


def read_gates(path: Path, collections: Iterable[str], *, now: float | None = None) -> list[Gate]:
    """The gates of the jobs in a control store; all closed where there is no such file. Does I/O."""
    names = list(collections)
    if not path.exists():
        return [gate for name in names for gate in job_gates(name, [], [])]
    try:
        control = Control(path)
    except sqlite3.Error:
        return [gate for name in names for gate in job_gates(name, [], [])]
    try:
        return [
            gate
            for name in names
            for gate in job_gates(
                name,
                control.jobs(kind="backfill", collection=name, limit=1),
                control.jobs(kind="verify", collection=name, limit=_LAST),
                now=now,
            )
        ]
    finally:
        control.close()


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
    look = f"not all of {name} is copied: shadow backfill {name}"
    if job is None:
        equal = verified is not None and verified.clean
        return Gate(name, "copied", equal, "never copied, but verified equal" if equal else "never copied", look)
    if job.finished is None:
        return Gate(name, "copied", False, f"under way: {job.ranges_done} of {job.ranges} ranges", look)
    said = f"{job.outcome}: {job.counts.get('seen', 0)} documents, {sum(job.issues.values())} not copied"
    return Gate(name, "copied", job.outcome == "complete", said, look)


def _verified(name: str, last: Summary | None, found_since: bool, now: float) -> Gate:
    look = f"{name} has not been found equal lately: shadow verify {name}"
    if last is None or last.finished is None:
        return Gate(name, "equal", False, "never verified whole", look)
    age = now - last.finished
    counts = (
        f"{last.compared} compared, {last.missing + last.extra + last.different} differ, {last.undecided} undecided"
    )
    said = f"{last.outcome}: {counts}, {age / 3600:.1f} h ago (at most {FRESH / 3600:.0f} h)"
    return Gate(name, "equal", last.clean and age <= FRESH and not found_since, said, look)
