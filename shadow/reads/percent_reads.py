"""Percent reads: a share of the application's reads that the secondary answers, where the configuration says so.

This is the one place at which the secondary's answer reaches a caller, so the primary answers in every uncertain case:
when the secondary fails, seems down, or takes longer than `limits.routed_read`, and when a write may not have reached
the secondary yet. So a caller reads its own writes.

A write is in the journal before the primary is asked, and leaves it when the secondary has it. So the secondary shows
every write that was acknowledged before a read begins and that the journal does not hold open when it is asked. Indexes
that lag behind their table are the exception, as they are after a flip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bson import ObjectId
from pymongo.errors import ConnectionFailure

from shadow.errors import JournalError
from shadow.model.events import ComponentFailed, OperationFinished, ReadRouted
from shadow.model.keys import queue_key
from shadow.model.operation import Hit
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Role, Route, StoreName
from shadow.model.reads import Aggregate, Read, by_client
from shadow.model.stored import check_readable
from shadow.model.verdict import Routed
from shadow.model.version import Document
from shadow.mongoql import cached_pipeline
from shadow.reads.asking import TooManyDocuments, ask_store
from shadow.reads.stickiness import fixed_key, place
from shadow.stores.breaker import Breaker
from shadow.stores.within import within
from shadow.writes.context import LoopContext

__all__ = ["Answered", "PercentReads"]

_ONE_FORM: Final = frozenset({str, ObjectId})
"""Types of keys that are equal only where their BSON is, which is what the journal goes by."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The secondary's answer, in the form that the read's class names."""

    value: Any


def _check_readable(value: object) -> None:
    """Raises `UnreadableDocument` for an answer that cannot be given out; the primary's can."""
    hits = value if isinstance(value, list) else [value]
    for hit in hits:
        check_readable(hit.document if isinstance(hit, Hit) else hit)


class PercentReads:
    """One for each event loop. `unverified`: whether intents of a collection may have been lost."""

    def __init__(self, context: LoopContext, unverified: Callable[[str], bool]) -> None:
        self._stores = context.stores
        self._breakers = context.breakers
        self._journal = context.journal
        self._writes = context.writes
        self._limits = context.limits
        self._reporter = context.reporter
        self._unverified = unverified
        self._traces = context.traces
        # Apart from the breakers of the stores: a secondary that is too slow for this may well take writes.
        self._patience = {name: Breaker() for name in context.stores}

    async def answer(self, collection: str, read: Read, route: Route) -> Answered | None:
        """What the secondary answers, if this read is of its share and it does so in time; None: ask the primary.

        The documents of a `Find` are given out as a whole, for once the application has some of them, the primary
        could not take over.
        """
        reason, seconds = self._unfit(collection, read, route), 0.0
        if reason is None:
            started = time.perf_counter()
            found = await self._ask(collection, read, route)
            seconds = time.perf_counter() - started
            if isinstance(found, Answered):
                self._reporter.publish(ReadRouted(collection, route.secondary, Routed.SHARE, seconds))
                return found
            reason = found
        self._reporter.publish(ReadRouted(collection, route.primary, reason, seconds))
        return None

    def _unfit(self, collection: str, read: Read, route: Route) -> Routed | None:
        """Why the primary has to answer, as far as that is known without asking anyone."""
        pipeline = read.pipeline if isinstance(read, Aggregate) else ()
        if place(collection, read.filter, pipeline) >= route.secondary_reads:
            return Routed.OUTSIDE
        if self._unverified(collection):
            return Routed.DOUBTED
        if pipeline and cached_pipeline(pipeline).collections - {collection}:
            return Routed.JOINS
        # Whether it is closed, and not `allow`: that would use up the breaker's probe, which is for work off the
        # caller's path.
        if not self._breakers[route.secondary].closed or not self._patience[route.secondary].allow():
            return Routed.DOWN
        return None

    async def _ask(self, collection: str, read: Read, route: Route) -> Answered | Routed:
        patience, began, started = self._patience[route.secondary], False, time.perf_counter()
        outcome = Outcome.UNKNOWN
        try:
            async with within(self._limits.routed_read):
                if await self._is_open(collection, read.filter):
                    return Routed.OPEN
                began, started = True, time.perf_counter()
                store = self._stores[route.secondary]
                with self._traces.request(route.secondary, Role.SECONDARY):
                    # Not of a member that lags: a caller reads its own writes here.
                    wanted = by_client(read)
                    value = await ask_store(store, collection, wanted, at_most=self._limits.compare_documents)
                _check_readable(value)
        except TimeoutError:
            patience.failed()
            return Routed.SLOW
        except TooManyDocuments:
            outcome = Outcome.ACKED
            return Routed.TOO_LARGE
        except JournalError:
            return Routed.JOURNAL
        except Exception as error:
            outcome = classify(error)
            self._count_failure(route.secondary, error, outcome)
            return Routed.ERROR
        else:
            outcome = Outcome.ACKED
            patience.succeeded()
            self._breakers[route.secondary].succeeded()
            return Answered(value)
        finally:
            if began:
                seconds = time.perf_counter() - started
                self._reporter.publish(
                    OperationFinished(collection, read.verb, route.secondary, Role.SECONDARY, outcome, seconds)
                )

    async def _is_open(self, collection: str, filter: Document) -> bool:
        """Whether a write that this read has to show may not have reached the secondary."""
        key = fixed_key(filter)
        if type(key) in _ONE_FORM:
            return self._writes.busy(queue_key(collection, key)) or await self._journal.has_open(collection, key)
        return bool(self._writes.pending(collection) or await self._journal.entries(1, collection=collection))

    def _count_failure(self, store: StoreName, error: Exception, outcome: Outcome) -> None:
        """What the secondary refuses says nothing about whether it is up."""
        self._reporter.publish(ComponentFailed("routed_read", error))
        if isinstance(error, ConnectionFailure) or outcome is Outcome.UNKNOWN:
            self._patience[store].failed()
            self._breakers[store].failed()
