"""The journal in MongoDB: four collections, `<name>.intents`, `<name>.deferred`, `<name>.late` and `<name>.owners`.

Every write is acknowledged by a majority and by its journal on disk (`w: majority, j: true`). An intent is one
document, and so is a deferred key, however often it is deferred: what is kept is bounded by the operations under way
and the keys that are behind. The notes are among the owners. The client is PyMongo's own synchronous one, used by the
journal's threads alone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bson.codec_options import CodecOptions
from pymongo import ASCENDING, IndexModel, MongoClient, ReadPreference, ReturnDocument, UpdateOne
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.journal.server.clock import Clock, ServerClock, steady
from shadow.journal.server.driver import (
    STORED,
    Absent,
    AtMost,
    Condition,
    Is,
    Kind,
    Merge,
    Place,
    Record,
    Same,
    Tally,
    Under,
)
from shadow.journal.server.records import UNDECIDED, age_of, estimate

__all__ = ["MongoDriver"]

_COUNTED: Final = 10_000
"""Entries of one kind and collection that are counted one by one; beyond, their number is estimated."""
_BATCH: Final = 1000
"""Intents that are read at a time."""
_NO_RIGHTS: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed (MongoDB's error_codes.yml), and Atlas' own code for both."""

_INTENTS: Final = (
    IndexModel([("c", ASCENDING), ("d", ASCENDING)], name="by_key"),
    IndexModel([("e", ASCENDING)], name="by_expiry"),
)
_DEFERRED: Final = (
    IndexModel([("c", ASCENDING), ("d", ASCENDING)], name="by_key"),
    IndexModel([("t", ASCENDING)], name="by_turn"),
    IndexModel([("s", ASCENDING), ("c", ASCENDING), ("d", ASCENDING)], name="by_age"),
    IndexModel([("c", ASCENDING), ("r", ASCENDING)], name="by_refusal", partialFilterExpression={"r": {"$gt": ""}}),
)

_LATE: Final = (IndexModel([("t", ASCENDING)], name="by_turn"), IndexModel([("s", ASCENDING)], name="by_age"))

_READ: Final = {kind: {stored: name for name, stored in names.items()} for kind, names in STORED.items()}
"""The fields of the documents, by kind and the name under which they are stored; those that are missing here are stored
as they are. `c` and `d` are collection and digest."""
_PREFIXES: Final = {Kind.PASSED: "(passed) ", Kind.UNVERIFIED: "(unclean) ", Kind.PRIMARY: "(primary) "}
"""With what the `_id` of a note begins; the collection's name follows."""
_NAMED: Final = {Kind.PASSED: "c", Kind.UNVERIFIED: "c", Kind.PRIMARY: "of"}
"""The field of a note with the collection's name."""
_SWEEP: Final = "(sweep)"

Doc = dict[str, Any]


class MongoDriver:
    """See `driver.Driver`."""

    def __init__(
        self, url: str, database: str, collection: str, *, patience: float, clock: Clock | None = None
    ) -> None:
        """Connects on first use. `patience`: seconds for one request, in all its attempts."""
        self.clock: Clock = clock or ServerClock()
        limit = int(patience * 1000)
        self._client: MongoClient[Doc] = MongoClient(
            url,
            serverSelectionTimeoutMS=limit,
            connectTimeoutMS=limit,
            timeoutMS=limit,
            maxPoolSize=16,
            appname="shadow-journal",
        )
        place = self._client.get_database(
            database,
            codec_options=CodecOptions(document_class=dict),
            read_preference=ReadPreference.PRIMARY,
            # What the primary has: neither the url nor the server's default may make it less.
            read_concern=ReadConcern("local"),
            write_concern=WriteConcern("majority", j=True),
        )
        self._intents = place[f"{collection}.intents"]
        self._deferred = place[f"{collection}.deferred"]
        self._late = place[f"{collection}.late"]
        self._owners = place[f"{collection}.owners"]

    def _of(self, kind: Kind) -> Any:
        own = {Kind.INTENT: self._intents, Kind.DEFERRED: self._deferred, Kind.LATE: self._late}
        return own.get(kind, self._owners)

    # --- the connection -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._intents.create_indexes(list(_INTENTS))
        self._deferred.create_indexes(list(_DEFERRED))
        self._late.create_indexes(list(_LATE))

    def read_clock(self) -> None:
        sent = steady()
        stamp: dt.datetime = self._client.admin.command("hello")["localTime"]
        # A server's date has milliseconds, cut off.
        self.clock.observe(stamp.replace(tzinfo=dt.UTC).timestamp(), 0.001, sent, steady())

    def release(self) -> None:
        self._client.close()

    def explain_error(self, error: Exception) -> tuple[str, str]:
        code = error.code if isinstance(error, OperationFailure) else None
        if code in _NO_RIGHTS:
            return f"MongoDB refused it (code {code})", "check the credentials in journal.url: readWrite is needed"
        if isinstance(error, ConnectionFailure) or getattr(error, "timeout", False):
            return (
                f"MongoDB did not answer ({type(error).__name__})",
                "check that the server in journal.url runs, has a primary, and can be reached",
            )
        with_code = f", code {code}" if code is not None else ""
        return f"{type(error).__name__}{with_code}", "read the log of the server in journal.url"

    # --- writes -------------------------------------------------------------------------------------------------

    def insert(self, intents: Sequence[Record]) -> None:
        documents = [{**_id(each.place), **_named(each.place), **_stored(Kind.INTENT, each.values)} for each in intents]
        self._intents.insert_many(documents, ordered=False)

    def remove(self, intents: Sequence[Place]) -> None:
        self._intents.delete_many({"_id": {"$in": [each.op_id for each in intents]}})

    def merge(self, merges: Sequence[tuple[Place, Merge]]) -> None:
        for kind in {place.kind for place, _ in merges}:
            updates = [_merging(place, merge) for place, merge in merges if place.kind is kind]
            self._of(kind).bulk_write(updates, ordered=False)

    def change(
        self, place: Place, values: Mapping[str, Any], conditions: Sequence[Condition] = (), *, create: bool = False
    ) -> Record | None:
        try:
            found = self._of(place.kind).find_one_and_update(
                {**_id(place), **_meeting(place.kind, conditions)},
                _setting(place.kind, values),
                upsert=create,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            # It is there and does not meet the conditions.
            return None
        return None if found is None else _record(place.kind, found)

    def change_each(
        self, places: Sequence[Place], values: Mapping[str, Any], conditions: Sequence[Condition]
    ) -> list[Record]:
        (kind,) = {place.kind for place in places}
        chosen = {"_id": {"$in": [_id(place)["_id"] for place in places]}}
        self._of(kind).update_many({**chosen, **_meeting(kind, conditions)}, _setting(kind, values))
        return [_record(kind, each) for each in self._of(kind).find({**chosen, **_stored(kind, values)})]

    def delete(self, place: Place, conditions: Sequence[Condition] = ()) -> bool:
        chosen = {**_id(place), **_meeting(place.kind, conditions)}
        return bool(self._of(place.kind).delete_one(chosen).deleted_count)

    # --- reads --------------------------------------------------------------------------------------------------

    def note(self, place: Place) -> Record | None:
        found = self._owners.find_one(_id(place))
        return None if found is None else _record(place.kind, found)

    def notes(self, kind: Kind) -> list[Record]:
        chosen: Doc = {"b": {"$exists": True}}
        if kind in _PREFIXES:
            chosen = {"_id": {"$regex": f"^{re.escape(_PREFIXES[kind])}"}}
        return [_record(kind, each) for each in self._owners.find(chosen)]

    def exists(self, kind: Kind, collection: str, digest: str) -> bool:
        either = {"c": collection, "$or": [{"d": digest}, {"d": {"$gte": UNDECIDED}}]}
        return self._of(kind).find_one(either, {"_id": 1}) is not None

    def of_key(self, kind: Kind, collection: str, digest: str) -> list[Record]:
        return [_record(kind, each) for each in self._of(kind).find({"c": collection, "d": digest})]

    def intents(self, condition: Condition) -> Iterator[list[Record]]:
        chosen = _meeting(Kind.INTENT, [condition])
        while found := [_record(Kind.INTENT, each) for each in self._intents.find(chosen).limit(_BATCH)]:
            yield found

    def turns(self, kind: Kind, limit: int, now: float) -> list[Place]:
        found = self._of(kind).find({"t": {"$lte": now}}, {"_id": 1}).sort("t").limit(limit)
        return [_place(kind, each) for each in found]

    def claimed(self, owner: str, now: float) -> Iterator[Record]:
        for each in self._deferred.find({"t": {"$gt": now}, "l": {"$regex": f"^{re.escape(owner)}"}}):
            yield _record(Kind.DEFERRED, each)

    def oldest(
        self, kind: Kind, limit: int, collection: str | None, after: tuple[float, str, str, str] | None
    ) -> list[Record]:
        order = ("o", "c", "d", "_id") if kind is Kind.INTENT else ("s", "c", "d")
        chosen: Doc = {} if collection is None else {"c": collection}
        if after is not None:
            chosen[order[0]] = {"$gte": after[0]}
        with self._of(kind).find(chosen).sort([(name, ASCENDING) for name in order]) as cursor:
            found = (_record(kind, each) for each in cursor)
            return list(islice((each for each in found if after is None or age_of(each) > after), limit))

    def tally(self, kind: Kind) -> Tally:
        order, moment = ("e", "o") if kind is Kind.INTENT else ("s", "s")
        first = list(self._of(kind).find({}, {moment: 1}).sort(order).limit(1))
        counts = ((name, self._count(kind, name)) for name in self._of(kind).distinct("c"))
        counted = {name: count for name, count in counts if count}
        refused = self._refused() if kind is Kind.DEFERRED and counted else {}
        return Tally(counted, refused, first[0][moment] if first else None)

    def _refused(self) -> dict[str, int]:
        some = {"r": {"$gt": ""}}
        names = self._deferred.distinct("c", some)
        return {name: self._deferred.count_documents({"c": name, **some}, limit=_COUNTED) for name in names}

    def _count(self, kind: Kind, collection: str) -> int:
        chosen = {"c": collection}
        counted = int(self._of(kind).count_documents(chosen, limit=_COUNTED))
        if counted < _COUNTED:
            return counted
        by_key = self._of(kind).find(chosen, {"_id": 0, "d": 1}).sort([("c", 1), ("d", 1)])
        last: list[Doc] = list(by_key.skip(_COUNTED - 1).limit(1))
        return estimate(counted, last[0]["d"]) if last else counted


# --- documents --------------------------------------------------------------------------------------------------


def _id(place: Place) -> Doc:
    match place.kind:
        case Kind.INTENT:
            return {"_id": place.op_id}
        case Kind.DEFERRED | Kind.LATE:
            # No collection's name has a NUL.
            return {"_id": f"{place.name}\0{place.digest}"}
        case Kind.SWEEP:
            return {"_id": _SWEEP}
    return {"_id": f"{_PREFIXES.get(place.kind, '')}{place.name}"}


def _place(kind: Kind, raw: Doc) -> Place:
    if kind is Kind.INTENT:
        return Place(kind, raw["c"], raw["d"], raw["_id"])
    if kind in (Kind.DEFERRED, Kind.LATE):
        return Place(kind, *raw["_id"].split("\0"))
    return Place(kind, raw["_id"].removeprefix(_PREFIXES.get(kind, "")))


def _named(place: Place) -> Doc:
    """The fields that repeat what the address says."""
    if place.kind in (Kind.INTENT, Kind.DEFERRED, Kind.LATE):
        return {"c": place.name, "d": place.digest}
    return {_NAMED[place.kind]: place.name} if place.kind in _NAMED else {}


def _field(kind: Kind, name: str) -> str:
    return STORED.get(kind, {}).get(name, name)


def _stored(kind: Kind, values: Mapping[str, Any]) -> Doc:
    return {_field(kind, name): value for name, value in values.items()}


def _record(kind: Kind, raw: Doc) -> Record:
    names = _READ.get(kind, {})
    return Record(_place(kind, raw), {names.get(stored, stored): value for stored, value in raw.items()})


def _meeting(kind: Kind, conditions: Sequence[Condition]) -> Doc:
    """The filter for them."""
    found: Doc = {}
    for each in conditions:
        match each:
            case Is(name, value):
                found[_field(kind, name)] = value
            case AtMost(name, value):
                found[_field(kind, name)] = {"$lte": value}
            case Under(name, value):
                found[_field(kind, name)] = {"$lt": value}
            case Absent(name):
                found[_field(kind, name)] = {"$exists": False}
    return found


def _setting(kind: Kind, values: Mapping[str, Any]) -> Doc | list[Doc]:
    if not any(isinstance(value, Same) for value in values.values()):
        return {"$set": _stored(kind, values)}
    computed = {
        _field(kind, name): f"${_field(kind, value.field)}" if isinstance(value, Same) else {"$literal": value}
        for name, value in values.items()
    }
    return [{"$set": computed}]


def _merging(place: Place, merge: Merge) -> UpdateOne:
    kind = place.kind
    parts = {
        "$set": merge.put,
        "$setOnInsert": {**merge.first, **_named(place)},
        "$inc": merge.add,
        "$min": dict([merge.least] if merge.least else []),
        "$max": dict([merge.most] if merge.most else []),
    }
    update = {operator: _stored(kind, values) for operator, values in parts.items() if values}
    return UpdateOne(_id(place), update, upsert=True)
