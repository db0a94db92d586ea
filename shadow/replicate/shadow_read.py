"""Shadow reads: the primary's read asked again of the secondary, off the caller's path, and compared.

Unequal at first sight is not a mismatch yet. Both stores are asked again after a settling time; what is equal then was
transient, what the journal still holds open is lagging, what new writes keep moving starts over, and only what stands
still and differs is a mismatch.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bson import ObjectId
from pymongo.errors import ConnectionFailure

from shadow.compare.diff import Hasher, explain
from shadow.compare.equality import Comparison, KeyDifference, compare_documents, compare_hits
from shadow.model.operation import Hit, Query, Verb
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reporter import Reporter
from shadow.model.verdict import Difference, Kind, Mismatch, ShedReason, Verdict
from shadow.model.version import ABSENT, Image, Key, State, Version
from shadow.replicate.apply import agree
from shadow.replicate.breaker import Breaker
from shadow.replicate.gather import Gather
from shadow.replicate.journal import Journal
from shadow.replicate.keys import lane_key
from shadow.replicate.lane import Lane
from shadow.replicate.limits import Limits
from shadow.stores.base import Store

__all__ = ["Answer", "ShadowReader"]

Look: TypeAlias = "Callable[[], Awaitable[Verdict | Look]]"
"""Looks once, and answers a verdict, or the look that has to follow after the settling time."""

_EXAMINED: Final = 50
"""The most documents of one answer that a look examines one by one."""

_CHEAP_TOGETHER: Final = frozenset({StoreName.DYNAMO})
"""Stores whose client spends most of its time on the request, whatever is in it. MongoDB's is not one."""
_LINGER: Final = 0.025
"""Seconds that a key read waits for others to share its request: far less than the settling time, which a write in
between would cost."""
_TOGETHER: Final = 25
"""Key reads in one request. Decoding them keeps the event loop for some milliseconds; more would be felt."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A read of the application, with the means to ask it again of either store."""

    collection: str
    verb: Verb
    query: Query
    route: Route
    refused: bool = False
    """Whether the secondary has refused it once."""


@dataclass(frozen=True, slots=True)
class _KeyRead:
    """A read of one document by nothing but its key, the primary's answer to it, and its place among the accepted."""

    read: _Read
    key: Key
    hits: Sequence[Hit]
    turn: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The primary's answer to a read that names no documents; how to ask a store again; how to compare two."""

    primary: Any
    ask: Callable[[Store], Awaitable[Any]]
    compare: Callable[[Any, Any], Comparison]


_Shown: TypeAlias = tuple[State, State]
"""What the primary and the secondary show of a key: a version, or `ABSENT` (a tombstone shows nothing)."""


class _SecondaryFailed(Exception):
    """Wraps what the secondary raised, to tell it from what the primary or the journal did."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a difference: the keys that differed with what both stores showed of each, and both answers as keys
    and versions; `quiet`: after the answers, every document agreed and nothing was open. The next look is compared
    with it."""

    states: Mapping[Hashable, _Shown]
    answers: Hashable
    quiet: bool = False


class ShadowReader:
    """One for each event loop."""

    def __init__(
        self,
        stores: Mapping[StoreName, Store],
        breakers: Mapping[StoreName, Breaker],
        journal: Journal,
        lane: Lane,
        writes: Lane,
        limits: Limits,
        reporter: Reporter,
        hasher: Hasher,
    ) -> None:
        self._stores = stores
        self._breakers = breakers
        self._journal = journal
        self._lane = lane
        self._limits = limits
        self._reporter = reporter
        self._hasher = hasher
        self._writes = writes
        self._turn = itertools.count()
        self._waiting: dict[int, tuple[asyncio.TimerHandle, _Read]] = {}
        self._accepted: dict[int, _Read] = {}
        self._near: Gather[_KeyRead] = Gather(linger=_LINGER, most=_TOGETHER, hand_over=self._offer_together)

    @staticmethod
    def sampled(route: Route) -> bool:
        """Whether this read is to be shadowed. Decides before anything is kept for it."""
        return route.shadow_read and (route.shadow_reads >= 1.0 or random.random() < route.shadow_reads)

    def offer_hits(self, collection: str, verb: Verb, query: Query, hits: Sequence[Hit], route: Route) -> None:
        """Compares the primary's documents with the secondary's. `hits` are not changed by anyone after this."""
        read = _Read(collection, verb, query, route)
        if any(self._writes.busy(lane_key(collection, hit.key)) for hit in hits):
            # A write of one of them is still on its way: looking now would only see that.
            self._look_later(read, lambda: self._look(read, None, 1))
        elif _by_key_alone(read):
            self._offer_near(read, hits)
        else:
            self._offer(read, lambda: self._first_look(read, hits))

    def offer_answer(self, collection: str, verb: Verb, asked: Answer, route: Route) -> None:
        """Compares an answer that names no documents."""
        read = _Read(collection, verb, Query(), route)
        self._offer(read, lambda: self._first_answer(read, asked))

    def shed(self, collection: str, verb: Verb, reason: ShedReason) -> None:
        """Counts a read that is not compared."""
        self._reporter.shed(collection, verb, reason)
        self._reporter.comparison(collection, verb, Verdict.SHED)

    def incomparable(self, collection: str, verb: Verb) -> None:
        self._reporter.comparison(collection, verb, Verdict.INCOMPARABLE)

    def stop(self) -> None:
        """Forgets the looks that were still to come or that the lane's end cut off, and counts them."""
        self._near.stop()
        for handle, _ in self._waiting.values():
            handle.cancel()
        for read in (*(read for _, read in self._waiting.values()), *self._accepted.values()):
            self.shed(read.collection, read.verb, ShedReason.CLOSING)
        self._waiting.clear()
        self._accepted.clear()

    @property
    def waiting(self) -> int:
        """Comparisons that will look, or look again, and hold no place in the lane yet."""
        return len(self._waiting) + len(self._near)

    # --- one comparison -----------------------------------------------------------------------------------------

    def _offer(self, read: _Read, look: Look) -> None:
        turn = next(self._turn)

        async def job() -> None:
            try:
                await self._run(read, look)
            except asyncio.CancelledError:
                self.shed(read.collection, read.verb, ShedReason.CLOSING)
                raise
            finally:
                self._accepted.pop(turn, None)

        # Reads need no order among themselves: each has a place of its own in the lane.
        if self._lane.offer(read.collection, ("read", turn), job):
            self._accepted[turn] = read
        else:
            reason = ShedReason.CLOSING if self._lane.closed else ShedReason.LANE_FULL
            self.shed(read.collection, read.verb, reason)

    def _look_later(self, read: _Read, look: Look) -> None:
        """The next look, after the settling time, without holding a place in the lane meanwhile."""
        if len(self._waiting) >= self._lane.capacity:
            self.shed(read.collection, read.verb, ShedReason.LANE_FULL)
            return
        turn = next(self._turn)

        def due() -> None:
            del self._waiting[turn]
            self._offer(read, look)

        handle = asyncio.get_running_loop().call_later(self._limits.settle, due)
        self._waiting[turn] = handle, read

    async def _run(self, read: _Read, look: Look) -> None:
        breaker = self._breakers[read.route.secondary]
        # A collection that is only read has no write to probe with: one read at a time does it.
        if not breaker.allow():
            self.shed(read.collection, read.verb, ShedReason.SECONDARY_DOWN)
            return
        try:
            verdict = await look()
        except _SecondaryFailed as failed:
            self._failed(read, look, failed.error, breaker)
        except TimeoutError:
            self.shed(read.collection, read.verb, ShedReason.DEADLINE)
        except Exception as error:
            # The primary or the journal could not be asked again: that says nothing about the secondary.
            self._reporter.failed("shadow_read", error)
            self._reporter.comparison(read.collection, read.verb, Verdict.INCOMPARABLE)
        else:
            breaker.succeeded()
            self._conclude(read, verdict)

    def _conclude(self, read: _Read, verdict: Verdict | Look) -> None:
        if isinstance(verdict, Verdict):
            self._reporter.comparison(read.collection, read.verb, verdict)
        else:
            self._look_later(read, verdict)

    def _failed(self, read: _Read, look: Look, error: Exception, breaker: Breaker) -> None:
        if isinstance(error, TimeoutError):
            breaker.failed()
            self.shed(read.collection, read.verb, ShedReason.DEADLINE)
            return
        self._reporter.failed("shadow_read", error)
        if isinstance(error, ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            breaker.failed()
            self.shed(read.collection, read.verb, ShedReason.SECONDARY_DOWN)
            return
        if not read.refused:
            self._look_later(dataclasses.replace(read, refused=True), look)
            return
        # The secondary refuses, twice, what the primary answered: that is a difference, not an outage.
        self._reporter.comparison(read.collection, read.verb, Verdict.MISMATCH)
        self._reporter.mismatch(Mismatch(read.collection, read.verb, Kind.ERROR_SECONDARY_ONLY, None))

    async def _ask(self, read: _Read, name: StoreName) -> list[Hit]:
        """The whole answer of one store, in time."""
        role = Role.PRIMARY if name is read.route.primary else Role.SECONDARY
        started = time.perf_counter()
        outcome = Outcome.UNKNOWN
        try:
            with _blaming(read, name):
                async with asyncio.timeout(self._limits.read_deadline):
                    found = await self._collect(read, self._stores[name])
            outcome = Outcome.ACKED
            return found
        finally:
            if role is Role.SECONDARY:
                seconds = time.perf_counter() - started
                self._reporter.operation(read.collection, read.verb, name, role, outcome, seconds)

    async def _collect(self, read: _Read, store: Store) -> list[Hit]:
        if read.verb is Verb.FIND_ONE:
            hit = await store.find_one(read.collection, read.query)
            return [] if hit is None else [hit]
        return [hit async for page in store.find(read.collection, read.query) for hit in page]

    # --- key reads, in one request what comes near in time ------------------------------------------------------

    def _offer_near(self, read: _Read, hits: Sequence[Hit]) -> None:
        if self._lane.closed or len(self._accepted) >= self._lane.capacity:
            reason = ShedReason.CLOSING if self._lane.closed else ShedReason.LANE_FULL
            self.shed(read.collection, read.verb, reason)
            return
        turn = next(self._turn)
        self._accepted[turn] = read
        self._near.add((read.collection, read.route.secondary), _KeyRead(read, read.query.filter["_id"], hits, turn))

    def _offer_together(self, near: list[_KeyRead]) -> None:
        async def job() -> None:
            try:
                await self._run_together(near)
            except asyncio.CancelledError:
                self._shed_left(near, ShedReason.CLOSING)
                raise
            finally:
                for each in near:
                    self._accepted.pop(each.turn, None)

        if not self._lane.offer(near[0].read.collection, ("read", near[0].turn), job):
            self._shed_left(near, ShedReason.CLOSING if self._lane.closed else ShedReason.LANE_FULL)

    def _shed_left(self, near: Sequence[_KeyRead], reason: ShedReason) -> None:
        """Counts those of whom nothing has been said yet."""
        for each in near:
            if self._accepted.pop(each.turn, None) is not None:
                self.shed(each.read.collection, each.read.verb, reason)

    async def _run_together(self, near: Sequence[_KeyRead]) -> None:
        first = near[0]
        if len(near) == 1:
            await self._run(first.read, lambda: self._first_look(first.read, first.hits))
            return
        breaker = self._breakers[first.read.route.secondary]
        if not breaker.allow():
            self._shed_left(near, ShedReason.SECONDARY_DOWN)
            return
        try:
            images = await self._ask_together(near)
        except Exception as error:
            self._failed_together(near, error, breaker)
            return
        breaker.succeeded()
        for each, image in zip(near, images, strict=True):
            self._judge_one(each, image)

    async def _ask_together(self, near: Sequence[_KeyRead]) -> list[Image]:
        read = near[0].read
        name, started, outcome = read.route.secondary, time.perf_counter(), Outcome.UNKNOWN
        try:
            async with asyncio.timeout(self._limits.read_deadline):
                images = await self._stores[name].images(read.collection, [each.key for each in near])
            outcome = Outcome.ACKED
            return images
        finally:
            seconds = time.perf_counter() - started
            for _ in near:
                self._reporter.operation(read.collection, read.verb, name, Role.SECONDARY, outcome, seconds)

    def _failed_together(self, near: Sequence[_KeyRead], error: Exception, breaker: Breaker) -> None:
        """One request failed, so one failure is counted. What was refused may be one of them: each is asked for
        again by itself."""
        if not isinstance(error, TimeoutError):
            self._reporter.failed("shadow_read", error)
        if isinstance(error, TimeoutError | ConnectionFailure) or classify(error) is Outcome.UNKNOWN:
            breaker.failed()
            late = isinstance(error, TimeoutError)
            self._shed_left(near, ShedReason.DEADLINE if late else ShedReason.SECONDARY_DOWN)
            return
        for each in near:
            self._look_later(each.read, functools.partial(self._look, each.read, None, 1))

    def _judge_one(self, each: _KeyRead, image: Image) -> None:
        try:
            found: list[Hit] = []
            if isinstance(image.state, Version) and image.document is not None:
                found.append(Hit(each.key, image.state, image.document))
            verdict = self._judge(each.read, each.hits, found)
        except Exception as error:
            self._reporter.failed("shadow_read", error)
            verdict = Verdict.INCOMPARABLE
        self._accepted.pop(each.turn, None)
        self._conclude(each.read, verdict)

    # --- documents ----------------------------------------------------------------------------------------------

    async def _first_look(self, read: _Read, hits: Sequence[Hit]) -> Verdict | Look:
        return self._judge(read, hits, await self._ask(read, read.route.secondary))

    def _judge(self, read: _Read, hits: Sequence[Hit], secondary: Sequence[Hit]) -> Verdict | Look:
        seen = compare_hits(read.query, hits, secondary)
        if seen.equal:
            return Verdict.MATCH
        if not seen.keys:
            return Verdict.INCOMPARABLE
        states = {lane_key("", each.key): (_version(each.primary), _version(each.secondary)) for each in seen.keys}
        look = _Look(states, _answers(hits, secondary))
        return lambda: self._look(read, look, 1)

    async def _look(self, read: _Read, before: _Look | None, attempt: int) -> Verdict | Look:
        """Asks both again. Confirmed is what differs now as it did at the look before, while the primary stood
        still and the journal held nothing of it open."""
        secondary = await self._ask(read, read.route.secondary)
        primary = await self._ask(read, read.route.primary)
        now = compare_hits(read.query, primary, secondary)
        if now.equal:
            return Verdict.TRANSIENT if before is not None else Verdict.MATCH
        if not now.keys:
            return Verdict.INCOMPARABLE
        async with asyncio.timeout(2 * self._limits.read_deadline):
            found, states, quiet = await self._examine(read, now, before)
        answers = _answers(primary, secondary)
        if not found and quiet and before is not None and before.quiet and before.answers == answers:
            # Every document agreed before these answers and after them, and yet they differ: the read itself means
            # something else over there.
            found = [self._mismatch(read, each, None, None) for each in now.keys]
        if found:
            for mismatch in found:
                self._reporter.mismatch(mismatch)
            return Verdict.MISMATCH
        if attempt >= self._limits.confirmations:
            return Verdict.LAGGING
        look = _Look(states, answers, quiet)
        return lambda: self._look(read, look, attempt + 1)

    async def _examine(
        self, read: _Read, now: Comparison, before: _Look | None
    ) -> tuple[list[Mismatch], dict[Hashable, _Shown], bool]:
        """Looks at the documents behind a difference: those confirmed to differ, what both stores show of each, and
        whether all of them agree with nothing open.

        The journal is asked first: what it does not hold open then, the secondary must have when it is read after.
        A primary at the version of the look before has not moved since. A primary without the document may have had
        one in between, so there the secondary must not have moved either.
        """
        found: list[Mismatch] = []
        states: dict[Hashable, _Shown] = {}
        quiet = len(now.keys) <= _EXAMINED
        for each in now.keys[:_EXAMINED]:
            if each.primary is None and each.secondary is None:
                continue
            key = lane_key("", each.key)
            open_now = await self._journal.has_open(read.collection, each.key)
            secondary = await self._image(read, read.route.secondary, each.key)
            primary = await self._image(read, read.route.primary, each.key)
            states[key] = _shown(primary.state), _shown(secondary.state)
            same_image = agree(primary, secondary)
            quiet = quiet and same_image and not open_now
            if open_now or same_image:
                continue
            if before is not None and key in before.states and _stood(before.states[key], states[key]):
                found.append(self._mismatch(read, each, primary, secondary))
        return found, states, quiet

    async def _image(self, read: _Read, name: StoreName, key: Key) -> Image:
        with _blaming(read, name):
            return await self._stores[name].image(read.collection, key)

    def _mismatch(self, read: _Read, found: KeyDifference, primary: Image | None, secondary: Image | None) -> Mismatch:
        kind, differences = found.kind, tuple[Difference, ...]()
        if primary is not None and secondary is not None:
            kind, differences = self._describe(primary, secondary)
        return Mismatch(
            collection=read.collection,
            verb=read.verb,
            kind=kind,
            key=found.key,
            differences=differences,
            primary_state=None if primary is None else primary.state,
            secondary_state=None if secondary is None else secondary.state,
        )

    def _describe(self, primary: Image, secondary: Image) -> tuple[Kind, tuple[Difference, ...]]:
        """In what way two whole images differ."""
        if secondary.document is None:
            return Kind.MISSING, ()
        if primary.document is None:
            return Kind.EXTRA, ()
        differences = explain(primary.document, secondary.document, hasher=self._hasher)
        if primary.state != secondary.state:
            return Kind.VERSION_LOST, differences
        return compare_documents(primary.document, secondary.document) or Kind.VALUE, differences

    # --- answers that name no documents: counts, distinct values, aggregates -------------------------------------

    async def _first_answer(self, read: _Read, asked: Answer) -> Verdict | Look:
        seen = asked.compare(asked.primary, await self._answer(read, asked, read.route.secondary))
        if seen.equal:
            return Verdict.MATCH
        if not seen.keys:
            return Verdict.INCOMPARABLE
        return lambda: self._answer_again(read, asked, None, 1)

    async def _answer_again(
        self, read: _Read, asked: Answer, before: tuple[Any, Any] | None, attempt: int
    ) -> Verdict | Look:
        """Such an answer is confirmed only where nothing moves: the primary answers the same before and after the
        secondary, twice, and the journal holds nothing of the collection open."""
        idle = not await self._behind(read.collection)
        first = await self._answer(read, asked, read.route.primary)
        secondary = await self._answer(read, asked, read.route.secondary)
        last = await self._answer(read, asked, read.route.primary)
        seen = asked.compare(last, secondary)
        if seen.equal or asked.compare(first, secondary).equal:
            return Verdict.TRANSIENT
        if not seen.keys:
            return Verdict.INCOMPARABLE
        calm = idle and asked.compare(first, last).equal and not await self._behind(read.collection)
        if calm and before is not None and _unmoved(asked, before, (first, secondary)):
            self._reporter.mismatch(Mismatch(read.collection, read.verb, seen.keys[0].kind, None))
            return Verdict.MISMATCH
        if attempt >= self._limits.confirmations:
            return Verdict.LAGGING
        still = (first, secondary) if calm else None
        return lambda: self._answer_again(read, asked, still, attempt + 1)

    async def _answer(self, read: _Read, asked: Answer, name: StoreName) -> Any:
        with _blaming(read, name):
            async with asyncio.timeout(self._limits.read_deadline):
                return await asked.ask(self._stores[name])

    async def _behind(self, collection: str) -> bool:
        stats = await self._journal.stats()
        return bool(stats.open_by_collection.get(collection) or stats.deferred_by_collection.get(collection))


@contextmanager
def _blaming(read: _Read, name: StoreName) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if name is read.route.secondary:
            raise _SecondaryFailed(error) from error
        raise


def _by_key_alone(read: _Read) -> bool:
    """Whether the whole document under one key is asked for, of a store that answers many keys as cheaply as one."""
    query = read.query
    return (
        read.verb is Verb.FIND_ONE
        and read.route.secondary in _CHEAP_TOGETHER
        and len(query.filter) == 1
        and type(query.filter.get("_id")) in (str, ObjectId)
        and not query.projection
        and not query.skip
    )


def _shown(state: State) -> State:
    return state if isinstance(state, Version) else ABSENT


def _version(hit: Hit | None) -> State:
    return ABSENT if hit is None else hit.version


def _stood(before: _Shown, now: _Shown) -> bool:
    return before == now if now[0] == ABSENT else before[0] == now[0]


def _unmoved(asked: Answer, before: tuple[Any, Any], now: tuple[Any, Any]) -> bool:
    return all(asked.compare(old, new).equal for old, new in zip(before, now, strict=True))


def _answers(primary: Sequence[Hit], secondary: Sequence[Hit]) -> Hashable:
    """Both answers as keys and versions, in order."""
    return tuple(tuple((lane_key("", hit.key), hit.version) for hit in answer) for answer in (primary, secondary))
