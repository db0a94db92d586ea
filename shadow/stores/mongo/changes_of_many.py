"""Many updates or deletes as few statements of one command; see `stores.many`.

Documents at the same revision share one statement: it names their keys, the births of their versions, and the
revision, and so matches each document only at the version that was read. No two documents ever have one birth, except
that of a time in which only MongoDB was written (revision 0), or none at all: each of these has a statement of its
own. A pipeline gives each document a version with a birth of its own, by which it is known later, and so it has a
statement for each.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import bson
import pymongo
from bson import ObjectId
from bson.errors import BSONError
from pymongo.errors import BulkWriteError, PyMongoError

from shadow.compare.equality import same_after, same_part
from shadow.errors import ShadowError
from shadow.model.batches import AlikeChanges, keys_in
from shadow.model.operation import ANY, Applied, Change, Delete, Update
from shadow.model.outcome import Outcome, marked
from shadow.model.server_options import sent_with
from shadow.model.stored import document_of, split
from shadow.model.version import ABSENT, Document, Image, Key, Version
from shadow.mongoql import Filter, Updater, cached_filter, cached_update
from shadow.mongoql.values.collation import is_collated
from shadow.stores.many import Found, Mark
from shadow.stores.mongo.bytes import plain_errors, taken
from shadow.stores.mongo.durability import Lasting
from shadow.stores.mongo.late import LateAfter, LateImage
from shadow.stores.mongo.ranges import identity
from shadow.stores.mongo.refusals import in_one_batch, write_concern_error, write_error
from shadow.stores.mongo.schema_filters import without_version
from shadow.stores.mongo.statements import applied_after, exactly, is_plain, next_version, stamping

__all__ = ["MongoMany", "alike", "modifies"]

_PAGE: Final = 1000
_MOST_BYTES: Final = 8 * 1024 * 1024
"""Of documents that are read before they are changed. The keys of one command are at most as large."""

_NOTHING: Final = Image(ABSENT)
_MARK: Final = "m"
"""The part of a stamp that names the last batch that has changed the document. No index has it, unlike `o`, and writes
that move the version by one leave it."""


def alike(changes: Sequence[Change]) -> bool:
    """Whether one command can make all changes: updates without upsert, or deletes, equal but for key and version."""
    if isinstance(changes, AlikeChanges):
        return not is_collated(changes.model.filter)
    first = changes[0]
    if not isinstance(first, Update | Delete) or is_collated(first.filter):
        return False
    kind, filter = type(first), first.filter
    if any(type(each) is not kind or each.filter is not filter or each.key is ANY for each in changes):
        return False
    if any(each.mongo_only is not None or each.pin is not None for each in changes):  # type: ignore[union-attr]
        return False
    return isinstance(first, Delete) or not any(
        each.upsert or each.update is not first.update or each.array_filters is not first.array_filters  # type: ignore[union-attr]
        for each in changes
    )


class _Read(Mapping[int, Image]):
    """The documents that were read, by place, as they are stored. Each image is made when it is asked for."""

    def __init__(self, reserved: str) -> None:
        self._reserved = reserved
        self.births: dict[int, str] = {}
        self.revs: dict[int, int] = {}
        self._contents: dict[int, bytes] = {}

    def add(self, place: int, born: str, rev: int, content: bytes) -> None:
        self.births[place], self.revs[place], self._contents[place] = born, rev, content

    def version(self, place: int) -> Version:
        return Version(self.births[place], self.revs[place])

    def __getitem__(self, place: int) -> Image:
        return LateImage(self.version(place), self._contents[place], self._reserved)

    def __iter__(self) -> Iterator[int]:
        return iter(self._contents)

    def __len__(self) -> int:
        return len(self._contents)


@dataclass(frozen=True)
class MongoMany:
    """The documents of one batch. `source` reads the stored bytes of the primary member, `target` writes as the
    application does; `apply` changes one document alone."""

    collection: str
    reserved: str
    changes: Sequence[Any]
    op_ids: Sequence[str]
    source: Any
    lasting: Lasting
    target: Any
    apply: Callable[[Change, str], Awaitable[Applied | None]]
    _modified: dict[int, bool] = field(default_factory=dict)

    @property
    def op_id(self) -> str:
        return self.op_ids[0]

    @functools.cached_property
    def deletes(self) -> bool:
        return isinstance(self._first, Delete)

    @functools.cached_property
    def _first(self) -> Any:
        """The change that all are like."""
        return self.changes[0]

    @functools.cached_property
    def _keys(self) -> Sequence[Key]:
        return keys_in(self.changes)

    # --- reads --------------------------------------------------------------------------------------------------

    async def look(self, places: Sequence[int]) -> Found:
        asked = self._fitting(places)
        keys = [self._keys[place] for place in asked]
        unread = dict(zip(map(identity, keys), asked, strict=True))
        images = _Read(self.reserved)
        alone: list[int] = []
        strange = False
        size = 0
        where = self._where({"_id": {"$in": keys}, f"{self.reserved}.t": None})
        # Of what is deleted, the version alone is needed.
        cursor = self.source.find(where, {self.reserved: 1} if self.deletes else None, batch_size=_PAGE)
        try:
            while size < _MOST_BYTES and cursor.alive and (page := await _next_page(cursor)):
                for raw in page:
                    size += len(raw.raw)
                    strange |= not self._take(raw, unread, images, alone)
        finally:
            # The server closes a cursor that was read to its end, and Motor would use a thread to find out.
            unfinished = cursor.alive
            if unfinished:
                await cursor.close()
        rest = list(unread.values()) if unfinished else []
        if strange and not unfinished:
            alone += unread.values()
        return Found(images, alone, [*rest, *places[len(asked) :]])

    def _fitting(self, places: Sequence[int]) -> Sequence[int]:
        """As many places as have keys for one command, and at least one."""
        size = 0
        for number, place in enumerate(places):
            size += _size(self._keys[place])
            if size > _MOST_BYTES:
                return places[: max(1, number)]
        return places

    def _take(
        self,
        raw: Any,
        unread: MutableMapping[Hashable, int],
        images: _Read,
        alone: MutableSequence[int],
    ) -> bool:
        """False: the document is under no key of the batch, as where a collation finds another spelling."""
        content = bytes(raw.raw)
        document = document_of(content)
        version = _version_in(document.pop(self.reserved, None)) if type(document) is dict else None
        if version is not None:
            place = unread.pop(identity(document["_id"]), None)
            if place is None:
                return False
            self._note(place, document, content)
            images.add(place, *version, content)
            return True
        return self._take_unusual(raw, unread, images, alone)

    def _take_unusual(
        self,
        raw: Any,
        unread: MutableMapping[Hashable, int],
        images: _Read,
        alone: MutableSequence[int],
    ) -> bool:
        """The same for any document."""
        image = split(raw, self.reserved)
        key = image.document["_id"] if type(image.document) is dict else taken(raw)["_id"]
        place = unread.pop(identity(key), None)
        if place is None:
            return False
        if is_plain(image):
            assert isinstance(image.state, Version)
            assert image.document is not None
            self._note(place, image.document, bytes(raw.raw))
            images.add(place, image.state.born, image.state.rev, bytes(raw.raw))
        else:
            alone.append(place)
        return True

    async def marks(self, places: Sequence[int]) -> Mapping[int, Mark]:
        by_key = {identity(self._keys[place]): place for place in places}
        keys = [self._keys[place] for place in places]
        # It decides what becomes of intents: a deposed member would not know.
        found = await self.lasting.find(self.collection, {"_id": {"$in": keys}}, {self.reserved: 1})
        marks: dict[int, Mark] = {}
        for raw in found:
            place = by_key.get(identity(taken(raw)["_id"]))
            if place is not None:
                marks[place] = self._mark(raw, self.changes[place])
        return marks

    def _mark(self, raw: Any, change: Update | Delete) -> Mark:
        state = split(raw, self.reserved).state
        if _is_pipeline(change):
            is_own = isinstance(state, Version) and state.born == change.born
            return Mark(state, self.op_id if is_own else "")
        stamp = raw.get(self.reserved)
        return Mark(state, (stamp.get(_MARK) or "") if isinstance(stamp, Mapping) else "")

    # --- writes -------------------------------------------------------------------------------------------------

    async def change(self, images: Mapping[int, Image]) -> int:
        statements = self._statements(images)
        try:
            requests = [made for made, _ in statements]
            result = await self.target.bulk_write(requests, ordered=True, **sent_with("bulk_write"))
        except BulkWriteError as error:
            details = error.details or {}
            if (doubt := write_concern_error(details)) is not None:
                raise doubt from error
            faults = details.get("writeErrors")
            if not faults:
                raise
            raise write_error(faults[0]) from error
        except Exception as error:
            # The driver sends what is too large for one message in several.
            if not in_one_batch([sent for _, sent in statements]):
                marked(error, Outcome.UNKNOWN)
            raise
        return int(result.deleted_count if self.deletes else result.matched_count)

    def modified(self, place: int) -> bool | None:
        return False if self.deletes else self._modified.get(place)

    def applied(self, place: int, pre: Image) -> Applied:
        if self.deletes:
            return Applied(pre, _NOTHING)
        change, modified = self.changes[place], self._modified.get(place)
        if modified is None:
            return applied_after(change, pre)
        post = LateAfter(next_version(change, pre), pre, self._updater, self._matched)
        return Applied(pre, post, modified=modified)

    @functools.cached_property
    def _updater(self) -> Updater:
        """Compiled once for all documents."""
        return cached_update(self._first.update, self._first.array_filters)

    @functools.cached_property
    def _matched(self) -> Filter | None:
        return cached_filter(self._first.filter) if self._updater.positional else None

    @functools.cached_property
    def _elements(self) -> list[bytes]:
        """What the document will hold, as it is stored, if the change only sets values; else nothing."""
        with contextlib.suppress(BSONError, OverflowError, TypeError, ValueError):
            return [bson.encode({name: value})[4:-1] for name, value in (self._updater.sets or {}).items()]
        return []

    def _note(self, place: int, document: Document, content: bytes) -> None:
        """Notes whether the change will modify a document. What cannot be computed fails where the result is made.
        `content`: its bytes. A value that is nowhere in them is one that the document does not have yet."""
        if self.deletes:
            return
        try:
            elements = self._elements
        except (PyMongoError, ShadowError, ArithmeticError, LookupError, TypeError, ValueError):
            return  # the update cannot be compiled
        if any(element not in content for element in elements):
            self._modified[place] = True
        else:
            with contextlib.suppress(PyMongoError, ShadowError, ArithmeticError, LookupError, TypeError, ValueError):
                self._modified[place] = modifies(self._updater, document, self._matched)

    async def alone(self, place: int) -> Applied | None:
        return await self.apply(self.changes[place], self.op_ids[place])

    def _statements(self, images: Mapping[int, Image]) -> list[tuple[Any, Document]]:
        """The driver's requests, each beside what it sends."""
        first = self._first
        made: list[tuple[Any, Document]] = []
        for where, place in self._conditions(images):
            if isinstance(first, Delete):
                made.append((pymongo.DeleteMany(where), where))
                continue
            update: Any = stamping(self.changes[place], "", self.reserved)
            if isinstance(update, dict):
                update["$set"] = {**update.get("$set", {}), f"{self.reserved}.{_MARK}": self.op_id}
            filters = list(first.array_filters) or None
            made.append((pymongo.UpdateMany(where, update, array_filters=filters), {"q": where, "u": update}))
        return made

    def _conditions(self, images: Mapping[int, Image]) -> list[tuple[Document, int]]:
        """Filters that match the documents exactly at their versions, each with one of its places."""
        assert isinstance(images, _Read)
        apart = _is_pipeline(self._first)
        groups: dict[Hashable, list[int]] = {}
        for (place, rev), born in zip(images.revs.items(), images.births.values(), strict=True):
            group: Hashable = place if apart else rev if rev and born else (rev, born)
            groups.setdefault(group, []).append(place)
        return [(self._where(self._versions(images, places)), places[0]) for places in groups.values()]

    def _versions(self, images: _Read, places: Sequence[int]) -> Document:
        where: Document = {"_id": {"$in": [self._keys[place] for place in places]}}
        where |= exactly(images.version(places[0]), self.reserved)
        births: list[Any] = list(dict.fromkeys(images.births[place] for place in places))
        if len(births) > 1:
            where[f"{self.reserved}.b"] = {"$in": [*births, *([None] if "" in births else [])]}
        return where

    def _where(self, part: Document) -> Document:
        filter = without_version(self._first.filter, self.reserved)
        return {"$and": [part, filter]} if "_id" in filter else {**part, **filter}


def modifies(updater: Updater, document: Document, matched: Filter | None) -> bool:
    """Whether the update changes anything but the version. Raises what the update raises."""
    if updater.sets is None or type(document) is not dict:
        return not same_after(document, updater.apply(document, matched))
    return not all(name in document and same_part(document[name], value) for name, value in updater.sets.items())


async def _next_page(cursor: Any) -> list[Any]:
    with plain_errors():
        page: list[Any] = await cursor.to_list(length=_PAGE)
        return page


def _version_in(stamp: Any) -> tuple[str, int] | None:
    """Birth and revision in a stamp of the commonest form; None for any other."""
    if type(stamp) is not dict or "t" in stamp:
        return None
    born, rev = stamp.get("b"), stamp.get("r")
    return (born, rev) if type(born) is str and type(rev) is int else None


def _is_pipeline(change: Update | Delete) -> TypeGuard[Update]:
    return isinstance(change, Update) and isinstance(change.update, list)


def _size(key: Key) -> int:
    if type(key) is ObjectId:
        return 24
    return 4 * len(key) + 16 if type(key) is str else len(bson.encode({"": key})) + 16
