"""Repair by a plan: the differences that a verification found, written to a file, reviewed by people, then repaired.

A plan is a file of JSON lines: a header, then one line a key with the states that the verification saw. A line is only
applied while both stores still are in these states; whatever has moved since is skipped, for live traffic replicates
it. Before a line is applied, the secondary's document is written to the undo log, whole: protect that file as you would
protect the data itself.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Final

from pymongo.errors import PyMongoError

from shadow.compare.equality import agree
from shadow.jobs.plan_file import UNDO, Line, Undone, dumps, header_of, line_of, read, undone_of
from shadow.jobs.target import JobRefused, JobTarget
from shadow.jobs.verify import report_difference, state_json
from shadow.jobs.work import fingerprint
from shadow.model.events import KeyAgreed
from shadow.model.outcome import refusal_of
from shadow.model.stored import Damaged, RawDocument, document_of, is_copyable
from shadow.model.verdict import HEALED, Healing
from shadow.model.version import Document, Image, Key, State, Tombstone, Unknown, Version, fresh_id

__all__ = ["apply_plan", "undo"]

_COUNTED_AS: Final = {
    Healing.EQUAL: "settled",
    Healing.COPIED: "copied",
    Healing.TOMBSTONED: "deleted",
    Healing.CONTENDED: "moved",
    Healing.UNREADABLE: "unreadable",
    Healing.REFUSED: "refused",
}
"""What came of a line, by the name that the counts of a plan show."""

# --- applying it ------------------------------------------------------------------------------------------------


async def apply_plan(
    sides: JobTarget,
    path: Path,
    *,
    log: Callable[[], IO[str]] | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Counter[str]:
    """Applies a plan and counts: `copied`, `deleted`, `settled` (equal by now), `moved` (changed since, skipped),
    `unreadable` (what the primary holds cannot be read, skipped), `refused` (the secondary refuses to hold it, or
    another document there has one of its unique values). `log` creates the undo log, when the plan was read; without
    one it is a dry run, and counts what would be done. What is equal afterwards is no finding any more. Raises
    `JobRefused` if the plan is of another configuration, or damaged, or only one store is written, or the collection is
    of a kind that both stores cannot hold alike."""
    header = header_of(path)
    if header["plan"] == UNDO:
        raise JobRefused(f"{path} is an undo log", hint=f"shadow repair undo {path}")
    if header["fingerprint"] != fingerprint(sides):
        raise JobRefused(
            f"{path}: made for another configuration or another primary",
            hint=f"run `shadow verify {sides.collection}` and make a plan from it",
        )
    sides.check_followed()
    await sides.check_kind()
    opened: IO[str] | None = None
    counts: Counter[str] = Counter()
    for some in read(path, line_of, may_be_cut=False):
        if log is not None and opened is None:
            opened = log()
            opened.write(json.dumps({**header, "plan": UNDO}) + "\n")
        await _apply(sides, some, opened, counts)
        progress(sum(counts.values()))
    return counts


async def _apply(sides: JobTarget, lines: Sequence[Line], log: IO[str] | None, counts: Counter[str]) -> None:
    """The secondary is read before the primary, as in a heal: what the primary shows then is at least as new as
    anything that could make the condition hold."""
    keys = [line.key for line in lines]
    async with sides.steady():
        secondary = await sides.target.look(sides.collection, keys, whole=True)
        primary = await sides.source.look(sides.collection, keys, whole=True)
        done = []
        for line, one, other in zip(lines, primary, secondary, strict=True):
            result = await _apply_one(sides, line, one, other, log)
            counts[_COUNTED_AS[result]] += 1
            if result in HEALED and log is not None:
                done.append(line.key)
        for key, now, there in await _looks(sides, done):
            if agree(now, there):
                sides.reporter.publish(KeyAgreed(sides.collection, key))


async def _looks(sides: JobTarget, keys: Sequence[Key]) -> list[tuple[Key, Image, Image]]:
    """What primary and secondary hold now."""
    if not keys:
        return []
    secondary = await sides.target.look(sides.collection, keys, whole=True)
    primary = await sides.source.look(sides.collection, keys, whole=True)
    return list(zip(keys, primary, secondary, strict=True))


async def _apply_one(sides: JobTarget, line: Line, primary: Image, secondary: Image, log: IO[str] | None) -> Healing:
    if agree(primary, secondary):
        return Healing.EQUAL
    if not is_copyable(primary):
        return Healing.UNREADABLE
    if (primary.state, secondary.state) != (line.primary, line.secondary):
        return Healing.CONTENDED
    wanted = primary if primary.present else Image(Tombstone(fresh_id()))
    if log is not None:
        _remember(log, line.key, secondary, wanted.state)
        try:
            done = await sides.secondary.put(sides.collection, line.key, wanted, secondary.state)
        except PyMongoError as error:
            if not refusal_of(error):
                raise
            return Healing.REFUSED
        if not done:
            return Healing.CONTENDED
    return Healing.COPIED if primary.present else Healing.TOMBSTONED


def _remember(log: IO[str], key: Key, before: Image, after: State) -> None:
    """Durable before the change is made. A document that cannot be read cannot be restored; what can be read of it
    is kept for people."""
    row: Document = {"_id": key, "document": None if before.document is None else dict(before.document)}
    if isinstance(before.document, Damaged):
        row["damaged"] = before.document.reason
    elif isinstance(before.document, RawDocument):
        row["bson"] = before.document.raw
    states = {"before": json.loads(state_json(before.state)), "after": json.loads(state_json(after))}
    log.write(json.dumps({**json.loads(dumps(row)), **states}) + "\n")
    log.flush()
    os.fsync(log.fileno())


# --- and back ---------------------------------------------------------------------------------------------------


async def _nothing() -> None: ...


async def undo(
    sides: JobTarget,
    path: Path,
    *,
    begins: Callable[[], Awaitable[None]] = _nothing,
    progress: Callable[[int], None] = lambda done: None,
) -> Counter[str]:
    """Restores the documents of an undo log, where the secondary is still as the repair left it. Counts: `restored`,
    `moved`, `unreadable` (the document could not be read, so it cannot be restored). What differs again is a finding
    again. `begins` is awaited before the first is restored. Raises `JobRefused` if the file is no undo log of
    this configuration, or damaged."""
    header = header_of(path)
    if header["plan"] != UNDO:
        raise JobRefused(f"{path} is a plan and no undo log", hint="`apply` has named its undo log")
    if header["fingerprint"] != fingerprint(sides):
        raise JobRefused(
            f"{path}: made for another configuration or another primary",
            hint="undo it with the configuration, and the primary, that it was applied with",
        )
    counts: Counter[str] = Counter()
    for rows in read(path, undone_of, may_be_cut=True):
        if not counts:
            await begins()
        async with sides.steady():
            restored = []
            for row in rows:
                result = await _restore(sides, row)
                counts[result] += 1
                if result == "restored":
                    restored.append(row.key)
            for key, now, there in await _looks(sides, restored):
                if not agree(now, there):
                    report_difference(sides, key, now, there)
        progress(sum(counts.values()))
    return counts


async def _restore(sides: JobTarget, row: Undone) -> str:
    if row.damaged or isinstance(row.before, Unknown):
        return "unreadable"
    document = row.document if row.raw is None else document_of(row.raw)
    image = Image(row.before, document) if isinstance(row.before, Version) else Image(Tombstone(fresh_id()))
    return "restored" if await sides.secondary.put(sides.collection, row.key, image, row.after) else "moved"
