"""What processes under faults have noted of their operations, and whether what is found afterwards can follow from it.

An operation has a beginning, an end and an outcome. What was acknowledged was done once, at some moment between the
two. What was refused was not done. What is unknown (an error of the connection, a caller that was cancelled, a process
that was killed) was done once or not at all, at some moment after its beginning.

Four kinds of keys, four sorts of proof:

- *counters* are only incremented: they hold at least the acknowledged increments, at most those and the unknown ones;
- *lists* are only pushed to: each acknowledged tag stands there once, each unknown one once or not at all, no other;
- *churned* keys are inserted, replaced, set and deleted by everybody: what is there was written by an operation that
  no acknowledged one has overwritten, that is, none that began after its end;
- *accounts* are only written in transactions, each of which notes its parts (`TAG.out`, `TAG.in`, `TAG.paid`) in
  documents of their own: all parts of one are there or none, and no money is made or lost.

Clocks: `time.monotonic_ns`, one for all processes of a host.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shadow.model.version import Document
from tests.support.trail import notes

__all__ = ["History", "Op"]

WHOLE = ("insert", "replace", "delete")
"""The kinds of operations after which nothing of the document before is left."""


@dataclass(slots=True)
class Op:
    """`effect`: how many documents it says that it changed; `end` is infinite where the outcome is unknown."""

    tag: str
    kind: str
    key: str
    start: float
    end: float = math.inf
    outcome: str = "unknown"
    effect: int = 1

    @property
    def sure(self) -> bool:
        return self.outcome == "acked" and self.effect > 0

    @property
    def possible(self) -> bool:
        return self.sure or self.outcome == "unknown"


class History:
    """Read from trails whose lines are `start TAG KIND KEY TIME` and `end TAG OUTCOME EFFECT TIME`."""

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self.ops = {op.tag: op for op in ops}
        self.complaints: Counter[str] = Counter()

    def read(self, trail: Path) -> None:
        for words in notes(trail):
            match words:
                case ["start", tag, kind, key, at]:
                    self.ops[tag] = Op(tag, kind, key, float(at))
                case ["end", tag, outcome, effect, at]:
                    op = self.ops[tag]
                    op.outcome, op.effect = outcome, int(effect)
                    op.end = math.inf if outcome == "unknown" else float(at)
                case ["complaint", *what]:
                    self.complaints[" ".join(what)] += 1

    def outcomes(self) -> dict[str, Counter[str]]:
        """Kind to how often each outcome."""
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for op in self.ops.values():
            found[op.kind][op.outcome] += 1
        return dict(found)

    def faults(self, found: Mapping[str, Document]) -> list[str]:
        """What cannot be, given these documents by key; none if all is well."""
        by_key: defaultdict[str, list[Op]] = defaultdict(list)
        for op in self.ops.values():
            if op.kind != "read":
                by_key[op.key].append(op)
        faults = [f"{key}: nobody wrote it" for key in found if key not in by_key]
        for key, ops in by_key.items():
            faults += [f"{key}: {what}" for what in _faults_of(ops, found.get(key))]
        return faults + list(self._halves(found))

    def _halves(self, found: Mapping[str, Document]) -> Iterator[str]:
        """What cannot be of the accounts together."""
        moved = {op.key for op in self.ops.values() if op.kind == "transfer"} & found.keys()
        there = {tag for key in moved for tag in found[key]["moved"]}
        parts: defaultdict[str, set[str]] = defaultdict(set)
        for op in self.ops.values():
            if op.kind == "transfer":
                parts[op.tag.rpartition(".")[0]].add(op.tag)
        for transfer, tags in parts.items():
            if tags & there and tags - there:
                yield f"{transfer}: half of a transaction, {', '.join(sorted(tags & there))}"
        total = sum(found[key]["balance"] for key in moved)
        if total:
            yield f"the accounts hold {total} together, and nobody put anything in"


def _faults_of(ops: list[Op], document: Document | None) -> Iterator[str]:
    match ops[0].kind:
        case "inc":
            yield from _counter(ops, document)
        case "push":
            yield from _list(ops, document["tags"] if document is not None else [])
        case "many":
            yield from _batch(ops, document)
        case "transfer":
            yield from _account(ops, document)
        case _:
            yield from _churned(ops, document)


def _counter(ops: list[Op], document: Document | None) -> Iterator[str]:
    least = sum(op.sure for op in ops)
    most = sum(op.possible for op in ops)
    value = 0 if document is None else document["n"]
    if value < least:
        yield f"lost increments: {value}, and {least} were acknowledged"
    if value > most:
        yield f"increments applied twice: {value}, and there were {most} at most"


def _list(ops: list[Op], tags: list[str]) -> Iterator[str]:
    there = Counter(tags)
    for op in ops:
        if op.sure and not there[op.tag]:
            yield f"lost: {op.tag}"
        if there[op.tag] and not op.possible:
            yield f"refused, and there: {op.tag}"
    yield from (f"applied {times} times: {tag}" for tag, times in there.items() if times > 1)
    yield from (f"nobody pushed {tag}" for tag in there.keys() - {op.tag for op in ops})


def _account(ops: list[Op], document: Document | None) -> Iterator[str]:
    tags = [] if document is None else document["moved"]
    yield from _list(ops, tags)
    balance = 0 if document is None else document["balance"]
    if balance != (due := sum(tag.endswith(".in") - tag.endswith(".out") for tag in tags)):
        yield f"{balance} on the account, and {due} by what was moved"


def _batch(ops: list[Op], document: Document | None) -> Iterator[str]:
    if document is None and ops[0].sure:
        yield "lost, and the batch was acknowledged"
    if document is not None and not ops[0].possible:
        yield "there, and the batch was refused"


def _churned(ops: list[Op], document: Document | None) -> Iterator[str]:
    whole = [op for op in ops if op.kind in WHOLE]
    sets = [op for op in ops if op.kind == "set"]
    if document is None:
        yield from _absent(whole)
        return
    by_tag = {op.tag: op for op in ops}
    writer = by_tag.get(document["by"])
    if writer is None or writer.kind not in ("insert", "replace"):
        yield f"nobody wrote {document['by']}"
        return
    if not writer.possible:
        yield f"{writer.tag} was refused, and is there"
    if (later := _after(writer, whole)) is not None:
        yield f"{writer.tag} was resurrected: {later.kind} {later.tag} came after it"
    yield from _last_set(document, writer, whole, sets, by_tag)


def _absent(whole: list[Op]) -> Iterator[str]:
    made = [op for op in whole if op.kind != "delete"]
    deletes = [op for op in whole if op.kind == "delete" and op.possible]
    if any(op.sure for op in made) and not any(_after(each, made) is None for each in deletes):
        yield "lost: an acknowledged document is gone, and no deletion came after it"


def _last_set(
    document: Document, writer: Op, whole: list[Op], sets: list[Op], by_tag: Mapping[str, Op]
) -> Iterator[str]:
    tag: Any = document.get("set")
    if tag is None:
        for op in sets:
            if op.sure and not any(other.possible and other.end > op.start for other in whole):
                yield f"lost: {op.tag}"
        return
    setter = by_tag.get(tag)
    if setter is None or setter.kind != "set" or not setter.possible:
        yield f"nobody set {tag}, or it was refused"
    elif setter.end < writer.start:
        yield f"{tag} was resurrected: {writer.kind} {writer.tag} came after it"
    elif (later := _after(setter, [*whole, *sets])) is not None:
        yield f"{tag} was resurrected: {later.kind} {later.tag} came after it"


def _after(op: Op, others: list[Op]) -> Op | None:
    """One that was surely done, and wholly after `op`."""
    return next((other for other in others if other.sure and other.start > op.end), None)
