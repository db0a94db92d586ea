"""What a comparison is made with: the read, whom to ask on either side, and who hears what it came to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from shadow.compare.equality import Comparison
from shadow.model.newest import newest
from shadow.model.operation import Hit, Query, Verb
from shadow.model.outcome import Outcome
from shadow.model.phase import Role
from shadow.model.reporter import Reporter
from shadow.model.verdict import Incomparable, Verdict
from shadow.model.version import Document, Image, Key
from shadow.reads.suspects import Suspects
from shadow.stores.base import Store
from shadow.stores.breaker import Breaker
from shadow.stores.within import within

__all__ = ["Answer", "Read", "SecondaryFailed", "StorePair", "collect", "image", "incomparable", "lags", "reply"]


@dataclass(frozen=True, slots=True, eq=False)
class StorePair:
    """Two stores that are compared. `breaker` stands before the secondary (None: nothing does); `hears` is told what
    each comparison came to; `suspects` remembers the differences that are not confirmed yet."""

    primary: Store
    secondary: Store
    breaker: Breaker | None
    hears: Reporter
    suspects: Suspects
    counted: bool = True
    """Whether requests to the secondary count as operations."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a read that names no documents; how to ask a store again; how to compare the primary's with the
    secondary's; whose it is."""

    given: Any
    ask: Callable[[Store], Awaitable[Any]]
    compare: Callable[[Any, Any], Comparison]
    by: Role = Role.PRIMARY


@dataclass(frozen=True, slots=True)
class Read:
    """A read of the application, with the means to ask it again of either side."""

    collection: str
    verb: Verb
    query: Query
    sides: StorePair
    late: bool = False
    """Whether it goes through an index that may lag behind its table, on either side."""
    refused: bool = False
    """Whether the secondary has refused it once."""


class SecondaryFailed(Exception):
    """Wraps what the secondary raised, to tell it from what the primary or the journal did."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def incomparable(read: Read, reason: Incomparable) -> Verdict:
    """The verdict of a read of which neither equal nor different can be said, counted by its reason."""
    read.sides.hears.incomparable(read.collection, read.verb, reason)
    return Verdict.INCOMPARABLE


async def collect(read: Read, role: Role, deadline: float, *, again: bool = False) -> list[Hit]:
    """The whole answer of one side. Raises TimeoutError after `deadline` seconds, and what the store raises; all of
    it as `SecondaryFailed` if it is the secondary's. `again`: for a look that decides, which wants the newest and not
    what a member shows that lags."""

    async def documents(store: Store) -> list[Hit]:
        if read.verb is Verb.FIND_ONE:
            hit = await store.find_one(read.collection, read.query)
            return [] if hit is None else [hit]
        return [hit async for page in store.find(read.collection, read.query) for hit in page]

    found: list[Hit] = await reply(read, role, documents, deadline, again=again)
    return found


async def reply(
    read: Read, role: Role, ask: Callable[[Store], Awaitable[Any]], deadline: float, *, again: bool = False
) -> Any:
    """What `ask` gets from one side; raises as `collect` does. Requests to the secondary are counted."""
    store = _store(read, role)
    started, outcome = time.perf_counter(), Outcome.UNKNOWN
    try:
        with _blaming(role), newest(again):
            async with within(deadline):
                found = await ask(store)
        outcome = Outcome.ACKED
        return found
    finally:
        if role is Role.SECONDARY and read.sides.counted:
            seconds = time.perf_counter() - started
            read.sides.hears.operation(read.collection, read.verb, store.name, role, outcome, seconds)


async def image(read: Read, role: Role, key: Key) -> Image:
    """What the key holds on one side. The caller bounds the time."""
    with _blaming(role):
        return await _store(read, role).image(read.collection, key)


def _store(read: Read, role: Role) -> Store:
    return read.sides.primary if role is Role.PRIMARY else read.sides.secondary


@contextmanager
def _blaming(role: Role) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if role is Role.SECONDARY:
            raise SecondaryFailed(error) from error
        raise


def lags(stores: StorePair, collection: str, filter: Document) -> bool:
    """Whether a read with this filter may be answered by an index that is behind its table, on either side."""
    if len(filter) == 1 and type(filter.get("_id")) in (str, ObjectId):
        return False  # by its key: no index has a part in it, and no plan need be made to say so
    return stores.primary.may_lag(collection, filter) or stores.secondary.may_lag(collection, filter)
