"""Repair by a plan: what a verification found, written down, looked over by people, and then made good.

A plan is a file of JSON lines: a header, then one line a key with the states that the verification saw. A line is only
applied while both stores still are where it says; whatever has moved since is left alone, for live traffic has it in
hand. Before a line is applied, what the secondary held is written to the undo log, whole: keep that file as you would
keep the data itself.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from bson import json_util
from pymongo.errors import PyMongoError

from shadow.migrate.jobs import Job, Jobs
from shadow.migrate.sides import JobRefused, Sides
from shadow.migrate.verify import DIFFERENCES, state_json
from shadow.migrate.work import fingerprint
from shadow.model.outcome import refusal_of
from shadow.model.stored import Damaged, RawDocument, document_of, is_copyable
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Unknown, Version, fresh_id, split
from shadow.replicate.apply import agree

__all__ = ["Line", "apply_plan", "read_plan", "undo", "write_plan"]

PLAN: Final = 1
UNDO: Final = "undo"
_AT_ONCE: Final = 100
_RESERVED: Final = "s"


@dataclass(frozen=True, slots=True)
class Line:
    """One key, and the states that were seen on both sides."""

    key: Key
    kind: str
    primary: State
    secondary: State


# --- the plan ---------------------------------------------------------------------------------------------------


def write_plan(file: IO[str], jobs: Jobs, job: Job) -> int:
    """The plan of a verification's differences; how many lines. Raises `JobRefused` unless it is one that has ended."""
    if job.kind != "verify" or job.finished is None:
        raise JobRefused(f"job {job.id} is no verification that has ended", hint="run `shadow verify` first")
    header = {"plan": PLAN, "collection": job.collection, "fingerprint": job.fingerprint, "job": job.id}
    file.write(json.dumps(header) + "\n")
    lines = 0
    for issues in jobs.issues(job.id):
        for each in issues:
            if each.kind in DIFFERENCES:
                key = json.loads(_dumps({"_id": each.key}))["_id"]
                states = {"primary": json.loads(each.primary_state), "secondary": json.loads(each.secondary_state)}
                file.write(json.dumps({"key": key, "kind": each.kind, **states}) + "\n")
                lines += 1
    return lines


def read_plan(path: Path) -> tuple[dict[str, Any], Iterator[list[Line]]]:
    """The header and the lines, some at a time. Raises `JobRefused` if the file is no plan of this format."""
    with path.open(encoding="utf-8") as file:
        header = _header(file.readline(), path)
    return header, _lines(path)


def _header(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("plan") not in (PLAN, UNDO):
        raise JobRefused(f"{path}: no plan of this format", hint="make one with `shadow repair-plan make`")
    return header


def _lines(path: Path) -> Iterator[list[Line]]:
    for rows in _rows(path):
        yield [Line(_loads(row["key"]), row["kind"], _state(row["primary"]), _state(row["secondary"])) for row in rows]


def _rows(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The lines after the header as JSON."""
    with path.open(encoding="utf-8") as file:
        next(file)
        rows: list[dict[str, Any]] = []
        for text in file:
            rows.append(json.loads(text))
            if len(rows) == _AT_ONCE:
                yield rows
                rows = []
        if rows:
            yield rows


def _state(stamp: dict[str, Any] | None) -> State:
    if stamp is None:
        return ABSENT
    return Unknown(stamp["?"]) if "?" in stamp else split({_RESERVED: stamp}, _RESERVED).state


# --- applying it ------------------------------------------------------------------------------------------------


async def apply_plan(sides: Sides, path: Path, *, log: IO[str] | None) -> Counter[str]:
    """Applies a plan and counts: `copied`, `deleted`, `settled` (equal by now), `moved` (changed since, left alone),
    `unreadable` (what the primary holds cannot be read, left alone), `refused` (the secondary refuses to hold it, or
    another document there has a unique value of it). `log` takes the undo log; without one it is a dry run, and says
    what would be done. Raises `JobRefused` if the plan is of another configuration."""
    header, lines = read_plan(path)
    if header["plan"] != PLAN or header.get("fingerprint") != fingerprint(sides):
        raise JobRefused(f"{path}: made for another configuration or another primary", hint="verify and plan anew")
    if log is not None:
        log.write(json.dumps({**header, "plan": UNDO}) + "\n")
    counts: Counter[str] = Counter()
    for some in lines:
        await _apply(sides, some, log, counts)
    return counts


async def _apply(sides: Sides, lines: Sequence[Line], log: IO[str] | None, counts: Counter[str]) -> None:
    """The secondary is read before the primary, as in a heal: what the primary shows then is at least as new as
    anything that could make the condition hold."""
    keys = [line.key for line in lines]
    async with sides.steady():
        secondary = await sides.target.look(sides.collection, keys, whole=True)
        primary = await sides.source.look(sides.collection, keys, whole=True)
        for line, one, other in zip(lines, primary, secondary, strict=True):
            counts[await _apply_one(sides, line, one, other, log)] += 1


async def _apply_one(sides: Sides, line: Line, primary: Image, secondary: Image, log: IO[str] | None) -> str:
    if agree(primary, secondary):
        return "settled"
    if not is_copyable(primary):
        return "unreadable"
    if (primary.state, secondary.state) != (line.primary, line.secondary):
        return "moved"
    wanted = primary if primary.present else Image(Tombstone(fresh_id()))
    if log is not None:
        _remember(log, line.key, secondary, wanted.state)
        try:
            done = await sides.secondary.put(sides.collection, line.key, wanted, secondary.state)
        except PyMongoError as error:
            if not refusal_of(error):
                raise
            return "refused"
        if not done:
            return "moved"
    return "copied" if primary.present else "deleted"


def _remember(log: IO[str], key: Key, before: Image, after: State) -> None:
    """Durable before the change is made. Of what cannot be read there is nothing to put back; what can be read of it
    is kept for people."""
    row: Document = {"_id": key, "document": None if before.document is None else dict(before.document)}
    if isinstance(before.document, Damaged):
        row["damaged"] = before.document.reason
    elif isinstance(before.document, RawDocument):
        row["bson"] = before.document.raw
    states = {"before": json.loads(state_json(before.state)), "after": json.loads(state_json(after))}
    log.write(json.dumps({**json.loads(_dumps(row)), **states}) + "\n")
    log.flush()
    os.fsync(log.fileno())


# --- and back ---------------------------------------------------------------------------------------------------


async def undo(sides: Sides, path: Path) -> Counter[str]:
    """Puts back what an undo log remembers, where the secondary is still as the repair left it. Counts: `restored`,
    `moved`, `unreadable` (what stood there could not be read, so it cannot be put back). Raises `JobRefused` if the
    file is no undo log of this configuration."""
    with path.open(encoding="utf-8") as file:
        header = _header(file.readline(), path)
    if header["plan"] != UNDO or header.get("fingerprint") != fingerprint(sides):
        raise JobRefused(f"{path}: no undo log of this configuration")
    counts: Counter[str] = Counter()
    for rows in _rows(path):
        async with sides.steady():
            for row in rows:
                counts[await _restore(sides, row)] += 1
    return counts


async def _restore(sides: Sides, row: dict[str, Any]) -> str:
    before, key = _state(row["before"]), _loads(row["_id"])
    if "damaged" in row or isinstance(before, Unknown):
        return "unreadable"
    was_there = isinstance(before, Version)
    document = document_of(bytes(_loads(row["bson"]))) if "bson" in row else _loads(row["document"])
    image = Image(before, document) if was_there else Image(Tombstone(fresh_id()))
    return "restored" if await sides.secondary.put(sides.collection, key, image, _state(row["after"])) else "moved"


_CANONICAL: Final = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, tz_aware=False)


def _dumps(document: Document) -> str:
    return json_util.dumps(document, json_options=_CANONICAL)


def _loads(value: Any) -> Any:
    return json_util.loads(json.dumps({"": value}), json_options=_CANONICAL)[""]
