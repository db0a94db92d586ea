"""What a comparison is made with: the read, the two stores, and the reporter of what it came to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from shadow.model.events import ComparisonUndecided, OperationFinished, ReadTimed, Reporter
from shadow.model.expiry import renew
from shadow.model.newest import newest
from shadow.model.operation import Hit, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role
from shadow.model.reads import DocumentRead, Find, FindOne, Read, ValueRead
from shadow.model.schema import ExpirySpec
from shadow.model.verdict import Incomparable, Verdict
from shadow.model.version import Document, Image, Key
from shadow.reads.asking import ask_documents, ask_refusal, ask_store
from shadow.reads.unconfirmed import UnconfirmedMismatches
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.stores.within import within
from shadow.traces.spans import NO_TRACES, Cause, Traces

__all__ = [
    "SecondaryFailed",
    "ShadowRead",
    "StorePair",
    "documents",
    "image",
    "incomparable",
    "lags",
    "refusal",
    "values",
]


@dataclass(frozen=True, slots=True, eq=False)
class StorePair:
    """Two stores that are compared. `breaker` protects the secondary (None: nothing does); `reporter` is notified what
    each comparison came to; `unconfirmed` remembers the differences that are not confirmed yet."""

    primary: Store
    secondary: Store
    breaker: Breaker | None
    reporter: Reporter
    unconfirmed: UnconfirmedMismatches
    counted: bool = True
    """Whether requests to the secondary count as operations."""
    traces: Traces = NO_TRACES


@dataclass(frozen=True, slots=True)
class ShadowRead:
    """A read of the application, and the two stores that are asked it and compared."""

    collection: str
    asked: Read
    sides: StorePair
    late: bool = False
    """Whether either store reads an index that may lag behind its table."""
    refused: bool = False
    """Whether the secondary has refused it once."""

    expiry: ExpirySpec | None = None
    """By which rule documents of the collection expire."""
    caused_by: Cause | None = None
    """The call of the application that it repeats."""
    attempt: int = 1
    """Which probe of it this is."""
    seconds: float | None = None
    """In which the primary has answered it to the application; None: that is not compared."""

    def renewed(self) -> Read:
        """The read without what has expired by now: MongoDB may have deleted that since the application asked."""
        return self.asked if self.expiry is None else renew(self.expiry, self.asked, time.time())

    @property
    def verb(self) -> Verb:
        return self.asked.verb

    @property
    def documents(self) -> DocumentRead:
        """What is asked, where the answer names documents."""
        assert isinstance(self.asked, FindOne | Find)
        return self.asked

    @property
    def values(self) -> ValueRead:
        """What is asked, where the answer names none."""
        assert not isinstance(self.asked, FindOne | Find)
        return self.asked


class SecondaryFailed(Exception):
    """Wraps what the secondary raised, to tell it from what the primary or the journal did."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def incomparable(read: ShadowRead, reason: Incomparable) -> Verdict:
    """The verdict of a read whose answers can be called neither equal nor different, counted by its reason."""
    read.sides.reporter.publish(ComparisonUndecided(read.collection, read.verb, reason))
    return Verdict.INCOMPARABLE


async def documents(
    read: ShadowRead, role: Role, deadline: float, *, again: bool = False, timed: bool = False
) -> list[Hit]:
    """The documents that one store answers. Raises TimeoutError after `deadline` seconds, and what the store raises;
    all of it as `SecondaryFailed` if it is the secondary's. `again`: for a probe that decides, which wants the newest
    state and not that of a member which lags. Requests to the secondary are counted; `timed`: how long this one takes
    is compared, though it is asked for the newest state."""
    found: list[Hit] = await _answer(ask_documents, read, role, deadline, again=again, timed=timed)
    return found


async def values(read: ShadowRead, role: Role, deadline: float, *, again: bool = False, timed: bool = False) -> Any:
    """What one store answers to a read that names no documents; else as `documents`."""
    return await _answer(ask_store, read, role, deadline, again=again, timed=timed)


async def refusal(read: ShadowRead, role: Role, deadline: float, *, again: bool = False) -> None:
    """Asks one store as much as shows whether it refuses the read; else as `documents`."""
    await _answer(ask_refusal, read, role, deadline, again=again)


async def _answer(
    ask: Callable[[Store, str, Any], Awaitable[Any]],
    read: ShadowRead,
    role: Role,
    deadline: float,
    *,
    again: bool,
    timed: bool = False,
) -> Any:
    """`ask`: one of the functions of `asking`."""
    store = _store(read, role)
    started, outcome = time.perf_counter(), Outcome.UNKNOWN
    try:
        with _attributed(role), newest(again), read.sides.traces.request(store.name, role):
            async with within(deadline):
                found = await ask(store, read.collection, read.renewed() if again else read.asked)
        outcome = Outcome.ACKED
        return found
    finally:
        if role is Role.SECONDARY and read.sides.counted:
            seconds = time.perf_counter() - started
            read.sides.reporter.publish(
                OperationFinished(read.collection, read.verb, store.name, role, outcome, seconds)
            )
            # One that was given up on took at least as long; an error says nothing about how long an answer takes.
            answered = outcome is Outcome.ACKED or seconds >= deadline
            if read.seconds is not None and answered and (timed or not again):
                read.sides.reporter.publish(ReadTimed(read.collection, read.asked, read.seconds, seconds))


async def image(read: ShadowRead, role: Role, key: Key) -> Image:
    """What the key holds in one store. The caller bounds the time."""
    store = _store(read, role)
    with _attributed(role), read.sides.traces.request(store.name, role):
        return await store.image(read.collection, key)


def _store(read: ShadowRead, role: Role) -> Store:
    return read.sides.primary if role is Role.PRIMARY else read.sides.secondary


@contextmanager
def _attributed(role: Role) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if role is Role.SECONDARY:
            raise SecondaryFailed(error) from error
        raise


def lags(stores: StorePair, collection: str, filter: Document) -> bool:
    """Whether either store may answer a read with this filter from an index that is behind its table."""
    if len(filter) == 1 and type(filter.get("_id")) in (str, ObjectId):
        return False  # by its key: no index is used, and that needs no plan
    return stores.primary.may_lag(collection, filter) or stores.secondary.may_lag(collection, filter)
