"""Reads the evidence of one collection from the control store: no store of documents is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shadow.control import flip_record as routing
from shadow.control import members, receipts
from shadow.control.history import compared_by_hour
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.evidence.model import Context, Evidence, StoreTimes
from shadow.fleet.gates import fleet_gates, more_gates
from shadow.jobs.jobs import Jobs
from shadow.jobs.target import JobRefused
from shadow.model.latencies import added, of_text
from shadow.observe.history import HOUR

__all__ = ["collect"]

_JOBS: Final = 20
_RECEIPTS: Final = 500
"""The newest of all collections, among which those of this one are looked for."""


def collect(records: Records, name: str, context: Context) -> Evidence:
    """Does I/O; raises `ControlError`, and `JobRefused` where no process has ever registered the collection."""
    seen = routing.load(records)
    placed = seen.placed.get(name)
    if placed is None:
        raise JobRefused(
            f"{name}: no process has written to it under this control store ({records.place})",
            hint="start the application with this configuration; there is no evidence before that",
        )
    rows = [row for row in members.prune(records, members.members(records)) if not row.tool]
    silent = members.journals(records) - {row.journal for row in rows}
    to = placed.primary.other
    jobs = Jobs(records)
    return Evidence(
        collection=name,
        context=context,
        primary=placed.primary,
        to=to,
        epoch=placed.epoch,
        proof=placed.mark,
        gates=fleet_gates(name, rows, silent, placed, to, more_gates(records, seen.placed, [name])),
        processes=rows,
        hours=compared_by_hour(records, name, int(context.now) // HOUR - context.days * 24 + 1),
        verifications=jobs.jobs(kind="verify", collection=name, limit=_JOBS),
        backfills=jobs.jobs(kind="backfill", collection=name, limit=_JOBS),
        receipts=[each for each in receipts.listed(records, limit=_RECEIPTS) if _is_about(each, name)],
        times=_times(rows, name),
    )


def _is_about(receipt: Mapping[str, Any], name: str) -> bool:
    """Receipts of files of a repair name no collection in older versions; they are shown for each."""
    about = receipt.get("collections", receipt.get("to", receipt.get("collection", name)))
    return name == about or (not isinstance(about, str) and name in about)


def _times(rows: Sequence[Member], name: str) -> list[StoreTimes]:
    found = [latency for row in rows if name in row.figures and (latency := row.figures[name].latency) is not None]
    return [
        StoreTimes(what, *(added(of_text(getattr(each, field)[place]) for each in found) for place in (0, 1)))
        for what, field in (("reads", "read_times"), ("writes of one document", "write_times"))
    ]
