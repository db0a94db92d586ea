"""The confirmation: from a first difference between two answers to a verdict.

A first difference is not a mismatch yet. Both stores are asked again after a settling time. What is equal then was
transient; what the journal still holds open is lagging; what new writes keep changing starts over. Only what has not
changed for the minimum age, and still differs, is a mismatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from shadow.compare.comparer import Comparator, Seen
from shadow.compare.equality import Comparison, KeyDifference
from shadow.journal.base import Journal, JournalStats
from shadow.model.events import MismatchConfirmed, RuleApplied
from shadow.model.keys import queue_key
from shadow.model.limits import Limits
from shadow.model.operation import Hit
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role
from shadow.model.verdict import ERROR_PATH, Difference, Incomparable, Kind, Mismatch, Verdict
from shadow.model.version import ABSENT, Key, State, Unknown, Version
from shadow.reads.sources import SecondaryFailed, ShadowRead, documents, image, incomparable, refusal, values
from shadow.stores.within import within

__all__ = ["Confirmation", "Probe", "Retry"]

_EXAMINED: Final = 50
"""The most documents of one answer that a probe examines one by one."""

Probe: TypeAlias = "Callable[[], Awaitable[Verdict | Retry]]"
"""Compares once, and returns a verdict, or the probe that has to follow."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The probe that has to follow, in `after` seconds at the earliest."""

    probe: Probe
    after: float = 0.0


_Shown: TypeAlias = tuple[State, State]
"""What the primary and the secondary show of a key: a version, or `ABSENT` (a tombstone shows nothing)."""


@dataclass(frozen=True, slots=True)
class _Observation:
    """What one probe saw of a difference: the keys that differed, with what both stores showed of each, and both
    answers as keys and versions. `quiet`: after the answers, every document agreed and nothing was open; `since`: from
    when on the same answers have been seen so. The next probe is compared with it."""

    states: Mapping[Hashable, _Shown]
    answers: Hashable
    quiet: bool = False
    since: float = 0.0


@dataclass(slots=True)
class _Examined:
    """What the documents behind a difference came to. `young`: seconds until the last of those that differ, and do not
    change, is old enough; `excused`: comparison rules that cover what differs in some."""

    found: list[Mismatch] = field(default_factory=list)
    states: dict[Hashable, _Shown] = field(default_factory=dict)
    excused: dict[str, None] = field(default_factory=dict)
    quiet: bool = True
    young: float = 0.0


@dataclass(frozen=True, slots=True)
class _Figures:
    """One probe, during which nothing changed, of a read that names no documents: both answers, and since when they
    have been seen."""

    primary: Any
    secondary: Any
    since: float


class Confirmation:
    """The probes of every comparison. Between two of them it keeps nothing but their observations and the unconfirmed
    mismatches of the store pair."""

    def __init__(self, journal: Journal, limits: Limits, comparator: Comparator) -> None:
        self._journal = journal
        self._limits = limits
        self._comparator = comparator

    # --- documents ----------------------------------------------------------------------------------------------

    async def first(self, read: ShadowRead, hits: Sequence[Hit]) -> Verdict | Retry:
        """Asks the secondary what the primary has answered with `hits`."""
        return await self.compare(read, hits, await documents(read, Role.SECONDARY, self._limits.read_deadline))

    async def first_of_secondary(self, read: ShadowRead, hits: Sequence[Hit]) -> Verdict | Retry:
        """Asks the primary what the secondary has answered with `hits`."""
        return await self.compare(read, await documents(read, Role.PRIMARY, self._limits.read_deadline), hits)

    async def first_of_newest(self, read: ShadowRead) -> Verdict | Retry:
        """Asks both stores, because a member that lags may have given the application its answer: two answers that
        lack the same write are equal too."""
        deadline = self._limits.read_deadline
        primary = await documents(read, Role.PRIMARY, deadline, again=True)
        return await self.compare(
            read, primary, await documents(read, Role.SECONDARY, deadline, again=True, timed=True)
        )

    async def compare(self, read: ShadowRead, hits: Sequence[Hit], secondary: Sequence[Hit]) -> Verdict | Retry:
        """The first comparison, with both answers at hand."""
        seen = await self._comparator.hits(read.collection, read.documents.query, hits, secondary)
        if not seen.comparison.keys:
            return self._concluded(read, seen, Verdict.MATCH)
        states = {
            queue_key("", each.key): (_version(each.primary), _version(each.secondary))
            for each in seen.comparison.keys
            if each.named
        }
        observed = _Observation(states, _answers(hits, secondary), since=_now())
        return Retry(lambda: self.probe(read, observed, 1))

    async def probe(self, read: ShadowRead, before: _Observation | None = None, attempt: int = 1) -> Verdict | Retry:
        """Asks both stores again. A difference is confirmed if the probe before saw it too, the primary has not changed
        since, the journal holds nothing of it open, and all that has been so for the minimum age."""
        deadline = self._limits.read_deadline
        secondary = await documents(read, Role.SECONDARY, deadline, again=True)
        primary = await documents(read, Role.PRIMARY, deadline, again=True)
        seen = await self._comparator.hits(read.collection, read.documents.query, primary, secondary)
        if not seen.comparison.keys:
            await self._forget(read, primary, secondary)
            return self._concluded(read, seen, Verdict.MATCH if before is None else Verdict.TRANSIENT)
        async with within(2 * deadline):
            examined = await self._examine(read, seen.comparison.keys, before)
        answers = _answers(primary, secondary)
        stood = examined.quiet and before is not None and before.quiet and before.answers == answers
        observed = _Observation(examined.states, answers, examined.quiet, before.since if stood and before else _now())
        if not examined.found and stood:
            if examined.excused:
                return self._excused(read, (*seen.excused, *examined.excused))
            examined.young = observed.since + self._quiet_age(read) - _now()
            if examined.young <= 0:
                # Every document agreed before these answers and after them, and yet they differ: the read itself
                # means something else to the secondary.
                await self._found(read, examined, seen.comparison.keys)
        if examined.found:
            for mismatch in examined.found:
                read.sides.reporter.publish(MismatchConfirmed(mismatch))
            return Verdict.MISMATCH
        if examined.young > 0:
            return Retry(lambda: self.probe(read, observed, attempt), examined.young)
        if attempt >= self._limits.confirmations:
            return Verdict.LAGGING
        return Retry(lambda: self.probe(read, observed, attempt + 1))

    async def _found(self, read: ShadowRead, examined: _Examined, keys: Sequence[KeyDifference]) -> None:
        for each in keys:
            differences = await self._comparator.point_out(each)
            if differences:
                examined.found.append(_mismatch(read, each.kind, each.key, differences))

    def _quiet_age(self, read: ShadowRead) -> float:
        return self._limits.index_age if read.late else self._limits.minimum_age

    def _concluded(self, read: ShadowRead, seen: Seen, otherwise: Verdict) -> Verdict:
        if seen.comparison.incomparable:
            return incomparable(read, seen.comparison.incomparable)
        return self._excused(read, seen.excused) if seen.excused else otherwise

    def _excused(self, read: ShadowRead, names: Sequence[str]) -> Verdict:
        rules = tuple(dict.fromkeys(names))
        self._comparator.taken(read.collection, rules)
        for rule in rules:
            read.sides.reporter.publish(RuleApplied(read.collection, rule))
        return Verdict.EXCUSED

    async def _forget(self, read: ShadowRead, *answers: Sequence[Hit]) -> None:
        """These documents are no longer unconfirmed. An answer of many documents is left to the probes of its keys."""
        keys = {queue_key("", hit.key): hit.key for answer in answers for hit in answer}
        if not keys and "_id" in read.asked.filter:
            keys[()] = read.asked.filter["_id"]
        if len(keys) <= 1:
            for key in keys.values():
                await read.sides.unconfirmed.clear(read.collection, key)

    async def _examine(self, read: ShadowRead, keys: Sequence[KeyDifference], before: _Observation | None) -> _Examined:
        """Examines the documents behind a difference: those confirmed to differ, what both stores show of each, and
        whether all of them agree with nothing open.

        The journal is asked first: what it does not hold open then, the secondary must have when it is read after.
        A primary at the version that the probe before saw has not changed since. A primary without the document may
        have had one in between, so there the secondary must not have changed either.
        """
        examined = _Examined(quiet=len(keys) <= _EXAMINED)
        for each in keys[:_EXAMINED]:
            if each.named:
                await self._examine_one(read, each, before, examined)
        return examined

    async def _examine_one(
        self, read: ShadowRead, each: KeyDifference, before: _Observation | None, examined: _Examined
    ) -> None:
        place, asked = queue_key("", each.key), _now()
        open_now = await self._journal.has_open(read.collection, each.key)
        secondary = await image(read, Role.SECONDARY, each.key)
        primary = await image(read, Role.PRIMARY, each.key)
        shown = examined.states[place] = _shown(primary.state), _shown(secondary.state)
        rules = await self._comparator.agree(read.collection, primary, secondary)
        examined.quiet = examined.quiet and rules is not None and not open_now
        if rules is not None:
            examined.excused.update(dict.fromkeys(rules))
            return
        if open_now:
            return
        stood = await read.sides.unconfirmed.note(read.collection, each.key, _standing(shown))
        known = before is not None and place in before.states and _stood(before.states[place], shown)
        # What another probe has seen counts only up to when this one asked the journal: a write that began after both
        # had asked is open, and neither knows of it.
        if not known and stood - (_now() - asked) < max(self._limits.settle, 0.001):
            return
        if stood < self._limits.minimum_age:
            examined.young = max(examined.young, self._limits.minimum_age - stood)
            return
        kind, differences = await self._comparator.describe(primary, secondary)
        if differences:
            states = (primary.state, secondary.state)
            examined.found.append(_mismatch(read, kind, each.key, differences, states))
        await read.sides.unconfirmed.clear(read.collection, each.key)

    # --- answers that name no documents: counts, distinct values, aggregates -------------------------------------

    async def first_values(self, read: ShadowRead, given: Any, by: Role) -> Verdict | Retry:
        """Asks the other store what the store of this role has answered with `given`."""
        other = await self._values(read, Role.SECONDARY if by is Role.PRIMARY else Role.PRIMARY)
        return await self._first_values(read, *((given, other) if by is Role.PRIMARY else (other, given)))

    async def first_values_of_newest(self, read: ShadowRead) -> Verdict | Retry:
        """See `first_of_newest`."""
        primary = await self._values(read, Role.PRIMARY, again=True)
        secondary = await self._values(read, Role.SECONDARY, again=True, timed=True)
        return await self._first_values(read, primary, secondary)

    async def _first_values(self, read: ShadowRead, primary: Any, secondary: Any) -> Verdict | Retry:
        seen = await self._compared(read, primary, secondary)
        if not seen.keys:
            return incomparable(read, seen.incomparable) if seen.incomparable else Verdict.MATCH
        return Retry(lambda: self._probe_values(read, None, 1))

    async def _probe_values(self, read: ShadowRead, before: _Figures | None, attempt: int) -> Verdict | Retry:
        """Such a difference is confirmed only while nothing changes: the journal holds nothing of the collection open,
        no write passes it while both stores are asked, and the primary answers the same before and after."""
        start = await self._journal.stats()
        first = await self._values(read, Role.PRIMARY, again=True)
        secondary = await self._values(read, Role.SECONDARY, again=True)
        last = await self._values(read, Role.PRIMARY, again=True)
        seen = await self._compared(read, last, secondary)
        if seen.equal or (await self._compared(read, first, secondary)).equal:
            return Verdict.TRANSIENT
        if not seen.keys:
            return incomparable(read, seen.incomparable or Incomparable.NO_DIFFERENCE)
        still = not (await self._compared(read, first, last)).keys
        if not still or _moved(read.collection, start, await self._journal.stats()):
            before, now = None, None
        else:
            now = _Figures(first, secondary, _now())
            if before is not None and await self._unchanged(read, before, now):
                now = _Figures(first, secondary, before.since)
                young = now.since + self._quiet_age(read) - _now()
                if young <= 0:
                    return await self._confirmed(read, seen)
                return Retry(lambda: self._probe_values(read, now, attempt), young)
        if attempt >= self._limits.confirmations:
            return Verdict.LAGGING
        return Retry(lambda: self._probe_values(read, now, attempt + 1))

    async def _confirmed(self, read: ShadowRead, seen: Comparison) -> Verdict:
        found = seen.keys[0]
        differences = await self._comparator.point_out(found)
        if not differences:
            return incomparable(read, Incomparable.NO_DIFFERENCE)
        read.sides.reporter.publish(MismatchConfirmed(_mismatch(read, found.kind, None, differences)))
        return Verdict.MISMATCH

    async def _unchanged(self, read: ShadowRead, before: _Figures, now: _Figures) -> bool:
        primary = await self._compared(read, before.primary, now.primary)
        return not (primary.keys or (await self._compared(read, before.secondary, now.secondary)).keys)

    async def _compared(self, read: ShadowRead, primary: Any, secondary: Any) -> Comparison:
        return await self._comparator.values(read.values, primary, secondary)

    async def _values(self, read: ShadowRead, role: Role, *, again: bool = False, timed: bool = False) -> Any:
        return await values(read, role, self._limits.read_deadline, again=again, timed=timed)

    # --- reads that one store refused ----------------------------------------------------------------------------

    async def refusal(self, read: ShadowRead, error: Exception, attempt: int = 1) -> Verdict | Retry:
        """The secondary has to refuse what the primary refused with `error`, with the same class of error. Confirmed by
        a later probe, which asks the primary too, while nothing changes: an error may come from a document (a division
        by zero), and the secondary may not have it yet."""
        if attempt == 1:
            other = await self._error(read, Role.SECONDARY, again=False)
            if other is not None and type(other) is type(error):
                return Verdict.MATCH
            return Retry(lambda: self.refusal(read, error, 2), self._limits.minimum_age)
        start = await self._journal.stats()
        other = await self._error(read, Role.SECONDARY, again=True)
        again = await self._error(read, Role.PRIMARY, again=True)
        if again is None or type(again) is not type(error) or type(other) is type(error):
            return Verdict.TRANSIENT
        if _moved(read.collection, start, await self._journal.stats()):
            return self._later(lambda: self.refusal(read, error, attempt + 1), attempt)
        read.sides.reporter.publish(MismatchConfirmed(_refused(read, error, other)))
        return Verdict.MISMATCH

    async def refused_by_secondary(self, read: ShadowRead, probe: Probe, attempt: int = 1) -> Verdict | Retry:
        """The secondary has refused, twice, to answer `probe`, and the primary has answered. Confirmed while nothing
        changes, as above."""
        start = await self._journal.stats()
        try:
            return await probe()
        except SecondaryFailed as failed:
            if classify(failed.error) is not Outcome.REFUSED:
                raise
            error = failed.error
        if await self._error(read, Role.PRIMARY, again=True) is not None:
            return Verdict.TRANSIENT
        if _moved(read.collection, start, await self._journal.stats()):
            return self._later(lambda: self.refused_by_secondary(read, probe, attempt + 1), attempt)
        found = Difference(Kind.ERROR_SECONDARY_ONLY, ERROR_PATH, secondary_type=type(error).__name__)
        read.sides.reporter.publish(MismatchConfirmed(_mismatch(read, Kind.ERROR_SECONDARY_ONLY, None, (found,))))
        return Verdict.MISMATCH

    def _later(self, probe: Probe, attempt: int) -> Verdict | Retry:
        return Verdict.LAGGING if attempt > self._limits.confirmations else Retry(probe, self._limits.settle)

    async def _error(self, read: ShadowRead, role: Role, *, again: bool) -> Exception | None:
        """What one store refuses with; None if it answers. Raises whatever is no refusal."""
        try:
            await refusal(read, role, self._limits.read_deadline, again=again)
        except SecondaryFailed as failed:
            if classify(failed.error) is Outcome.REFUSED:
                return failed.error
            raise
        except Exception as error:
            if classify(error) is Outcome.REFUSED:
                return error
            raise
        return None


def _refused(read: ShadowRead, error: Exception, other: Exception | None) -> Mismatch:
    if other is None:
        said = Difference(Kind.ERROR_PRIMARY_ONLY, ERROR_PATH, type(error).__name__)
        return _mismatch(read, Kind.ERROR_PRIMARY_ONLY, None, (said,))
    said = Difference(Kind.TYPE, ERROR_PATH, type(error).__name__, type(other).__name__)
    return _mismatch(read, Kind.TYPE, None, (said,))


def _mismatch(
    read: ShadowRead,
    kind: Kind,
    key: Key | None,
    differences: tuple[Difference, ...],
    states: tuple[State | None, State | None] = (None, None),
) -> Mismatch:
    return Mismatch(read.collection, read.verb, kind, key, differences, *states)


def _moved(collection: str, start: JournalStats, end: JournalStats) -> bool:
    """Whether a write of the collection was open, or has passed, between two readings of the journal."""
    busy = any(
        stats.open_by_collection.get(collection) or stats.deferred_by_collection.get(collection)
        for stats in (start, end)
    )
    return busy or start.passed.get(collection, 0) != end.passed.get(collection, 0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _shown(state: State) -> State:
    return state if isinstance(state, Version | Unknown) else ABSENT


def _version(hit: Hit | None) -> State:
    return ABSENT if hit is None else hit.version


def _stood(before: _Shown, now: _Shown) -> bool:
    return before == now if now[0] == ABSENT else before[0] == now[0]


def _standing(shown: _Shown) -> str:
    """What must stay the same for a document to count as unchanged, by the rule of `_stood`."""
    primary, secondary = map(_shown_state, shown)
    return primary if isinstance(shown[0], Version) else f"- {secondary}"


def _shown_state(state: State) -> str:
    match state:
        case Version(born, rev):
            return f"{born}@{rev}"
        case Unknown(digest):
            return f"?{digest}"
        case _:
            return "-"


def _answers(primary: Sequence[Hit], secondary: Sequence[Hit]) -> Hashable:
    """Both answers as keys and versions, in order."""
    return tuple(tuple((queue_key("", hit.key), hit.version) for hit in answer) for answer in (primary, secondary))
