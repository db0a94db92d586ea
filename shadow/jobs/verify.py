"""Verify: scans both stores from end to end, in both directions, beside live traffic.

A scan of the primary's ranges, with the same keys read on the secondary, shows what is missing and what differs. A scan
of the secondary's ranges, with the same keys read on the primary, shows what is extra. A difference is confirmed before
it counts, as in comparison: the journal first, then the secondary, then the primary, twice with a settling time
between. Keys that the journal holds open are in flight and no differences; one that never settles counts as undecided.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson import json_util

from shadow.compare.diff import explain_images, explain_versions
from shadow.compare.equality import compare_documents, same
from shadow.jobs.closing import close_settled, of_answers
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.target import JobTarget
from shadow.jobs.work import Handled
from shadow.model.events import ComparisonUndecided, MismatchConfirmed
from shadow.model.operation import Verb
from shadow.model.order import key_digest
from shadow.model.stored import NO_VERSION, Damaged, is_copyable
from shadow.model.verdict import DOCUMENT_PATH, Difference, Incomparable, Kind, Mismatch
from shadow.model.version import ABSENT, Document, Image, Key, State, Unknown, Version, stamp_of
from shadow.mongoql.expiry import has_expired
from shadow.observe.findings import Open
from shadow.stores.ranges import Batch

__all__ = ["DIFFERENCES", "UNREADABLE", "Scope", "Summary", "Verify", "report_difference", "summary"]

DIFFERENCES: Final = ("missing", "extra", "different")
"""The counts of differences that a copy repairs."""

UNREADABLE: Final = "unreadable"
"""The count of what the primary holds and shadow cannot read, and of what has no key that a query can name: the stores
are not known to be equal there, and no copy repairs it."""

_SLOWEST: Final = 2.0
"""Seconds between two reads of a key that does not settle."""
_SHARES: Final = 1 << 32
_WIDER: Final = 5
"""Times as many keys at once in the scan of the secondary, which reads no contents."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared. `full`: contents, else versions alone; `sample`: the share of the keys, the same ones in every
    run; `filter`: only documents that match; `patience`: seconds for a moving key to settle."""

    full: bool = True
    sample: float = 1.0
    filter: Document = field(default_factory=dict)
    patience: float = 30.0

    @property
    def whole(self) -> bool:
        """Whether a clean result proves the whole collection and its content."""
        return self.full and self.sample >= 1.0 and not self.filter


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a verification, with its denominators."""

    collection: str
    mode: str
    sample: float
    filtered: bool
    outcome: str
    primary_documents: int
    secondary_documents: int
    compared: int
    equal: int
    missing: int
    extra: int
    different: int
    unreadable: int
    settled: int
    undecided: int
    started: float
    finished: float | None

    @property
    def clean(self) -> bool:
        return self.outcome == "equal"


def summary(job: Job) -> Summary:
    """The summary of a job of kind `verify`."""
    counts, options = job.counts, job.options
    return Summary(
        collection=job.collection,
        mode="full" if options["full"] else "quick",
        sample=float(options["sample"]),
        filtered=bool(json.loads(options["filter"])),
        outcome=job.outcome or "unfinished",
        primary_documents=counts.get("primary", 0),
        secondary_documents=counts.get("secondary", 0),
        compared=counts.get("compared", 0),
        equal=counts.get("equal", 0),
        missing=job.issues.get("missing", 0),
        extra=job.issues.get("extra", 0),
        different=job.issues.get("different", 0),
        unreadable=job.issues.get(UNREADABLE, 0),
        settled=counts.get("settled", 0),
        undecided=job.issues.get("undecided", 0),
        started=job.started,
        finished=job.finished,
    )


class Verify:
    """The task. Counts: `primary` and `secondary` (documents scanned on each side), `compared` (primary documents
    compared with the secondary), `equal`, `settled` (unequal at first, equal when it had settled), `expired`
    (deleted by one store, and expired in the other)."""

    kind = "verify"

    def __init__(self, sides: JobTarget, scope: Scope) -> None:
        self.sides = sides
        self.scope = scope
        self._of_answers: Sequence[Open] = ()

    def options(self) -> Mapping[str, Any]:
        scope = self.scope
        return {"full": scope.full, "sample": scope.sample, "filter": json_util.dumps(scope.filter, sort_keys=True)}

    async def doubts(self) -> str:
        """A collection that becomes unverified after this may owe it to a document that has been compared by then."""
        return await self.sides.journal.doubts(self.sides.collection)

    async def split(self, parts: int) -> tuple[list[Document], int]:
        """The primary's ranges and the secondary's."""
        name, sides = self.sides.collection, self.sides
        # Before anything is compared: a finding that comes later is not closed by this.
        self._of_answers = await of_answers(sides)
        total = await sides.source.estimate(name)
        primary = [{"side": "primary", "in": each} for each in await sides.source.cut(name, parts)]
        secondary = [{"side": "secondary", "in": each} for each in await sides.target.cut(name, parts)]
        return [*primary, *secondary], 2 * total

    def scan(self, within: Document, cursor: Document | None, size: int) -> AsyncGenerator[Batch, None]:
        of_primary = within["side"] == "primary"
        ranges = self.sides.source if of_primary else self.sides.target
        # The other direction finds extra keys; the contents of the rest have been compared.
        whole = self.scope.full and of_primary
        size = size if of_primary else size * _WIDER
        return ranges.walk(
            self.sides.collection, within["in"], cursor, size=size, whole=whole, filter=self.scope.filter
        )

    async def handle(self, within: Document, batch: Batch) -> Handled:
        handled = Handled()
        async with self.sides.steady():
            images = [pair for pair in batch.images if self._is_sampled(pair[0])]
        if within["side"] == "primary":
            unequal = await self._against_secondary(images, handled.counts)
        else:
            unequal = await self._against_primary(images, handled.counts)
        await self._confirm(unequal, handled)
        for key, fault in batch.nameless:
            # No query finds it by this key, so it cannot be read again.
            handled.counts[within["side"]] += 1
            handled.counts["compared"] += within["side"] == "primary"
            issue = Issue(key, UNREADABLE, fault)
            self._report(issue, Kind.UNREADABLE, (_nameless(within["side"]),), Image(ABSENT), Image(ABSENT))
            handled.issues.append(issue)
        return handled

    def _is_sampled(self, key: Key) -> bool:
        return self.scope.sample >= 1.0 or int(key_digest(key)[:8], 16) < self.scope.sample * _SHARES

    async def _against_secondary(self, images: Sequence[tuple[Key, Image]], counts: Counter[str]) -> list[Key]:
        keys = [key for key, _ in images]
        there = await self.sides.target.look(self.sides.collection, keys, whole=self.scope.full) if keys else []
        unequal = [key for (key, image), seen in zip(images, there, strict=True) if not self._agree(image, seen)]
        counts.update(primary=len(keys), compared=len(keys), equal=len(keys) - len(unequal))
        return unequal

    async def _against_primary(self, images: Sequence[tuple[Key, Image]], counts: Counter[str]) -> list[Key]:
        """Only what the primary lacks, or has at another version, matters here."""
        keys = [key for key, _ in images]
        there = await self.sides.source.look(self.sides.collection, keys, whole=False) if keys else []
        counts.update(secondary=len(keys))
        return [key for (key, image), seen in zip(images, there, strict=True) if seen.state != image.state]

    def _agree(self, primary: Image, secondary: Image) -> bool:
        if not is_copyable(primary) or not is_copyable(secondary):
            return False
        if primary.document is None or secondary.document is None:
            return primary.document is None and secondary.document is None
        if primary.state != secondary.state:
            return False
        return not self.scope.full or same(primary.document, secondary.document)

    # --- confirmation -------------------------------------------------------------------------------------------

    async def _confirm(self, unequal: Sequence[Key], handled: Handled) -> None:
        before: dict[str, tuple[State, State]] = {}
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), self.sides.limits.settle
        left = list(unequal)
        while left:
            await asyncio.sleep(pause)
            pause = min(_SLOWEST, pause * 1.5)
            left = await self._look(left, before, handled)
            if left and loop.time() - began > self.scope.patience:
                handled.issues += [Issue(key, "undecided", "does not settle") for key in left]
                return

    async def _look(self, keys: Sequence[Key], before: dict[str, tuple[State, State]], handled: Handled) -> list[Key]:
        """Decides what can be decided; returns the keys that must be read again. The journal is asked first: what it
        does not hold open then, the secondary must have when it is read after; and the primary is read last."""
        name, sides = self.sides.collection, self.sides
        open_now = [await sides.journal.has_open(name, key) for key in keys]
        whole = self.scope.full or sides.expiry is not None
        secondary = await sides.target.look(name, keys, whole=whole)
        primary = await sides.source.look(name, keys, whole=whole)
        left = []
        for key, is_open, one, other in zip(keys, open_now, primary, secondary, strict=True):
            digest, shown = key_digest(key), (_shown(one.state), _shown(other.state))
            if self._agree(one, other):
                handled.counts["settled"] += 1
            elif self._has_expired(one, other):
                handled.counts["expired"] += 1
            elif not is_open and digest in before and _stood(before[digest], shown):
                self._found(key, one, other, handled)
            else:
                before[digest] = shown
                left.append(key)
        return left

    def _has_expired(self, primary: Image, secondary: Image) -> bool:
        """Whether one store has deleted what has expired, and the other one has not yet."""
        if (primary.document is None) == (secondary.document is None):
            return False
        return has_expired(self.sides.expiry, primary.document or secondary.document)

    def _found(self, key: Key, primary: Image, secondary: Image, handled: Handled) -> None:
        count, kind, differences = _described(self.sides, primary, secondary, full=self.scope.full)
        reason = ": ".join([str(kind), *_reasons(primary, secondary)])
        issue = Issue(key, count, reason, state_json(primary.state), state_json(secondary.state))
        handled.issues.append(issue)
        self._report(issue, kind, differences, primary, secondary)

    def _report(
        self, issue: Issue, kind: Kind, differences: tuple[Difference, ...], primary: Image, secondary: Image
    ) -> None:
        self.sides.reporter.publish(
            MismatchConfirmed(_mismatch(self.sides, issue.key, kind, differences, primary, secondary))
        )

    async def conclude(self, jobs: Jobs, job: int) -> str:
        """ "equal", "different", "undecided", or "nothing" where a filter or a sample left no document to compare. Two
        stores that are empty are equal. Findings that are settled by now are closed."""
        outcome = await self._outcome(jobs, job)
        proven = self._of_answers if outcome == "equal" and self.scope.whole else ()
        await close_settled(self.sides, proven)
        return outcome

    async def _outcome(self, jobs: Jobs, job: int) -> str:
        counted = await asyncio.to_thread(jobs.count_issues, job)
        if any(counted.issues.get(name) for name in (*DIFFERENCES, UNREADABLE)):
            return "different"
        if counted.issues.get("undecided"):
            return "undecided"
        looked_at = counted.counts.get("compared") or counted.counts.get("secondary")
        if not looked_at and (self.scope.filter or self.scope.sample < 1.0):
            return "nothing"
        if self.scope.whole:
            began = await asyncio.to_thread(jobs.job, job)
            await self.sides.journal.trust(self.sides.collection, began.doubts)
        return "equal"


def report_difference(sides: JobTarget, key: Key, primary: Image, secondary: Image) -> None:
    """Reports a difference that is certain, found outside a verification."""
    _, kind, differences = _described(sides, primary, secondary, full=True)
    if differences:
        sides.reporter.publish(MismatchConfirmed(_mismatch(sides, key, kind, differences, primary, secondary)))
    else:
        sides.reporter.publish(ComparisonUndecided(sides.collection, Verb.FIND, Incomparable.NO_DIFFERENCE))


def _mismatch(
    sides: JobTarget, key: Key, kind: Kind, differences: tuple[Difference, ...], primary: Image, secondary: Image
) -> Mismatch:
    return Mismatch(
        collection=sides.collection,
        verb=Verb.FIND,
        kind=kind,
        key=key,
        differences=differences,
        primary_state=primary.state,
        secondary_state=secondary.state,
    )


def _described(
    sides: JobTarget, primary: Image, secondary: Image, *, full: bool
) -> tuple[str, Kind, tuple[Difference, ...]]:
    """The count and the kind of a difference, and its paths: without `full` only the versions are known."""
    lacks = primary.document is None or secondary.document is None
    if full or lacks or primary.state == secondary.state:
        differences = explain_images(primary, secondary, hasher=sides.hasher)
    else:
        differences = explain_versions(primary.state, secondary.state, hasher=sides.hasher)
    if not is_copyable(primary):
        return UNREADABLE, Kind.UNREADABLE, differences
    if secondary.document is None:
        return "missing", Kind.MISSING, differences
    if primary.document is None:
        return "extra", Kind.EXTRA, differences
    if not is_copyable(secondary):
        return "different", Kind.UNREADABLE, differences
    if primary.state != secondary.state:
        return "different", Kind.VERSION_LOST, differences
    return "different", compare_documents(primary.document, secondary.document) or Kind.VALUE, differences


def _nameless(side: str) -> Difference:
    """One store holds something under this key that is not a document of this key; the other was not asked."""
    shown = ("unreadable", "missing") if side == "primary" else ("missing", "unreadable")
    return Difference(Kind.UNREADABLE, DOCUMENT_PATH, *shown)


def _reasons(*images: Image) -> list[str]:
    """Why images cannot be read."""
    faults = [each.document.reason for each in images if isinstance(each.document, Damaged)]
    if not faults and any(isinstance(each.state, Unknown) for each in images):
        faults = [NO_VERSION]
    return list(dict.fromkeys(faults))


def state_json(state: State) -> str:
    """A state as JSON: the stamp that a store would hold, or null for nothing."""
    return json.dumps(stamp_of(state))


def _shown(state: State) -> State:
    return state if isinstance(state, Version | Unknown) else ABSENT


def _stood(before: tuple[State, State], now: tuple[State, State]) -> bool:
    """Whether no write came between: the primary has not moved; where it has nothing, nor has the secondary."""
    return before == now if now[0] == ABSENT else before[0] == now[0]
