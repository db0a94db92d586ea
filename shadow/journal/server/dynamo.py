"""The journal in a DynamoDB table.

Its partitions: `i#0` to `i#3` hold the intents, `d#0` to `d#3` the deferred keys (one item a key, however often it is
deferred), `l#0` to `l#3` the late ones, chosen by the digest of the key; `meta` holds the notes. Sort keys begin with
collection and digest, so that all there is of a key, and of a collection, lies together. Two indexes hold the deferred
and late keys alone: `by_turn` (which is next) and `by_age` (which is oldest).

The answers that safety rests on (what is open, whether anything is left) are read from the table, consistently; the
indexes only propose what to heal, and a conditional write on the table decides. Opening and closing an intent is one
write unit each while its key is under 1 KB, 25 of them a request. The client is botocore's own synchronous one, used by
the journal's threads alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from shadow.journal.server.clock import Clock, ServerClock
from shadow.journal.server.driver import Condition, Kind, Merge, NotReady, Place, Record, Tally
from shadow.journal.server.dynamo_items import (
    META,
    PREFIXES,
    Expressions,
    Item,
    encoded,
    item_key,
    item_of,
    key_of,
    partitions,
    parts,
    place_at,
    quoted,
    record_of,
    shard_of,
)
from shadow.journal.server.dynamo_table import CONDITION, Access, ClientError, JournalTable, Unless, code_of, explained
from shadow.journal.server.records import UNDECIDED, age_of, estimate, in_order

__all__ = ["DynamoDriver"]

_COUNTED: Final = 250
"""Entries of one collection and partition that are counted one by one: the client's own work for each is what costs."""
_BATCH: Final = 1000
"""Intents that are handed over at a time."""
_BEHIND: Final = "~"
"""Sorts behind every hexadecimal digit."""


class DynamoDriver:
    """See `driver.Driver`; `dynamo_items` says how things are written."""

    def __init__(self, access: Access, table: str, *, patience: float, clock: Clock | None = None) -> None:
        """Connects on first use. `patience`: seconds for one request, about, in all its attempts."""
        self.clock: Clock = clock or ServerClock()
        self._patience = patience
        self._table = JournalTable(access, table, self.clock, patience)

    # --- the connection -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        deadline = time.monotonic() + self._patience
        while (status := self._table.status()) != "ACTIVE":
            if time.monotonic() > deadline:
                raise NotReady(f"the table {self._table.name} is being created ({status.lower()})")
            time.sleep(0.2)

    def read_clock(self) -> None:
        # Every answer tells the time.
        self._table.call("get_item", Key=key_of(Place(Kind.SWEEP)))

    def release(self) -> None:
        self._table.release()

    def explain_error(self, error: Exception) -> tuple[str, str]:
        return explained(error, self._table.name)

    # --- writes -------------------------------------------------------------------------------------------------

    def insert(self, intents: Sequence[Record]) -> None:
        self._table.write([{"PutRequest": {"Item": item_of(each)}} for each in intents])

    def remove(self, intents: Sequence[Place]) -> None:
        self._table.write([{"DeleteRequest": {"Key": key_of(each)}} for each in intents])

    def merge(self, merges: Sequence[tuple[Place, Merge]]) -> None:
        self._table.each(lambda each: self._merge(*each), merges)

    def _merge(self, place: Place, merge: Merge) -> None:
        """DynamoDB has no maximum: of two forms of one update, whichever raises `most` or leaves it as it is."""
        while True:
            for raises in (True, False) if merge.most else (True,):
                with Unless(CONDITION):
                    answer = self._table.call("update_item", Key=key_of(place), **_merging(place.kind, merge, raises))
                    self._lower(place, merge, answer.get("Attributes", {}))
                    return

    def _lower(self, place: Place, merge: Merge, written: Item) -> None:
        """Nor has it a minimum: the first value was taken over, and one that is higher is lowered after that."""
        if merge.least is None:
            return
        field, value = merge.least
        expressions = Expressions(place.kind)
        name, least = expressions.name(field), expressions.value(value)
        if float(written[name.removeprefix("#")]["N"]) > value:
            update = expressions.request(
                UpdateExpression=f"SET {name} = {least}", ConditionExpression=f"{name} > {least}"
            )
            with Unless(CONDITION):
                self._table.call("update_item", Key=key_of(place), **update)

    def change(
        self, place: Place, values: Mapping[str, Any], conditions: Sequence[Condition] = (), *, create: bool = False
    ) -> Record | None:
        expressions = Expressions(place.kind)
        met = expressions.meeting(conditions)
        condition = (
            f"attribute_not_exists(sk) OR ({' AND '.join(met)})"
            if create
            else " AND ".join(["attribute_exists(sk)", *met])
        )
        request = expressions.request(UpdateExpression=expressions.setting(values), ConditionExpression=condition)
        with Unless(CONDITION):
            answer = self._table.call("update_item", Key=key_of(place), ReturnValues="ALL_NEW", **request)
            return record_of(place.kind, answer["Attributes"])
        return None

    def change_each(
        self, places: Sequence[Place], values: Mapping[str, Any], conditions: Sequence[Condition]
    ) -> list[Record]:
        changed = self._table.each(lambda place: self.change(place, values, conditions), places)
        return [each for each in changed if each is not None]

    def delete(self, place: Place, conditions: Sequence[Condition] = ()) -> bool:
        expressions = Expressions(place.kind)
        request = expressions.request(ConditionExpression=" AND ".join(expressions.meeting(conditions)))
        try:
            self._table.call("delete_item", Key=key_of(place), ReturnValuesOnConditionCheckFailure="ALL_OLD", **request)
        except ClientError as error:
            if code_of(error) != CONDITION:
                raise
            # A lost answer makes the client ask again for what it has just done.
            retried = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
            return retried and not error.response.get("Item")
        return True

    # --- reads --------------------------------------------------------------------------------------------------

    def note(self, place: Place) -> Record | None:
        found = self._table.call("get_item", Key=key_of(place), ConsistentRead=True).get("Item")
        return None if found is None else record_of(place.kind, found)

    def notes(self, kind: Kind) -> list[Record]:
        return [record_of(kind, item) for page in self._pages(META, PREFIXES[kind]) for item in page]

    def exists(self, kind: Kind, collection: str, digest: str) -> bool:
        return any(self._exists(kind, collection, each) for each in (digest, UNDECIDED))

    def _exists(self, kind: Kind, collection: str, begin: str) -> bool:
        answer = self._table.call(
            "query", Limit=1, **_beginning(shard_of(kind, begin), f"{quoted(collection)}#{begin}")
        )
        return bool(answer["Items"])

    def of_key(self, kind: Kind, collection: str, digest: str) -> list[Record]:
        if kind is Kind.DEFERRED:
            found = self.note(Place(kind, collection, digest))
            return [] if found is None else [found]
        pages = self._pages(shard_of(kind, digest), f"{quoted(collection)}#{digest}#")
        return [record_of(kind, item) for page in pages for item in page]

    def _pages(self, partition: str, begin: str = "") -> Iterator[list[Item]]:
        return self._table.pages(**_beginning(partition, begin))

    def intents(self, condition: Condition) -> Iterator[list[Record]]:
        """Reads all of them, which are few: those of operations under way."""
        for partition in partitions(Kind.INTENT):
            expressions = Expressions(Kind.INTENT)
            (met,) = expressions.meeting([condition])
            whole = f"pk = {expressions.value(partition)}"
            request = expressions.request(KeyConditionExpression=whole, FilterExpression=met)
            for page in self._table.pages(ConsistentRead=True, **request):
                for at in range(0, len(page), _BATCH):
                    yield [record_of(Kind.INTENT, item) for item in page[at : at + _BATCH]]

    def turns(self, kind: Kind, limit: int, now: float) -> list[Place]:
        def next_of(partition: str) -> list[Item]:
            answer = self._table.call("query", IndexName="by_turn", Limit=limit, **_indexed(partition, "t <= :v", now))
            items: list[Item] = answer["Items"]
            return items

        found = [item for items in self._table.each(next_of, partitions(kind)) for item in items]
        found.sort(key=lambda item: float(item["t"]["N"]))
        return [place_at(kind, item["sk"]["S"]) for item in found[:limit]]

    def claimed(self, owner: str, now: float) -> Iterator[Record]:
        """Reads all that is claimed or postponed, which is little."""
        for partition in partitions(Kind.DEFERRED):
            for page in self._table.pages(IndexName="by_turn", **_indexed(partition, "t > :v", now)):
                for item in self._table.get([item_key(partition, each["sk"]["S"]) for each in page]):
                    if item.get("l", {}).get("S", "").startswith(owner):
                        yield record_of(Kind.DEFERRED, item)

    def oldest(
        self, kind: Kind, limit: int, collection: str | None, after: tuple[float, str, str, str] | None
    ) -> list[Record]:
        """Reads all intents, and of the deferred keys as far as it takes."""
        begin = "" if collection is None else f"{quoted(collection)}#"

        def of(partition: str) -> list[Record]:
            if kind is Kind.DEFERRED:
                return self._oldest(partition, limit, begin, after)
            found = [record_of(kind, item) for page in self._pages(partition, begin) for item in page]
            return in_order((each for each in found if after is None or age_of(each) > after), limit)

        return in_order((each for some in self._table.each(of, partitions(kind)) for each in some), limit)

    def _oldest(
        self, partition: str, limit: int, begin: str, after: tuple[float, str, str, str] | None
    ) -> list[Record]:
        """The first `limit` deferrals behind another one: keys from the index, then the items."""
        start = after if after is not None else (0.0, "", "", "")
        found: list[tuple[tuple[float, str, str, str], str]] = []
        for page in self._table.pages(
            IndexName="by_age", Limit=max(100, limit + 1), **_indexed(partition, "s >= :v", start[0])
        ):
            ages = (((float(item["s"]["N"]), *parts(item["sk"]["S"])), item["sk"]["S"]) for item in page)
            found += [each for each in ages if each[0] > start and each[1].startswith(begin)]
            found.sort()
            # Items of one age come in no order, so all of them have to be seen.
            if len(found) > limit and page and float(page[-1]["s"]["N"]) > found[limit - 1][0][0]:
                break
        items = self._table.get([item_key(partition, each) for _, each in found[:limit]])
        still = (record_of(Kind.DEFERRED, item) for item in items)
        return [each for each in still if after is None or age_of(each) > after]

    # --- counts -------------------------------------------------------------------------------------------------

    def tally(self, kind: Kind) -> Tally:
        counts, refused, moments = Counter[str](), Counter[str](), list[float]()
        for count, no, least in self._table.each(lambda partition: self._tally(kind, partition), partitions(kind)):
            counts.update(count)
            refused.update(no)
            moments += least
        return Tally(dict(counts), dict(refused), min(moments, default=None))

    def _tally(self, kind: Kind, partition: str) -> tuple[Counter[str], Counter[str], list[float]]:
        """How many of each collection, how many of these the secondary refuses, as far as they were read, and the
        moments among them. A collection of which there are too many is counted in part, and left at once for the
        next: what is there is never called empty."""
        counts, refused, low, moments = Counter[str](), Counter[str](), " ", list[float]()
        while True:
            items, whole = self._some(partition, low)
            for item in items:
                name = parts(item["sk"]["S"])[0]
                counts[name] += 1
                refused[name] += "r" in item
                moments.append(float((item.get("s") or item["o"])["N"]))
            if whole:
                return counts, +refused, moments
            low = items[-1]["sk"]["S"]
            name, digest, _ = parts(low)
            if counts[name] >= _COUNTED:
                counts[name] = estimate(counts[name], digest)
                low = f"{quoted(name)}#{_BEHIND}"
                # Intents expire, so that the moment of any of them will do.
                moments += self._least(partition) if kind is not Kind.INTENT else []

    def _least(self, partition: str) -> list[float]:
        """The moment of the oldest deferred key."""
        first = self._table.call("query", IndexName="by_age", Limit=1, **_beginning(partition, consistent=False))
        return [float(item["s"]["N"]) for item in first["Items"]]

    def _some(self, partition: str, low: str) -> tuple[list[Item], bool]:
        """Up to so many items behind a sort key, and whether that was all."""
        answer = self._table.call(
            "query",
            KeyConditionExpression="pk = :pk AND sk > :low",
            ExpressionAttributeValues={":pk": {"S": partition}, ":low": {"S": low}},
            ProjectionExpression="sk, s, o, r",
            ConsistentRead=True,
            Limit=_COUNTED,
        )
        return answer["Items"], "LastEvaluatedKey" not in answer


# --- requests ---------------------------------------------------------------------------------------------------


def _beginning(partition: str, begin: str = "", *, consistent: bool = True) -> dict[str, Any]:
    """Of a query: the items of a partition whose sort keys begin so."""
    condition, values = "pk = :pk", {":pk": {"S": partition}}
    if begin:
        condition, values = f"{condition} AND begins_with(sk, :sk)", {**values, ":sk": {"S": begin}}
    parameters = {"KeyConditionExpression": condition, "ExpressionAttributeValues": values}
    return {**parameters, "ConsistentRead": True} if consistent else parameters


def _indexed(partition: str, condition: str, value: float) -> dict[str, Any]:
    """Of a query on an index, which cannot be read consistently."""
    return {
        "KeyConditionExpression": f"pk = :pk AND {condition}",
        "ExpressionAttributeValues": {":pk": {"S": partition}, ":v": encoded(value)},
    }


def _merging(kind: Kind, merge: Merge, raises: bool) -> dict[str, Any]:
    """Of an update that raises `most`, or of one that finds it as high."""
    expressions, condition = Expressions(kind), ""
    put = [f"{expressions.name(field)} = {expressions.value(value)}" for field, value in merge.put.items()]
    first = {**merge.first, **dict([merge.least] if merge.least else [])}
    for field, value in first.items():
        name = expressions.name(field)
        put.append(f"{name} = if_not_exists({name}, {expressions.value(value)})")
    if merge.most:
        name, most = expressions.name(merge.most[0]), expressions.value(merge.most[1])
        put.append(f"{name} = {most if raises else name}")
        condition = f"attribute_not_exists({name}) OR {name} < {most}" if raises else f"{name} >= {most}"
    added = [f"{expressions.name(field)} {expressions.value(value)}" for field, value in merge.add.items()]
    update = " ".join(expressions.clauses(SET=put, ADD=added))
    request = expressions.request(UpdateExpression=update, ConditionExpression=condition)
    return {**request, "ReturnValues": "UPDATED_NEW"}
