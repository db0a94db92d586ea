"""The driver's databases and collections, as each kind of call needs them.

Calls of the application use the options of its client. Calls of shadow itself go to the primary member, and return the
stored bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import pymongo
from pymongo import ReadPreference, WriteConcern

from shadow.model.newest import wants_newest
from shadow.model.read_options import ReadOptions
from shadow.model.schema import RESERVED, CollectionSpec
from shadow.model.server_options import time_limit
from shadow.model.stored import RAW, split
from shadow.model.values import CANONICAL
from shadow.model.version import (
    ABSENT,
    Document,
    Image,
    Key,
)
from shadow.stores.calls import ClientHooks
from shadow.stores.mongo.bytes import plain_errors
from shadow.stores.mongo.calls import MongoLink
from shadow.stores.mongo.drivers import driver_of
from shadow.stores.mongo.durability import LOCAL, MAJORITY, Durability, Lasting, WeakWrites, waiting
from shadow.stores.mongo.looks import MongoLooks
from shadow.stores.mongo.shards import MongoShards
from shadow.stores.mongo.statements import (
    exactly,
    is_under,
    replacing,
)
from shadow.stores.mongo.unique import MongoUnique

__all__ = ["DEFAULTS", "MongoAccess", "MongoContext"]

_ON_THE_WAY: Final = 250
"""Milliseconds that a command needs beside its work, which the application's `maxTimeMS` does not count."""

_MOST_ASKED: Final = 64
"""Collections with options of a read that are kept."""

_OWN: Final[Mapping[str, Any]] = {
    "own": True,
    "read_preference": ReadPreference.PRIMARY,
    "read_concern": LOCAL,
    "write_concern": MAJORITY,
}
"""Options of the databases for shadow's own calls: independent of the application's client, which may read from
members that lag and write without acknowledgement."""


def _ignore(text: str) -> None: ...


@dataclass(frozen=True)
class MongoContext(ClientHooks):
    """What a store of MongoDB needs besides its client: limits, the application's options, and whom it reports to."""

    operation_limit: float = 30.0
    """Seconds that an operation may last."""
    again: Callable[[], Any] | None = None
    """Makes another client like an owned one that answers nothing any more."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of a database object of the application (`codec_options`, `read_preference`, `write_concern`,
    `read_concern`); they take precedence over the client's."""
    weak_writes: WeakWrites = WeakWrites.RAISE
    on_raised: Callable[[str], None] = _ignore
    """See `Durability`."""
    on_doubt: Callable[[str], None] = _ignore
    """Called with a collection of which an acknowledged write may have been rolled back."""


DEFAULTS: Final = MongoContext()


class MongoAccess:
    """`client` is Motor's or PyMongo's async client; `owned` says whether `close` ends it.

    `specs` names the reserved field of each collection; collections without an entry use the default.
    """

    def __init__(
        self,
        client: Any,
        database: str,
        specs: Mapping[str, CollectionSpec],
        *,
        owned: bool,
        context: MongoContext = DEFAULTS,
    ) -> None:
        limit, again = context.operation_limit, context.again if owned else None
        self.link = link = MongoLink(client, again, patience=limit / 2, hooks=context)
        self._options = dict(context.options)
        asked = self._options.get("write_concern")
        self._durability = Durability(
            link, weak=context.weak_writes, on_raised=context.on_raised, on_doubt=context.on_doubt, asked=asked
        )
        self.refuses = self._durability.refuses
        self._on_doubt = context.on_doubt
        self._name = database
        self._owned = owned
        self._specs = specs
        # Opening the intent, the way to the server and clock skew must fit into the limit as well.
        self._max_time_ms = max(1, int(limit * 500))
        self._database: Any = link.database(database, **{**self._options, "codec_options": CANONICAL})
        # Versions are read where they were written: a lagging member would make a repair copy an older image.
        self._exact: Any = link.database(database, codec_options=RAW, **_OWN)
        self._plain = link.database(database, codec_options=CANONICAL, **_OWN)
        self._collections: dict[tuple[str, bool, bool], Any] = {}
        self._by_options: dict[tuple[str, bool, ReadOptions], Any] = {}
        """For reads with options of their own."""
        self._concern: WriteConcern = waiting(client.write_concern if asked is None else asked)
        self._lasting = Lasting(self._exact, self._durability, self._max_time_ms)
        self.looks = MongoLooks(link, self._plain, self._reserved)
        self._shards = MongoShards(self.looks, self._exact, self._reserved, exactly, replacing)
        self._unique = MongoUnique(self._plain, self._reserved)

    @property
    def once(self) -> bool:
        """Whether an error ends everything, so that no call may be repeated: within a transaction."""
        return False

    @property
    def driver(self) -> Any:
        """The driver's database object, with the client's own options."""
        return self.client.get_database(self._name, **self._options)

    @property
    def client(self) -> Any:
        """The driver's client in use now."""
        return self.link.client

    async def close(self) -> None:
        await self.link.close(owned=self._owned)

    async def ping(self) -> None:
        await self._database.command("ping")

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "mongo",
            "driver": driver_of(self.client),
            "database": str(self._database.name),
            "write_concern": self._durability.describe(),
        }

    async def _image_now(self, collection: str, key: Key) -> Image:
        """The image from which a conditional write starts: it need not be durable."""
        return self._split(collection, key, await self._stored(collection, key))

    def _split(self, collection: str, key: Key, raw: Document | None) -> Image:
        """The image under exactly this key: under a collation, the server also returns other spellings."""
        if raw is None:
            return Image(ABSENT)
        image = split(raw, self._reserved(collection))
        return image if is_under(key, raw, image) else Image(ABSENT)

    async def _stored(self, collection: str, key: Key) -> Any:
        """The driver's raw document under a key, or None."""
        with plain_errors():
            return await self._exact[collection].find_one({"_id": key})

    def _in_time(self) -> AbstractContextManager[None]:
        """Limits every command of the block to the time that an operation has: the driver sends the remaining time
        as `maxTimeMS`, also for inserts, which have no such option. A fixed number would start again when the
        command arrives, however late. The application may give the server less time; what it has then is a little
        more, as this limit has to hold for the way there too."""
        asked = time_limit()
        limit = self._max_time_ms if asked is None else min(self._max_time_ms, asked + _ON_THE_WAY)
        return pymongo.timeout(limit / 1000)

    def _collection(self, name: str) -> Any:
        """The driver's collection, with the write concern of the application's writes."""
        return self._made(name, self._concern)

    def _bytes(self, name: str) -> Any:
        """The same, for calls that return documents: they come with the stored bytes."""
        return self._made(name, self._concern, raw=True)

    async def _copies(self, name: str) -> Any:
        """The same for writes of the secondary. Raises what the driver raises if no server can be reached."""
        return self._made(name, await self._durability.for_copies(), own=True)

    async def _read(
        self, name: str, *, raw: bool = True, newest: bool = False, options: ReadOptions | None = None
    ) -> Any:
        """The driver's collection for a read: as the application's client reads, or as its `options` say; or, for a
        read that decides something, only durable data. `newest`: the current data of the primary member, which is what
        a write is about."""
        if wants_newest():
            lasting = await self._lasting.reader(name)
            return lasting if raw else lasting.with_options(codec_options=CANONICAL)
        if newest:
            return self._exact[name]
        return self._made(name, self._concern, raw=raw) if options is None else self._optioned(name, raw, options)

    def _optioned(self, name: str, raw: bool, options: ReadOptions) -> Any:
        """Cached, for an application keeps its collections."""
        kept = self._by_options.get((name, raw, options))
        if kept is None:
            if len(self._by_options) >= _MOST_ASKED:
                self._by_options.clear()
            kept = self._made(name, self._concern, raw=raw).with_options(**options.of_driver())
            self._by_options[name, raw, options] = kept
        return kept

    def _made(self, name: str, concern: WriteConcern, *, raw: bool = False, own: bool = False) -> Any:
        """Cached: making one costs as much as the rest of a call. `own`: for shadow's own calls, without the options
        of the application's client."""
        kept = self._collections.get((name, raw, own))
        if kept is None or kept.write_concern != concern:
            options = {"codec_options": RAW} if raw else {}
            database = self._plain if own else self._database
            kept = database.get_collection(name, write_concern=concern, **options)
            self._collections[name, raw, own] = kept
        return kept

    def _reserved(self, collection: str) -> str:
        spec = self._specs.get(collection)
        return RESERVED if spec is None else spec.reserved
