"""The durability of MongoDB's acknowledgements, and reads of durable data.

In a replica set a write that fewer than a majority of the members have is *rolled back* when another member becomes
primary without it. A write that was acknowledged to the application, or copied to the other store, must survive. So:

- writes use `w: majority`, even if the client, or the server's default, has a weaker write concern;
- a write with a stronger concern than a majority, or a named concern of the set, is acknowledged as requested, and then
  waits until a majority has it;
- repairs, verification and copies read with read concern `linearizable`: the newest data of the primary, only when a
  majority has it, from a member that is still the primary.

A standalone server, or a set of one member, cannot roll back: none of this is done there.

Sources: the MongoDB manual, "Write Concern", "Read Concern linearizable", "Rollbacks During Replica Set Failover"; the
specification "Server Discovery and Monitoring" for how servers describe themselves.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

from pymongo import WriteConcern
from pymongo.errors import PyMongoError, WriteConcernError
from pymongo.read_concern import ReadConcern

from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.calls import MongoLink

__all__ = [
    "LINEARIZABLE",
    "LOCAL",
    "MAJORITY",
    "Durability",
    "Lasting",
    "WeakWrites",
    "election",
    "members",
    "strengthened",
    "waiting",
]

LINEARIZABLE: Final = ReadConcern("linearizable")
LOCAL: Final = ReadConcern("local")
"""Set explicitly, because the client or the server's default (`setDefaultRWConcern`) may differ, and show less than
what the primary has now."""
MAJORITY: Final = WriteConcern("majority")
_MANY: Final = 3
"""Members of a deployment that does not report how many it has: a sharded cluster, a load balancer."""
_NOT_REPLICATED: Final = 64
"""WriteConcernFailed (error_codes.yml)."""


class WeakWrites(enum.StrEnum):
    """What happens to writes whose write concern allows a replica set to roll them back."""

    RAISE = "raise"
    """They use `w: majority`."""
    REFUSE = "refuse"
    """They raise `UnsupportedOperation`; neither store is called."""


class Durability:
    """For the clients of one link. `on_raised` is called with a text for an option of the client that is overridden;
    `on_doubt` with a collection of which an acknowledged write may have been rolled back."""

    def __init__(
        self,
        link: MongoLink,
        *,
        weak: WeakWrites = WeakWrites.RAISE,
        on_raised: Callable[[str], None] = lambda asked: None,
        on_doubt: Callable[[str], None] = lambda collection: None,
        asked: WriteConcern | None = None,
    ) -> None:
        """`asked`: the write concern of a database object of the application, which takes precedence over the
        client."""
        self._link = link
        self._asked: WriteConcern = waiting(link.client.write_concern if asked is None else asked)
        self.refuses = weak is WeakWrites.REFUSE
        self._on_raised = on_raised
        self._on_doubt = on_doubt
        self._seen: Any = self
        self._members: int | None = None
        self._concern: WriteConcern = self._asked
        self._told = False

    async def learn(self) -> None:
        """Learns how many members there are, if that is not known. Costs nothing while the driver has seen no
        change. Raises what the driver raises if no server can be reached."""
        description = self._description()
        if description is self._seen:
            return
        count = members(description)
        if count is None and self._members is None:
            count = _members_said(await self._link.database("admin").command("hello"))
            description = self._description()
        self._seen = description
        if count is not None and count != self._members:
            self._members = count
            self._concern = waiting(strengthened(self._asked, count))

    @property
    def replicated(self) -> bool:
        """Whether there is another member that could become primary, as far as is known."""
        return self._members is not None and self._members > 1

    async def admit(self) -> None:
        """Raises `UnsupportedOperation` if writes would need a stronger write concern and the setting refuses them."""
        if not self.refuses:
            return
        await self.learn()
        if self._is_weak():
            raise UnsupportedOperation(
                f"write concern {_shown(self._asked)}",
                "the server could roll back writes that it acknowledges with that",
                hint="set w=majority in mongo.url (or on the client), or mongo.weak_writes: raise",
            )

    async def for_application(self) -> WriteConcern:
        """The write concern of the application's own writes. Raises what `learn` raises."""
        await self.learn()
        if not self._told and self._is_weak():
            self._told = True
            self._on_raised(_shown(self._asked))
        return self._concern

    async def for_copies(self) -> WriteConcern:
        """The write concern of replays, copies and tombstones: they need a majority, and wait for no more."""
        await self.learn()
        return MAJORITY if self.replicated else self._concern

    def _is_weak(self) -> bool:
        return "w" in self._asked.document and self._concern != self._asked

    def describe(self) -> str:
        """The write concern in force, for `/status`; `server default` if none is sent to the server."""
        return _shown(self._concern) or "server default"

    # --- more than a majority -----------------------------------------------------------------------------------

    @property
    def unproven(self) -> bool:
        """Whether the write concern of the application's writes does not prove that a majority has them."""
        return self.replicated and self._concern.document.get("w") != "majority"

    def election(self) -> Any:
        """An id for the term of the primary that the driver knows."""
        return election(self._description())

    def _description(self) -> Any:
        """What the driver knows of the servers; None for a client that does not report it."""
        return getattr(self._link.client, "topology_description", None)

    async def prove(self, collection: Any, before: Any, limit_ms: int) -> None:
        """Returns when a majority has the write that `collection` (the driver's) acknowledged in the term `before`.
        Raises `WriteConcernError` if that is unknown: the collection is unverified then, as it is when this is
        cancelled."""
        proven = False
        try:
            proven = await _has_majority(collection, limit_ms) and before is not None and self.election() == before
        finally:
            if not proven:
                self._on_doubt(collection.name)
        if not proven:
            raise WriteConcernError(
                f"acknowledged with {_shown(self._asked)}, and not known to be on a majority of the members",
                _NOT_REPLICATED,
            )


async def _has_majority(collection: Any, limit_ms: int) -> bool:
    """Asks whether a majority has all that the primary had before. Only the arrival of the response matters, not its
    content."""
    reader = collection.with_options(read_concern=LINEARIZABLE)
    try:
        await reader.find_one({"_id": None}, {"_id": 1}, max_time_ms=limit_ms)
    except PyMongoError:
        return False
    return True


class Lasting:
    """Reads of durable data: `linearizable` where it could be rolled back, and always from the primary. `database`:
    the driver's, whose codec options apply; `limit_ms`: how long the server may wait for a majority."""

    def __init__(self, database: Any, durability: Durability, limit_ms: int) -> None:
        self.database = database
        self._durability = durability
        self._limit_ms = limit_ms

    async def find_one(self, collection: str, key: Any) -> Any:
        return await (await self.reader(collection)).find_one({"_id": key}, **self._bound())

    async def find(self, collection: str, filter: dict[str, Any], projection: Any) -> list[Any]:
        cursor = (await self.reader(collection)).find(filter, projection, **self._bound())
        found: list[Any] = await cursor.to_list(length=None)
        return found

    async def first_batch(self, command: dict[str, Any]) -> list[Any]:
        """The response to a `find` command of one batch."""
        await self._durability.learn()
        if self._durability.replicated:
            command = {**command, "readConcern": LINEARIZABLE.document, "maxTimeMS": self._limit_ms}
        else:
            command = {**command, "readConcern": LOCAL.document}
        answer = await self.database.command(command, codec_options=self.database.codec_options)
        found: list[Any] = answer["cursor"]["firstBatch"]
        return found

    async def copies(self, collection: str) -> Any:
        """The driver's collection, with the write concern of copies."""
        return self.database.get_collection(collection, write_concern=await self._durability.for_copies())

    async def reader(self, collection: str) -> Any:
        """The driver's collection for such reads; the caller limits the time."""
        await self._durability.learn()
        concern = LINEARIZABLE if self._durability.replicated else LOCAL
        return self.database.get_collection(collection, read_concern=concern)

    def _bound(self) -> dict[str, Any]:
        return {"max_time_ms": self._limit_ms} if self._durability.replicated else {}


def members(description: Any) -> int | None:
    """How many queryable members a driver's `TopologyDescription` lists; None if it has seen none."""
    if description is None:
        return None
    counts = [
        _members_of(server)
        for server in description.server_descriptions().values()
        if server.server_type_name not in ("Unknown", "PossiblePrimary", "RSGhost")
    ]
    return max(counts) if counts else None


def _members_of(server: Any) -> int:
    if server.server_type_name == "Standalone":
        return 1
    return len(server.all_hosts) if server.server_type_name.startswith("RS") else _MANY


def _members_said(hello: Mapping[str, Any]) -> int:
    """The same from a server's own response."""
    if "setName" in hello:
        return sum(len(hello.get(kind, ())) for kind in ("hosts", "passives", "arbiters"))
    return _MANY if hello.get("msg") == "isdbgrid" else 1


def election(description: Any) -> Any:
    """An id for the term of the primary; None if the driver knows none, or the server does not report it."""
    if description is None:
        return None
    found = [
        server.election_id
        for server in description.server_descriptions().values()
        if server.server_type_name == "RSPrimary" and server.election_id is not None
    ]
    return max(found) if found else None


def strengthened(asked: WriteConcern, count: int) -> WriteConcern:
    """The write concern in use for a write that asks for `asked`, with so many members. More than a majority is
    kept, and so is a named write concern of the set."""
    w = asked.document.get("w")
    if w == 0 or (count > 1 and _at_most_a_majority(w, count)):
        wtimeout = asked.document.get("wtimeout")
        # `j: false` would accept data in a majority's memory; `fsync` is the old name of `j`.
        on_disk = asked.document.get("j") or asked.document.get("fsync")
        return WriteConcern("majority", wtimeout=wtimeout, j=True if on_disk else None)
    return asked


class _PendingConcern(WriteConcern):
    """A write concern whose `wtimeout` is sent although the call has a limit of the driver's: PyMongo removes it
    then (`_csot.apply_write_concern`), and a write would wait for its members as long as the whole operation may
    take."""

    __slots__ = ()

    @property
    def document(self) -> dict[str, Any]:
        return _Whole(super().document)


class _Whole(dict[str, Any]):
    def pop(self, name: str, *default: Any) -> Any:
        return self.get(name, *default)


def waiting(concern: WriteConcern) -> WriteConcern:
    """The same concern; its `wtimeout`, if it has one, is always sent."""
    asked = concern.document
    if "wtimeout" not in asked or isinstance(concern, _PendingConcern):
        return concern
    return _PendingConcern(w=asked.get("w"), wtimeout=asked["wtimeout"], j=asked.get("j"), fsync=asked.get("fsync"))


def _at_most_a_majority(w: Any, count: int) -> bool:
    return w is None or w == "majority" or (isinstance(w, int) and w <= count // 2 + 1)


def _shown(concern: WriteConcern) -> str:
    return ", ".join(f"{name}={value}" for name, value in concern.document.items())
