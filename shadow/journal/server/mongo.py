"""The journal in MongoDB: three collections, `<name>.intents`, `<name>.deferred` and `<name>.owners`.

Every write is acknowledged by a majority and by its journal on disk (`w: majority, j: true`). An intent is one
document, and so is a deferred key, however often it is deferred: what is kept is bounded by the operations under way
and the keys that are behind. The client is PyMongo's own synchronous one, used by the journal's threads alone.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bson import Binary
from bson.codec_options import CodecOptions
from pymongo import ASCENDING, IndexModel, MongoClient, ReadPreference, ReturnDocument, UpdateOne
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.host.process import Owner
from shadow.journal.base import Due, JournalStats, Pending
from shadow.journal.server.backend import (
    UNDECIDED,
    IntentRow,
    Registered,
    digest_of,
    estimate,
    in_order,
    place_of,
    unpack,
)
from shadow.journal.server.clock import Clock, ServerClock, steady
from shadow.model.version import Key, fresh_id

__all__ = ["MongoLedger"]

_COUNTED: Final = 10_000
"""Entries of one kind and collection that are counted one by one; beyond, their number is estimated."""
_ADOPTED: Final = 1000
"""Intents that are adopted at a time."""
_SWEEP: Final = "(sweep)"
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

Doc = dict[str, Any]


class MongoLedger:
    """See `ledger.RemoteLedger`.

    Fields of an intent: `c` collection, `d` digest and `k` packed key, `o` opened, `e` expires, `w` its owner's name.
    Of a deferral: `c`, `d`, `k`, `g` generation, `s` since, `a` attempts, `t` next try, `f` settle after, `m` the
    moment and `l` the mark of the claim that holds it, `r` with what the secondary refuses it. Times are epoch seconds
    of the server. Among the owners are also whose turn it is to look for orphans, how many intents of each collection
    have passed, and which collections are unclean.
    """

    def __init__(
        self,
        url: str,
        database: str,
        collection: str,
        owner: Owner,
        name: str,
        *,
        patience: float,
        clock: Clock | None = None,
    ) -> None:
        """Connects on first use. `patience`: seconds for one request, in all its attempts."""
        self.clock: Clock = clock or ServerClock()
        self.name = name
        self._owner = owner
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
        self._owners = place[f"{collection}.owners"]

    # --- life ---------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        self._intents.create_indexes(list(_INTENTS))
        self._deferred.create_indexes(list(_DEFERRED))
        self.beat()

    def beat(self) -> None:
        sent = steady()
        said: dt.datetime = self._client.admin.command("hello")["localTime"]
        # A server's date has milliseconds, cut off.
        self.clock.observe(said.replace(tzinfo=dt.UTC).timestamp(), 0.001, sent, steady())
        owner = self._owner
        signs = {"place": owner.place, "pid": owner.pid, "started": owner.started, "b": self.clock.latest()}
        self._owners.update_one({"_id": self.name}, {"$set": signs}, upsert=True)

    def leave(self) -> None:
        self._owners.delete_one({"_id": self.name})

    def release(self) -> None:
        self._client.close()

    def explain(self, error: Exception) -> tuple[str, str]:
        code = error.code if isinstance(error, OperationFailure) else None
        if code in _NO_RIGHTS:
            return f"MongoDB refused it (code {code})", "check the credentials in journal.url: readWrite is needed"
        if isinstance(error, ConnectionFailure) or getattr(error, "timeout", False):
            return (
                f"MongoDB did not answer ({type(error).__name__})",
                "check that the server in journal.url runs, has a primary, and can be reached",
            )
        told = f", code {code}" if code is not None else ""
        return f"{type(error).__name__}{told}", "look into the log of the server in journal.url"

    # --- intents ------------------------------------------------------------------------------------------------

    def open(self, rows: Sequence[IntentRow]) -> None:
        self._intents.insert_many([_intent(row) for row in rows], ordered=False)

    def close(self, rows: Sequence[IntentRow]) -> None:
        ended = Counter(row.collection for row in rows)
        self._owners.bulk_write([_passed(name, number) for name, number in ended.items()], ordered=False)
        self._intents.delete_many({"_id": {"$in": [row.op_id for row in rows]}})

    def defer(self, rows: Sequence[tuple[IntentRow, float]]) -> None:
        self._deferred.bulk_write([_deferral(row, settle_after) for row, settle_after in rows], ordered=False)
        self.close([row for row, _ in rows])

    def has_open(self, collection: str, digest: str) -> bool:
        # The intent first: a deferral stands before its intent goes.
        either = {"c": collection, "$or": [{"d": digest}, {"d": {"$gte": UNDECIDED}}]}
        return any(each.find_one(either, {"_id": 1}) is not None for each in (self._intents, self._deferred))

    # --- deferred keys ------------------------------------------------------------------------------------------

    def take(self, limit: int, now: float, until: float) -> list[Due]:
        turn = {"t": {"$lte": now}}
        ids = [each["_id"] for each in self._deferred.find(turn, {"_id": 1}).sort("t").limit(limit)]
        if not ids:
            return []
        # Each document by itself is claimed by whoever comes first: afterwards its turn lies ahead.
        mine = f"{self.name}#{secrets.token_hex(8)}"
        self._deferred.update_many({"_id": {"$in": ids}, **turn}, {"$set": {"t": until, "m": now, "l": mine}})
        found = self._deferred.find({"_id": {"$in": ids}, "l": mine})
        return sorted((_due(each, now) for each in found), key=lambda due: due.since)

    def claim(self, collection: str, key: Key, now: float, until: float) -> Due | None:
        place = {"_id": _place(collection, digest_of(key))}
        claim = {"$set": {"t": until, "m": now, "l": f"{self.name}#"}}
        raw = self._deferred.find_one_and_update(place, claim, return_document=ReturnDocument.AFTER)
        return None if raw is None else _due(raw, now)

    def settle(self, due: Due) -> bool:
        seen = _seen(due)
        if self._deferred.delete_one({**seen, "f": {"$lte": due.claimed}}).deleted_count:
            return True
        self._deferred.update_one(seen, [{"$set": {"t": "$f"}}])
        return False

    def postpone(self, due: Due, until: float, refused: str) -> None:
        self._deferred.update_one(_seen(due), {"$set": {"a": due.attempts_after(refused), "t": until, "r": refused}})

    def give_back(self, due: Due) -> None:
        self._deferred.update_one(_seen(due), [{"$set": {"t": "$s"}}])

    def end_claims(self, owner: str, now: float) -> None:
        claimed = {"t": {"$gt": now}, "l": {"$regex": f"^{re.escape(owner)}#"}}
        self._deferred.update_many(claimed, [{"$set": {"t": "$s"}}])

    # --- what people ask for ------------------------------------------------------------------------------------

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]:
        chosen: Doc = {} if collection is None else {"c": collection}
        found = [
            *self._page(self._intents, ("o", "c", "d", "_id"), chosen, limit, after),
            *self._page(self._deferred, ("s", "c", "d"), chosen, limit, after),
        ]
        return in_order(found, limit)

    def _page(
        self, entries: Any, order: tuple[str, ...], chosen: Doc, limit: int, after: Pending | None
    ) -> Iterator[Pending]:
        """The first entries of a kind behind another one."""
        behind = chosen if after is None else {**chosen, order[0]: {"$gte": after.since}}
        taken = 0
        with entries.find(behind).sort([(name, ASCENDING) for name in order]) as cursor:
            for raw in cursor:
                pending = _pending(raw)
                if after is None or place_of(pending) > place_of(after):
                    yield pending
                    taken += 1
                if taken == limit:
                    return

    def explain_key(self, collection: str, key: Key) -> list[Pending]:
        where = {"c": collection, "d": digest_of(key)}
        found = [_pending(raw) for each in (self._intents, self._deferred) for raw in each.find(where)]
        return in_order(found, len(found))

    def stats(self) -> JournalStats:
        oldest = [
            raw[moment]
            for each, order, moment in ((self._intents, "e", "o"), (self._deferred, "s", "s"))
            for raw in each.find({}, {moment: 1}).sort(order).limit(1)
        ]
        age = max(0.0, self.clock.earliest() - min(oldest)) if oldest else 0.0
        opened, deferred = self._counts(self._intents), self._counts(self._deferred)
        # Behind the intents: what has gone from there is counted here.
        notes = list(self._owners.find({"c": {"$exists": True}}))
        passed = Counter({raw["c"]: raw["n"] for raw in notes if "n" in raw})
        passed.update(opened)
        unclean = {raw["c"]: raw["since"] for raw in notes if "since" in raw}
        return JournalStats(opened, deferred, age, unclean, dict(passed), self._refused() if deferred else {})

    def _refused(self) -> dict[str, int]:
        some = {"r": {"$gt": ""}}
        names = self._deferred.distinct("c", some)
        return {name: self._deferred.count_documents({"c": name, **some}, limit=_COUNTED) for name in names}

    def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        for name, primary in configured.items():
            noted = {"primary": primary, "of": name}
            self._owners.update_one({"_id": f"(primary) {name}"}, {"$setOnInsert": noted}, upsert=True)
        return {raw["of"]: raw["primary"] for raw in self._owners.find({"of": {"$exists": True}})}

    def set_primary(self, collection: str, primary: str) -> None:
        noted = {"$set": {"primary": primary, "of": collection}}
        self._owners.update_one({"_id": f"(primary) {collection}"}, noted, upsert=True)

    def doubt(self, collection: str, since: float) -> None:
        change = {"$min": {"since": since}, "$set": {"c": collection, "mark": fresh_id()}}
        self._owners.update_one({"_id": f"(unclean) {collection}"}, change, upsert=True)

    def doubts(self, collection: str) -> str:
        raw = self._owners.find_one({"_id": f"(unclean) {collection}"})
        return "" if raw is None else str(raw.get("mark", ""))

    def trust(self, collection: str, doubts: str) -> None:
        self._owners.delete_one({"_id": f"(unclean) {collection}", "mark": doubts or {"$exists": False}})

    def _counts(self, entries: Any) -> dict[str, int]:
        counts = ((name, self._count(entries, name)) for name in entries.distinct("c"))
        return {name: count for name, count in counts if count}

    def _count(self, entries: Any, collection: str) -> int:
        chosen = {"c": collection}
        counted = int(entries.count_documents(chosen, limit=_COUNTED))
        if counted < _COUNTED:
            return counted
        by_key = entries.find(chosen, {"_id": 0, "d": 1}).sort([("c", 1), ("d", 1)])
        last: list[Doc] = list(by_key.skip(_COUNTED - 1).limit(1))
        return estimate(counted, last[0]["d"]) if last else counted

    # --- orphans ------------------------------------------------------------------------------------------------

    def take_sweep(self, now: float, until: float) -> bool:
        free = {"_id": _SWEEP, "until": {"$lte": now}}
        try:
            self._owners.update_one(free, {"$set": {"until": until}}, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def end_sweep(self, until: float) -> None:
        self._owners.update_one({"_id": _SWEEP}, {"$set": {"until": until}})

    def owners(self) -> list[Registered]:
        found = self._owners.find({"b": {"$exists": True}})
        return [Registered(raw["_id"], Owner(raw["place"], raw["pid"], raw["started"]), raw["b"]) for raw in found]

    def forget(self, owner: Registered) -> None:
        self._owners.delete_one({"_id": owner.id, "b": owner.beat})

    def orphans(self, owner: str) -> Iterator[list[IntentRow]]:
        return self._batches({"w": owner})

    def expired(self, now: float) -> Iterator[list[IntentRow]]:
        return self._batches({"e": {"$lt": now}})

    def _batches(self, chosen: Doc) -> Iterator[list[IntentRow]]:
        while rows := [_row(raw) for raw in self._intents.find(chosen).limit(_ADOPTED)]:
            yield rows


def _place(collection: str, digest: str) -> str:
    # No collection's name has a NUL.
    return f"{collection}\0{digest}"


def _intent(row: IntentRow) -> Doc:
    return {
        "_id": row.op_id,
        "c": row.collection,
        "d": row.digest,
        "k": Binary(row.key),
        "o": row.opened,
        "e": row.expires,
        "w": row.owner,
    }


def _row(raw: Doc) -> IntentRow:
    return IntentRow(raw["_id"], raw["c"], raw["d"], bytes(raw["k"]), raw["o"], raw["e"], raw["w"])


def _deferral(row: IntentRow, settle_after: float) -> UpdateOne:
    return UpdateOne(
        {"_id": _place(row.collection, row.deferred_digest)},
        {
            "$inc": {"g": 1},
            "$min": {"s": row.opened},
            "$max": {"f": settle_after},
            "$set": {"t": row.opened},
            "$setOnInsert": {
                "a": 0,
                "c": row.collection,
                "d": row.deferred_digest,
                "k": Binary(row.deferred_key),
            },
        },
        upsert=True,
    )


def _passed(collection: str, number: int) -> UpdateOne:
    change = {"$inc": {"n": number}, "$set": {"c": collection}}
    return UpdateOne({"_id": f"(passed) {collection}"}, change, upsert=True)


def _due(raw: Doc, claimed: float) -> Due:
    return Due(raw["c"], unpack(raw["k"]), raw["g"], raw["a"], raw["s"], claimed, refused=raw.get("r", ""))


def _seen(due: Due) -> Doc:
    """The deferral as it was claimed: no other claim holds it, and it is not a later one with the same number."""
    return {"_id": _place(due.collection, digest_of(due.key)), "g": due.generation, "m": due.claimed}


def _pending(raw: Doc) -> Pending:
    if "w" in raw:
        return Pending(raw["c"], unpack(raw["k"]), raw["o"], raw["e"], op_id=raw["_id"], owner=raw["w"])
    return Pending(
        raw["c"],
        unpack(raw["k"]),
        raw["s"],
        raw["f"],
        generation=raw["g"],
        attempts=raw["a"],
        next_try=raw["t"],
        refused=raw.get("r", ""),
    )
