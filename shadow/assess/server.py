"""What a MongoDB reports about itself to a read-only user. Every request only reads, has a time limit, and goes to a
secondary member if there is one; documents come in small batches at a limited pace. What the user may not read is
recorded in `denied`, without further effect.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson import MaxKey
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.errors import OperationFailure, PyMongoError

from shadow.assess.queries import MARK
from shadow.errors import StoreUnavailable
from shadow.jobs.throttle import RateLimiter
from shadow.model.order import key_digest
from shadow.model.stored import Damaged, document_of, element_document, key_of
from shadow.model.values import CANONICAL
from shadow.model.version import Document, Key
from shadow.stores.mongo.kinds import ListedCollection
from shadow.stores.mongo.shard_keys import ShardKey

__all__ = ["Asked", "Counts", "DocumentPage", "ListedCollection", "Server", "is_whole"]

_SECONDS: Final = 30
_MILLISECONDS: Final = _SECONDS * 1000
_NAMED: Final = 8
"""The most keys of unreadable documents to keep."""
_PAGE: Final = 100
_DENIED: Final = frozenset({13, 8000})
"""Unauthorized (MongoDB's error_codes.yml), and Atlas' own code for it."""
_GENTLY_SAMPLED: Final = 0.04
"""The share of a collection up to which `$sample` uses a random cursor (under 5 %); beyond it, it sorts everything."""
_NOT_SAMPLED: Final = frozenset({50, 262, 28799})
"""MaxTimeMSExpired, ExceededTimeLimit, and the code for `$sample` finding the same documents again and again (MongoDB's
error_codes.yml): its random cursor works badly after many deletions."""
_SLOW: Final = 2.0
_SLOW_PAGES: Final = 3
"""Pages that may take more than `_SLOW` seconds each before random sampling is abandoned."""
_MOST_PROFILED: Final = 10_000
_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument, unicode_decode_error_handler="replace"
)
"""The key of an undecodable document is needed nevertheless: the scan continues after it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The collection's size, and the documents written and removed since the server opened it; None if unknown.
    `moment` is the clock's, in seconds."""

    documents: int
    bytes: int | None = None
    written: int | None = None
    removed: int | None = None
    moment: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Operations on a collection since the server started."""

    reads: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0


@dataclass(slots=True)
class DocumentPage:
    """Documents with their lengths in BSON; the keys of those that cannot be read or named, and why."""

    documents: list[tuple[Document, int]] = field(default_factory=list)
    unreadable: list[tuple[Key, str]] = field(default_factory=list)
    last: bytes = b""
    """The key of the last document, as a BSON document."""
    last_of_all: bool = False
    """Whether it is the greatest possible key."""


@dataclass(slots=True)
class UnreadableDocuments:
    """The number of documents that cannot be read or named, by reason; the keys of the first of them."""

    reasons: Counter[str] = field(default_factory=Counter)
    keys: list[Key] = field(default_factory=list)

    def add(self, found: Sequence[tuple[Key, str]]) -> None:
        self.reasons.update(reason for _, reason in found)
        self.keys += [key for key, _ in found[: _NAMED - len(self.keys)]]


class Server:
    """`client` is PyMongo's async client; its owner closes it. `rate`: documents per second."""

    def __init__(self, client: Any, database: str, *, rate: float) -> None:
        self._client = client
        self._database = client.get_database(
            database, codec_options=CANONICAL, read_preference=ReadPreference.SECONDARY_PREFERRED
        )
        self._throttle = RateLimiter(rate)
        self.denied: dict[str, str] = {}
        """The requests that were refused, and what they would have told."""
        self.in_order: set[str] = set()
        """Collections that were too slow for random documents; the first ones by key were read instead."""
        self.version = ""

    async def connect(self) -> None:
        """Raises `StoreUnavailable` if the server cannot be reached or refuses the connection."""
        try:
            self.version = str((await self._client.server_info())["version"])
            await self._database.command("ping")
        except PyMongoError as error:
            said = f"code {error.code}" if isinstance(error, OperationFailure) else type(error).__name__
            raise StoreUnavailable(f"mongo: {said}", hint="check the url, and that it runs") from error

    # --- collections ------------------------------------------------------------------------------------------

    async def collections(self) -> list[ListedCollection]:
        """Raises `StoreUnavailable` if not even the names may be read."""
        try:
            cursor = await self._database.list_collections()
            raw = await cursor.to_list(length=None)
        except OperationFailure as error:
            raise StoreUnavailable(
                f"mongo: code {error.code} for listCollections",
                hint='the user needs the role "read" on the database',
            ) from error
        found = [ListedCollection.read(each) for each in raw]
        return sorted((each for each in found if not each.name.startswith("system.")), key=lambda one: one.name)

    async def shard_key(self, collection: str) -> ShardKey | None:
        """None if the collection is not sharded, or the user may not read that."""
        if (await self._database.command("hello")).get("msg") != "isdbgrid":
            return None
        records = self._client["config"]["collections"]
        name = f"{self._database.name}.{collection}"
        entry = await self._asked(
            "config.collections", "by what collections are sharded", records.find_one({"_id": name})
        )
        return ShardKey.read(entry)

    async def indexes(self, collection: str) -> list[Document]:
        cursor = await self._database[collection].list_indexes(comment=MARK)
        raw: list[Document] = await cursor.to_list(length=None)
        return raw

    async def index_uses(self, collection: str) -> dict[str, int]:
        raw = await self._asked(
            "indexStats", "how often each index is used", self._aggregate(collection, "$indexStats")
        )
        return {each["name"]: int(each["accesses"]["ops"]) for each in raw or ()}

    async def counts(self, collection: str) -> Counts:
        """From the primary member, which sees all writes."""
        now = asyncio.get_running_loop().time()
        raw = await self._asked(
            "collStats", "sizes and rates", self._aggregate(collection, "$collStats", {"storageStats": {}})
        )
        if not raw:
            estimated = await self._database[collection].estimated_document_count(maxTimeMS=_MILLISECONDS, comment=MARK)
            return Counts(int(estimated), moment=now)
        stats = [each["storageStats"] for each in raw]
        calls = [each.get("wiredTiger", {}).get("cursor", {}) for each in stats]
        return Counts(
            sum(int(each.get("count", 0)) for each in stats),
            sum(int(each.get("size", 0)) for each in stats),
            _total(calls, ("insert calls", "modify calls", "update calls")),
            _total(calls, ("remove calls",)),
            moment=now,
        )

    async def asked(self) -> tuple[dict[str, Asked], float] | None:
        """By collection, and the server's uptime in seconds; None if the user may not read them."""
        raw = await self._asked("top", "how often each collection is read", self._client.admin.command("top"))
        status = await self._asked("serverStatus", "since when it runs", self._client.admin.command("serverStatus"))
        if raw is None or status is None:
            return None
        prefix = f"{self._database.name}."
        found = {
            name.removeprefix(prefix): _asked_of(each)
            for name, each in raw["totals"].items()
            if name.startswith(prefix) and isinstance(each, Mapping)
        }
        return found, float(status["uptime"])

    async def _aggregate(self, collection: str, stage: str, operand: Any = None) -> list[Document]:
        primary = self._database.get_collection(collection, read_preference=ReadPreference.PRIMARY_PREFERRED)
        cursor = await primary.aggregate([{stage: operand or {}}], maxTimeMS=_MILLISECONDS, comment=MARK)
        raw: list[Document] = await cursor.to_list(length=None)
        return raw

    async def _asked(self, what: str, tells: str, request: Awaitable[Any]) -> Any:
        """The answer; None if the server refuses the request."""
        try:
            return await request
        except OperationFailure as error:
            reason = "not authorized" if error.code in _DENIED else f"code {error.code}"
            self.denied[what] = f"{tells} ({reason})"
            return None

    # --- the profiler -------------------------------------------------------------------------------------------

    async def profile(self) -> tuple[list[Document], str]:
        """The latest entries of `system.profile`, and the profiler's level in words. It is never changed here."""
        status = await self._asked("profile", "what the profiler is set to", self._database.command("profile", -1))
        profile = self._database["system.profile"].with_options(read_preference=ReadPreference.PRIMARY_PREFERRED)
        cursor = profile.find(
            {"op": {"$in": ["query", "command", "update", "remove"]}},
            sort=[("$natural", -1)],
            limit=_MOST_PROFILED,
            max_time_ms=_MILLISECONDS,
            comment=MARK,
        )
        entries = await self._asked("system.profile", "recorded queries", cursor.to_list(length=None))
        if status is None:
            return entries or [], "the profiler's entries"
        level, slow = status.get("was", 0), status.get("slowms")
        said = {0: "off", 1: f"on for what takes over {slow} ms"}.get(level, "on for everything")
        return entries or [], f"the profiler ({said})"

    # --- documents ----------------------------------------------------------------------------------------------

    async def documents(self, collection: str, total: int, sample: int | None) -> AsyncIterator[DocumentPage]:
        """About `sample` different random documents; all of them by key if `sample` is None or there are hardly
        more."""
        pages = self._walk(collection) if is_whole(total, sample) else self._sampled(collection, total, sample or 0)
        async for page in pages:
            yield page

    async def _sampled(self, collection: str, total: int, sample: int) -> AsyncIterator[DocumentPage]:
        size = max(1, min(_PAGE, int(total * _GENTLY_SAMPLED)))
        seen: set[str] = set()
        slow = 0
        for _ in range(4 * sample // size + 4):
            await self._throttle.take(size)
            asked = time.monotonic()
            try:
                page = await self._take(collection, size)
            except OperationFailure as error:
                if error.code not in _NOT_SAMPLED:
                    raise
                break
            yield _different(page, seen, sample)
            slow += time.monotonic() - asked > _SLOW
            if slow == _SLOW_PAGES:
                break
            if len(seen) >= sample or not (page.documents or page.unreadable or seen):
                return
        else:
            return
        self.in_order.add(collection)
        async for page in self._walk(collection):
            yield _different(page, seen, sample)
            if len(seen) >= sample:
                return

    async def _take(self, collection: str, size: int) -> DocumentPage:
        source = self._database.get_collection(collection, codec_options=_RAW)
        pipeline = [{"$sample": {"size": size}}]
        cursor = await source.aggregate(pipeline, batchSize=size, maxTimeMS=_MILLISECONDS, comment=MARK)
        return _page(await cursor.to_list(length=size))

    async def _walk(self, collection: str) -> AsyncIterator[DocumentPage]:
        """By `_id`, one query per page, so that no cursor waits on the server. Stops at the greatest possible key."""
        page = DocumentPage()
        while not page.last_of_all:
            await self._throttle.take(_PAGE)
            command: Document = {"find": collection, "sort": {"_id": 1}, "hint": {"_id": 1}, "limit": _PAGE + 1}
            command |= {"batchSize": _PAGE + 1, "singleBatch": True, "maxTimeMS": _MILLISECONDS, "comment": MARK}
            if page.last:
                command["min"] = RawBSONDocument(page.last)
            answer = await self._database.command(
                command, codec_options=_RAW, read_preference=self._database.read_preference
            )
            raw = answer["cursor"]["firstBatch"]
            if raw and page.last and element_document(bytes(raw[0].raw), "_id", "_id") == page.last:
                raw = raw[1:]
            if not raw:
                return
            page = _page(raw)
            yield page

    # --- validators ---------------------------------------------------------------------------------------------

    async def passing(self, collection: str, validator: Mapping[str, Any], reserved: str) -> tuple[int, int] | None:
        """The number of sampled documents that pass the validator now, and how many of these would with a version in
        the reserved field. The server itself decides, in a read-only pipeline. None if it cannot."""
        stamp = {"$literal": {"b": "0" * 24, "r": 1}}
        stages: list[Document] = [{"$limit": _PAGE}, {"$match": dict(validator)}]
        stamped = [*stages, {"$addFields": {reserved: stamp}}, {"$match": dict(validator)}]
        found = []
        for pipeline in (stages, stamped):
            try:
                cursor = await self._database[collection].aggregate(
                    [*pipeline, {"$count": "n"}], maxTimeMS=_MILLISECONDS, comment=MARK
                )
                found.append(sum(each["n"] for each in await cursor.to_list(length=None)))
            except OperationFailure:
                return None
        return found[0], found[1]


def _asked_of(each: Mapping[str, Any]) -> Asked:
    count = {
        name: int(each.get(name, {}).get("count", 0)) for name in ("queries", "commands", "insert", "update", "remove")
    }
    return Asked(count["queries"] + count["commands"], count["insert"], count["update"], count["remove"])


def is_whole(total: int, sample: int | None) -> bool:
    """Whether all documents are read: reading more than half of them at random would take as long."""
    return sample is None or total <= 2 * sample


def _total(calls: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int | None:
    known = [int(each[name]) for each in calls for name in names if name in each]
    return sum(known) if known else None


def _different(page: DocumentPage, seen: set[str], most: int) -> DocumentPage:
    """The page without documents seen before, and at most `most` of them; records the new ones in `seen`."""
    different = []
    for document, length in page.documents:
        digest = key_digest(document["_id"])
        if digest not in seen and len(seen) < most:
            seen.add(digest)
            different.append((document, length))
    page.documents = different
    return page


def _page(raw: Sequence[RawBSONDocument]) -> DocumentPage:
    page = DocumentPage()
    for each in raw:
        document = document_of(bytes(each.raw))
        key, fault = (document["_id"], "") if type(document) is dict else key_of(each)
        if fault:
            page.unreadable.append((key, fault))
        elif isinstance(document, Damaged):
            page.unreadable.append((key, document.reason))
        else:
            page.documents.append((document, len(each.raw)))
        page.last = element_document(bytes(each.raw), "_id", "_id") or b""
        page.last_of_all = isinstance(key, MaxKey)
    return page
