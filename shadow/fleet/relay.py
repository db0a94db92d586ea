"""The relay: repairs what the stream of a primary shows as written out of band.

One process of all relays a store at a time; the others are ready to take over. What is written out of band goes
into the journal, like a write of the application that could not be replicated at once, and is repaired from there: it
survives the process, waits for a secondary that is down, and is shown where every other write is. Only then the cursor
moves on.

Shadow's own writes are known by their version. Where the event does not show one (a delete), or one that may be the old
one (a writer that wrote back a whole document as it had read it), both stores are asked, again and again for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.compare.equality import agree
from shadow.control.records import Records
from shadow.control.seat import Seat
from shadow.errors import ControlError
from shadow.host.process import this_process
from shadow.host.steady import steady
from shadow.model.events import ComponentFailed, OutOfBandWriteRelayed, OutOfBandWriteSeen, noted
from shadow.model.keys import queue_key
from shadow.model.phase import Role, StoreName
from shadow.model.verdict import Bypass
from shadow.model.version import Image, Tombstone, Version
from shadow.mongoql.expiry import has_expired
from shadow.observe.log import Event
from shadow.stores.past import BEGUN, TOO_OLD, HistoryLost, PastPage, PastWrite, Streaming, untold
from shadow.stores.within import within
from shadow.writes.context import LoopContext
from shadow.writes.replicator import Replicator

__all__ = ["Relay", "RelayContext", "RelayStatus"]

_LOOKS: Final = 6
"""How often both stores are asked about a change that may be shadow's own; then it counts as one past it."""
_SILENT: Final = 10.0
"""Heartbeats, of a second at least, after which a silent relay is replaced."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """How far the relayed writes of a store are, as far as this process knows. `behind`: seconds; `holder`: the
    process that relays, "" if none does; `fault`: why nothing is relayed, "" if something is; `collections`: by
    collection, how many writes were relayed (`count`) and when the last one was (`last`, epoch seconds); `unread`: the
    collections whose changes the store does not tell, with the reason. Nothing is relayed of those whose primary it is,
    and of the others nothing would be after a flip."""

    store: StoreName
    holder: str
    behind: float
    fault: str
    collections: Mapping[str, Mapping[str, Any]]
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RelayContext:
    """What the relays of an event loop share. `names`: the configured collections; `heartbeat`: seconds."""

    loop: LoopContext
    replicator: Replicator
    records: Records
    names: Callable[[], Iterable[str]]
    heartbeat: float


class Relay:
    """One for each event loop and store."""

    def __init__(self, source: Streaming, store: StoreName, parts: RelayContext) -> None:
        context = parts.loop
        self._source = source
        self._store = store
        self._stores = context.stores
        self._routes = context.routes
        self._journal = context.journal
        self._limits = context.limits
        self._reporter = context.reporter
        self._expiry = context.expiry
        self._replicator = parts.replicator
        self._names = parts.names
        self._beat = max(1.0, parts.heartbeat)
        self._seat = Seat(parts.records, f"relay/{store}", this_process, _SILENT * self._beat)
        self._saved = 0.0
        self._fault = "not asked yet"

    async def run(self, turn: Callable[[], None] = lambda: None) -> None:
        """Follows, or waits for its turn to follow, until cancelled. Raises `UnsupportedOperation` for a store that
        reports no changes, `ControlError`, `JournalError`, and what the driver raises."""
        try:
            while True:
                turn()
                if await asyncio.to_thread(self._seat.take):
                    # Of no collection: what cannot be read of one does not stop the others.
                    await self._source.check_stream(())
                    await self._follow(turn)
                self._fault = ""
                await asyncio.sleep(self._beat)
        except Exception as error:
            self._fault = untold(error)
            # For the processes that do not have the seat.
            self._seat.value = {**self._seat.value, "fault": self._fault}
            raise
        finally:
            with suppress(ControlError):
                await asyncio.to_thread(self._seat.leave)

    def status(self) -> RelayStatus:
        """Does no I/O."""
        value, quiet = self._seat.value, self._seat.unchanged
        late = quiet if quiet > 3 * self._beat else 0.0
        fault = self._fault or str(value.get("fault", "")) or ("" if self._seat.holder else "no process relays")
        behind = value.get("behind", 0.0) + late
        unread = {name: str(each["reason"]) for name, each in value.get("unread", {}).items()}
        return RelayStatus(self._store, self._seat.holder, behind, fault, value.get("collections", {}), unread)

    def reads(self, collection: str) -> bool:
        """Whether the store tells the changes of the collection. Does no I/O."""
        return collection not in self._seat.value.get("unread", {})

    async def _follow(self, turn: Callable[[], None]) -> None:
        """Returns when another process has the seat, or when the stream has ended."""
        cursor = self._seat.value.get("cursor")
        unknown = (self._seat.value.get("lost") or BEGUN) if cursor is None else ""
        try:
            async with aclosing(self._source.past_writes(cursor)) as pages:  # type: ignore[type-var]
                async for page in pages:
                    turn()
                    self._fault = ""
                    await self._doubt([*((name, unknown) for name in self._names() if unknown), *page.lost])
                    unknown = ""
                    relayed = await self._taken(page)
                    if not await self._note(page, relayed):
                        return
        except HistoryLost:
            # Noted before anything is relayed again, so that it is not forgotten with this process.
            await asyncio.to_thread(self._seat.keep, {**self._seat.value, "cursor": None, "lost": TOO_OLD})

    async def _doubt(self, lost: Iterable[tuple[str, str]]) -> None:
        """Marks collections unverified, each for its reason, before the cursor moves on."""
        for name, reason in dict(lost).items():
            route = await self._routes.route(name)
            if route.dual_write and route.primary is self._store:
                self._journal.doubt(name)
                await self._journal.flush()
                fields = {"collection": name, "store": str(self._store), "reason": reason}
                self._reporter.publish(noted(Event.RELAY_LOST, **fields))

    async def _note(self, page: PastPage, relayed: Mapping[str, int]) -> bool:
        """Notes how far it is, once in a heartbeat; False: another process has the seat. A page that is not noted is
        relayed again after a crash, which does no harm."""
        value, now = self._seat.value, time.time()
        collections = dict(value.get("collections", {}))
        for name, count in relayed.items():
            before = collections.get(name, {"count": 0})
            collections[name] = {"count": before["count"] + count, "last": now}
        unread = await self._unread(page, value.get("unread", {}))
        since = [float(each["since"]) for each in unread.values() if each["since"]]
        since += [] if page.quiet or not page.at else [page.at]
        behind = max(0.0, now - min(since, default=now))
        self._seat.value = {"cursor": page.cursor, "behind": behind, "collections": collections, "unread": unread}
        if "cursor" in value and value["cursor"] is not None and steady() - self._saved < self._beat:
            return True
        self._saved = steady()
        return await asyncio.to_thread(self._seat.keep, self._seat.value)

    async def _unread(self, page: PastPage, before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The collections whose changes this store does not tell: why, and since when that counts. It counts while the
        store is their primary; 0: it is the secondary."""
        found: dict[str, dict[str, Any]] = {}
        for name, reason in page.unread:
            route = await self._routes.route(name)
            if not route.dual_write:
                continue
            known, role = before.get(name, {}), Role.PRIMARY if route.primary is self._store else Role.SECONDARY
            since = known.get("since", 0.0) or time.time() if role is Role.PRIMARY else 0.0
            if known.get("reason") != reason or bool(known.get("since")) is not bool(since):
                fields = {"collection": name, "store": str(self._store), "role": str(role), "reason": reason}
                self._reporter.publish(noted(Event.RELAY_UNREAD, **fields))
            found[name] = {"reason": reason, "since": since}
        return found

    async def _taken(self, page: PastPage) -> Mapping[str, int]:
        """Leaves to the journal what was written past shadow; how much it was, by collection."""
        sure: list[PastWrite] = []
        unsure: list[PastWrite] = []
        for each in page.writes:
            route = await self._routes.route(each.collection)
            if not route.dual_write:
                continue
            if route.primary is self._store:
                (sure if each.certain else unsure).append(each)
            elif each.certain:
                self._reporter.publish(OutOfBandWriteSeen(each.collection, each.kind, each.key, each.name))
        relayed: Counter[str] = Counter()
        relayed.update(await self._heal(sure))
        if unsure:
            relayed.update(await self._heal(await self._sifted(unsure)))
        return relayed

    async def _heal(self, writes: Sequence[PastWrite]) -> Mapping[str, int]:
        relayed: Counter[str] = Counter()
        for name, each in _by_collection(writes).items():
            keys = list({queue_key(name, one.key): one.key for one in each}.values())
            # Inside: a flip waits until what is in the journal is repaired.
            async with self._routes.healing(name) as route:
                ours = route.dual_write and route.primary is self._store
                if ours:
                    await self._replicator.heal_soon(name, keys)
            for one in each:
                if one.by_store:
                    continue  # there is no writer to find
                if ours:
                    relayed[name] += 1
                    self._reporter.publish(OutOfBandWriteRelayed(name, one.kind))
                elif route.dual_write and one.certain:
                    self._reporter.publish(OutOfBandWriteSeen(name, one.kind, one.key, one.name))
        return relayed

    async def _sifted(self, writes: Sequence[PastWrite]) -> list[PastWrite]:
        """Those that are not shadow's own. What is still under way is asked about again."""
        found: list[PastWrite] = []
        left = list(writes)
        for look in range(_LOOKS):
            again: list[PastWrite] = []
            for name, each in _by_collection(left).items():
                for one, past in zip(each, await self._look(name, each, last=look > 0), strict=True):
                    if past is None:
                        again.append(one)
                    elif past:
                        found.append(one)
            left = again
            if not left:
                break
            await asyncio.sleep(self._limits.settle)
        return found + left

    async def _look(self, name: str, writes: Sequence[PastWrite], *, last: bool) -> list[bool | None]:
        """Of each, whether it was written past shadow; None: it cannot be known yet."""
        route, keys = self._routes[name], [each.key for each in writes]
        # Before the stores: a write that ends in between has left its traces in both.
        waiting = await asyncio.gather(*(self._journal.has_open(name, key) for key in keys))
        try:
            async with within(self._limits.operation):
                others = await self._stores[route.secondary].images(name, keys)
                images = await self._stores[route.primary].images(name, keys)
        except Exception as error:
            # A secondary that does not answer: the journal asks it for as long as it takes.
            self._reporter.publish(ComponentFailed("relay", error))
            return [None] * len(writes)
        expiry = self._expiry(name)
        found: list[bool | None] = []
        for each, image, other, open_ in zip(writes, images, others, waiting, strict=True):
            if each.kind is Bypass.DELETED and has_expired(expiry, other.document):
                found.append(False)  # the store has deleted it by its own rule, and so will the other one
                continue
            if each.by_store:
                found.append(not image.present and other.present)
                continue
            past = _deleted_past(image, other) if each.kind is Bypass.DELETED else _written_past(image, other)
            found.append(past if past is not None or open_ or not last else True)
        return found


def _by_collection(writes: Iterable[PastWrite]) -> dict[str, list[PastWrite]]:
    found: dict[str, list[PastWrite]] = {}
    for each in writes:
        found.setdefault(each.collection, []).append(each)
    return found


def _deleted_past(image: Image, other: Image) -> bool | None:
    """Each of shadow's own deletes leaves a tombstone in the secondary; whatever exists again has an event of its
    own."""
    return False if image.present or isinstance(other.state, Tombstone) else None


def _written_past(image: Image, other: Image) -> bool | None:
    """The same version with another content was written past shadow; a version that the secondary does not have may
    still be on its way."""
    if not isinstance(image.state, Version):
        return False
    if image.state != other.state:
        return None
    return not agree(image, other)
