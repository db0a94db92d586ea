"""The intents of an operation: opened before the primary is asked, ended by the outcome of the write.

An intent protects its write for `limits.operation` seconds and no longer: after that any process may take it for
orphaned, heal its key and forget it. So an intent that is a quarter of that old before the primary is asked is replaced
by a new one. An intent that is three quarters of that old when the primary has answered, as it can be after the process
or the machine was suspended, is renewed before the write is replicated.

If the journal cannot be written, the operation is refused, or, by setting, made without an intent, and the caller waits
for both stores. A process that dies during such a write leaves no trace of it, so the collection counts as unverified
before the first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

from shadow.errors import JournalError
from shadow.host.failpoints import Failpoints, Point, no_failpoint
from shadow.host.steady import steady
from shadow.journal.base import Entry, Journal, undecided
from shadow.model.events import ComponentFailed, Reporter, WriteUnjournaled
from shadow.model.limits import Limits
from shadow.model.operation import ANY
from shadow.model.verdict import Deferral
from shadow.model.version import Key, fresh_id, fresh_ids
from shadow.stores.breaker import Breaker

__all__ = ["FailurePolicy", "Intents", "OnFailure", "OnGap", "Opened", "no_gap"]

_ATTEMPTS: Final = 3
"""How often intents are opened again because the journal was slow."""


OnGap = Callable[[str], Awaitable[None]]


async def no_gap(collection: str) -> None:
    return


class OnFailure(enum.StrEnum):
    """What happens to writes while the journal cannot be written."""

    REFUSE = "refuse"
    """`JournalError`; neither store is asked."""
    SYNC = "sync"
    """Both stores are written, and the caller waits for both. The journal does not know what the secondary did not
    acknowledge: the collection is marked unverified."""


@dataclass(slots=True)
class _Age:
    """Seconds since it was made, by a clock that continues while the machine sleeps and that nobody sets."""

    since: float = field(default_factory=lambda: steady())

    @property
    def seconds(self) -> float:
        return steady() - self.since


@dataclass(frozen=True, slots=True)
class Opened:
    """The intents of one operation, one for each of its changes; `durable`: whether the journal has them."""

    op_ids: Sequence[str]
    durable: bool
    age: _Age


@dataclass(frozen=True)
class FailurePolicy:
    """What to do while the journal fails."""

    on_failure: OnFailure = OnFailure.REFUSE
    on_journal: Callable[[bool], None] = lambda works: None
    """Called with False when the journal fails, and True when it works again."""
    on_gap: OnGap = no_gap
    """Called before each write without an intent. Raises `JournalError` where that must not be made."""


class _Entries(Sequence[Entry]):
    """Intents that are made when they are asked for: see `model.batches`."""

    __slots__ = ("_collection", "_keys", "_op_ids")

    def __init__(self, collection: str, keys: Sequence[Key], op_ids: Sequence[str]) -> None:
        self._collection = collection
        self._keys = keys
        self._op_ids = op_ids

    def __len__(self) -> int:
        return len(self._op_ids)

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...

    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        keys, op_ids = self._keys[place], self._op_ids[place]
        if isinstance(place, slice):
            return _Entries(self._collection, keys, op_ids)
        op_id = str(op_ids)
        return Entry(op_id, self._collection, undecided(op_id) if keys is ANY else keys)


class Intents:
    """One for each event loop."""

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        reporter: Reporter,
        *,
        policy: FailurePolicy | None = None,
        reach: Failpoints = no_failpoint,
    ) -> None:
        policy = policy or FailurePolicy()
        self._journal = journal
        self._limit = limits.operation
        self._reporter = reporter
        self._on_failure = policy.on_failure
        self._breaker = Breaker(threshold=1, on_change=policy.on_journal)
        self._on_gap = policy.on_gap
        self._reach = reach
        self._bare: set[str] = set()

    async def open(self, collection: str, keys: Sequence[Key]) -> Opened:
        """Makes one intent for each key durable, undecided for `ANY`. If the journal cannot be written, raises
        `JournalError` with `on_failure: refuse`, else returns intents that are not durable, at once if that is
        known."""
        if self._on_failure is OnFailure.SYNC and not self._breaker.allow():
            return await self._gap(collection, keys)
        try:
            opened = await self._open(collection, keys)
        except JournalError as error:
            self._breaker.failed()
            self._reporter.publish(ComponentFailed("journal", error))
            if self._on_failure is OnFailure.REFUSE:
                raise
            return await self._gap(collection, keys)
        self._breaker.succeeded()
        return opened

    async def open_durably(self, collection: str, keys: Sequence[Key]) -> Opened:
        """`open`, for what must not be done at all without intents. Raises `JournalError`."""
        return await self._open(collection, keys)

    @staticmethod
    def none(count: int) -> Opened:
        """Ids of operations that need no intents yet."""
        return Opened(_ids(count), durable=True, age=_Age())

    async def young(self, collection: str, keys: Sequence[Key], opened: Opened) -> Opened:
        """The intents, or new ones as of `open` where these have waited so long that the primary must not be asked with
        them. It was not asked yet."""
        if not opened.durable or opened.age.seconds <= self._limit / 4:
            return opened
        self.drop(opened)
        return await self.open(collection, keys)

    def drop(self, opened: Opened) -> None:
        """Closes the intents of what the primary is never asked."""
        for op_id in opened.op_ids:
            self.close(op_id)

    def expired(self, opened: Opened) -> bool:
        """Whether others may take the intents for orphaned, or soon will."""
        return opened.durable and opened.age.seconds > self._limit * 3 / 4

    async def renew(self, collection: str, keys: Sequence[Key], opened: Opened) -> Opened:
        """New intents for those that have expired. If they cannot be written, the collection is unverified: the primary
        has the write."""
        try:
            fresh = await self._open(collection, keys)
        except JournalError as error:
            self._reporter.publish(ComponentFailed("journal", error))
            self._journal.doubt(collection)
            with contextlib.suppress(JournalError):
                await self._on_gap(collection)
            fresh = self._without(keys)
        for op_id in opened.op_ids:
            self._journal.close(op_id)
        return fresh

    def decide(self, op_id: str, key: Key) -> None:
        """The operation, which found its document by itself, has changed this key."""
        if op_id not in self._bare:
            self._journal.decide(op_id, key)

    def close(self, op_id: str) -> None:
        """The primary refused the change, or changed nothing."""
        if op_id in self._bare:
            self._bare.discard(op_id)
        else:
            self._journal.close(op_id)

    def taken(self, collection: str, op_id: str) -> None:
        """The secondary has the write."""
        if op_id in self._bare:
            self._reporter.publish(WriteUnjournaled(collection, taken=True))
        self.close(op_id)

    def defer(self, collection: str, op_id: str, reason: Deferral) -> None:
        """The secondary does not have the write yet, or nobody knows whether the primary has it."""
        if op_id in self._bare:
            self._bare.discard(op_id)
            self._reporter.publish(WriteUnjournaled(collection, taken=False))
            self._journal.doubt(collection)
        else:
            self._journal.defer(op_id, unknown=reason is Deferral.PRIMARY_UNKNOWN)

    def doubt(self, collection: str) -> None:
        """An intent that is not durable is left while its write is under way."""
        self._journal.doubt(collection)

    async def _gap(self, collection: str, keys: Sequence[Key]) -> Opened:
        await self._on_gap(collection)
        return self._without(keys)

    def _without(self, keys: Sequence[Key]) -> Opened:
        op_ids = _ids(len(keys))
        self._bare.update(op_ids)
        return Opened(op_ids, durable=False, age=_Age())

    async def _open(self, collection: str, keys: Sequence[Key]) -> Opened:
        self._reach(Point.BEFORE_INTENT)
        attempts = _ATTEMPTS if self._on_failure is OnFailure.REFUSE else 1
        for _ in range(attempts):
            opened = Opened(_ids(len(keys)), durable=True, age=_Age())
            if await self._open_once(collection, keys, opened):
                return opened
            for op_id in opened.op_ids:
                self._journal.close(op_id)
        raise JournalError(
            f"the journal took longer than {self._limit / 4:g} s" + (f", {attempts} times in a row" * (attempts > 1)),
            hint="look at the disk or the server that it is on",
        )

    async def _open_once(self, collection: str, keys: Sequence[Key], opened: Opened) -> bool:
        """False: it took so long that others may soon take the intents for orphaned."""
        entries = _Entries(collection, keys, opened.op_ids)
        try:
            async with asyncio.timeout(self._limit / 4):
                await self._journal.open(entries)
        except TimeoutError:
            return False
        self._reach(Point.AFTER_INTENT)
        # Last of all before the primary is asked: a process may have been stopped up to here.
        return opened.age.seconds <= self._limit / 4


def _ids(count: int) -> list[str]:
    return [fresh_id()] if count == 1 else fresh_ids(count)
