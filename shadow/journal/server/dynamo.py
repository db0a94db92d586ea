"""The journal in a DynamoDB table.

Its partitions: `i#0` to `i#3` hold the intents, `d#0` to `d#3` the deferred keys (one item a key, however often it is
deferred), chosen by the digest of the key; `meta` holds the processes, whose turn it is to look for orphans, how many
intents of each collection have passed, and which collections are unclean. Sort keys begin with collection and digest,
so that all there is of a key, and of a collection, lies together. Two indexes hold the deferred keys alone: `by_turn`
(which is next) and `by_age` (which is oldest).

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

from shadow.host.process import Owner
from shadow.journal.base import Due, JournalStats, Pending
from shadow.journal.server.backend import (
    UNDECIDED,
    IntentRow,
    NotReady,
    Registered,
    digest_of,
    estimate,
    in_order,
    place_of,
    unpack,
)
from shadow.journal.server.clock import Clock, ServerClock
from shadow.journal.server.dynamo_items import (
    Item,
    age_of,
    as_claimed,
    deferred_key,
    intent_item,
    intent_key,
    item_key,
    number,
    partitions,
    parts,
    pending_of,
    quoted,
    registered_of,
    row_of,
    shard_of,
)
from shadow.journal.server.dynamo_table import CONDITION, Access, ClientError, JournalTable, Unless, code_of, explained
from shadow.model.version import Key, fresh_id

__all__ = ["DynamoLedger"]

_COUNTED: Final = 250
"""Entries of one collection and partition that are counted one by one: the client's own work for each is what costs."""
_ADOPTED: Final = 1000
_META: Final = "meta"
_SWEEP: Final = "sweep"
_OWNER: Final = "owner#"
_PASSED: Final = "passed#"
_UNCLEAN: Final = "unclean#"
_PRIMARY: Final = "primary#"
_BEHIND: Final = "~"
"""Sorts behind every hexadecimal digit."""


class DynamoLedger:
    """See `ledger.RemoteLedger`; `dynamo_items` says how things are written."""

    def __init__(
        self, access: Access, table: str, owner: Owner, name: str, *, patience: float, clock: Clock | None = None
    ) -> None:
        """Connects on first use. `patience`: seconds for one request, about, in all its attempts."""
        self.clock: Clock = clock or ServerClock()
        self.name = name
        self._owner = owner
        self._patience = patience
        self._table = JournalTable(access, table, self.clock, patience)

    # --- life ---------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        deadline = time.monotonic() + self._patience
        while (status := self._table.status()) != "ACTIVE":
            if time.monotonic() > deadline:
                raise NotReady(f"the table {self._table.name} is being made ({status.lower()})")
            time.sleep(0.2)
        self.beat()

    def beat(self) -> None:
        if isinstance(self.clock, ServerClock):
            # The first sign of life carries the server's time, so the time comes first.
            self._table.call("get_item", Key=item_key(_META, _SWEEP))
        owner = self._owner
        item = {
            **item_key(_META, f"{_OWNER}{self.name}"),
            "place": {"S": owner.place},
            "pid": {"N": str(owner.pid)},
            "started": number(owner.started),
            "b": number(self.clock.latest()),
        }
        self._table.call("put_item", Item=item)

    def leave(self) -> None:
        self._table.call("delete_item", Key=item_key(_META, f"{_OWNER}{self.name}"))

    def release(self) -> None:
        self._table.release()

    def explain(self, error: Exception) -> tuple[str, str]:
        return explained(error, self._table.name)

    # --- intents ------------------------------------------------------------------------------------------------

    def open(self, rows: Sequence[IntentRow]) -> None:
        self._table.write([{"PutRequest": {"Item": intent_item(row)}} for row in rows])

    def close(self, rows: Sequence[IntentRow]) -> None:
        self._table.each(self._count_passed, Counter(row.collection for row in rows).items())
        self._table.write([{"DeleteRequest": {"Key": intent_key(row)}} for row in rows])

    def _count_passed(self, ended: tuple[str, int]) -> None:
        collection, times = ended
        self._table.call(
            "update_item",
            Key=item_key(_META, f"{_PASSED}{collection}"),
            UpdateExpression="ADD n :n",
            ExpressionAttributeValues={":n": number(times)},
        )

    def defer(self, rows: Sequence[tuple[IntentRow, float]]) -> None:
        self._table.each(lambda each: self._defer(*each), rows)
        self.close([row for row, _ in rows])

    def _defer(self, row: IntentRow, settle_after: float) -> None:
        """Two forms of one update, for DynamoDB has no maximum: whichever raises `f` or leaves it as it stands."""
        while True:
            for change, condition in (
                ("f = :f", "attribute_not_exists(f) OR f < :f"),
                ("f = f", "f >= :f"),
            ):
                with Unless(CONDITION):
                    self._defer_as(row, settle_after, change, condition)
                    return

    def _defer_as(self, row: IntentRow, settle_after: float, change: str, condition: str) -> None:
        key = deferred_key(row.collection, row.deferred_digest)
        answer = self._table.call(
            "update_item",
            Key=key,
            UpdateExpression=(
                f"SET {change}, k = if_not_exists(k, :k), a = if_not_exists(a, :zero), "
                "s = if_not_exists(s, :o), t = :o ADD g :one"
            ),
            ConditionExpression=condition,
            ExpressionAttributeValues={
                ":f": number(settle_after),
                ":k": {"B": row.deferred_key},
                ":o": number(row.opened),
                ":zero": number(0),
                ":one": number(1),
            },
            ReturnValues="UPDATED_NEW",
        )
        if float(answer["Attributes"]["s"]["N"]) > row.opened:
            with Unless(CONDITION):
                self._table.call(
                    "update_item",
                    Key=key,
                    UpdateExpression="SET s = :o",
                    ConditionExpression="s > :o",
                    ExpressionAttributeValues={":o": number(row.opened)},
                )

    def has_open(self, collection: str, digest: str) -> bool:
        # The intent first: a deferral stands before its intent goes.
        return any(self._stands(kind, collection, each) for kind in ("i", "d") for each in (digest, UNDECIDED))

    def _stands(self, kind: str, collection: str, begin: str) -> bool:
        """Whether there is anything of a kind whose digest begins so."""
        answer = self._table.call(
            "query",
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={
                ":pk": {"S": f"{kind}#{shard_of(begin)}"},
                ":sk": {"S": f"{quoted(collection)}#{begin}"},
            },
            ConsistentRead=True,
            Limit=1,
        )
        return bool(answer["Items"])

    def _intents_of(self, collection: str, digest: str) -> list[Item]:
        pages = self._table.pages(
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={
                ":pk": {"S": f"i#{shard_of(digest)}"},
                ":sk": {"S": f"{quoted(collection)}#{digest}#"},
            },
            ConsistentRead=True,
        )
        return [item for page in pages for item in page]

    # --- deferred keys ------------------------------------------------------------------------------------------

    def take(self, limit: int, now: float, until: float) -> list[Due]:
        proposed = [
            item
            for items in self._table.each(lambda shard: self._next(shard, limit, now), partitions("d"))
            for item in items
        ]
        proposed.sort(key=lambda item: float(item["t"]["N"]))
        claimed = self._table.each(lambda item: self._claim(item, now, until), proposed[:limit])
        return sorted((due for due in claimed if due is not None), key=lambda due: due.since)

    def _next(self, partition: str, limit: int, now: float) -> list[Item]:
        answer = self._table.call(
            "query",
            IndexName="by_turn",
            KeyConditionExpression="pk = :pk AND t <= :now",
            ExpressionAttributeValues={":pk": {"S": partition}, ":now": number(now)},
            Limit=limit,
        )
        items: list[Item] = answer["Items"]
        return items

    def _claim(self, item: Item, now: float, until: float) -> Due | None:
        """The deferral, if its turn is still the one that the index proposed."""
        return self._claim_if(item_key(item["pk"]["S"], item["sk"]["S"]), "t = :t", {":t": item["t"]}, now, until)

    def _claim_if(self, key: Item, condition: str, values: dict[str, Any], now: float, until: float) -> Due | None:
        with Unless(CONDITION):
            answer = self._table.call(
                "update_item",
                Key=key,
                UpdateExpression="SET t = :until, m = :now, l = :name",
                ConditionExpression=condition,
                ExpressionAttributeValues={
                    **values,
                    ":until": number(until),
                    ":now": number(now),
                    ":name": {"S": self.name},
                },
                ReturnValues="ALL_NEW",
            )
            item = answer["Attributes"]
            collection, _, _ = parts(item["sk"]["S"])
            return Due(
                collection,
                unpack(item["k"]["B"]),
                int(item["g"]["N"]),
                int(item["a"]["N"]),
                float(item["s"]["N"]),
                float(item["m"]["N"]),
                refused=item.get("r", {}).get("S", ""),
            )
        return None

    def claim(self, collection: str, key: Key, now: float, until: float) -> Due | None:
        place = deferred_key(collection, digest_of(key))
        return self._claim_if(place, "attribute_exists(g)", {}, now, until)

    def settle(self, due: Due) -> bool:
        condition, values = as_claimed(due)
        try:
            self._table.call(
                "delete_item",
                Key=deferred_key(due.collection, digest_of(due.key)),
                ConditionExpression=f"{condition} AND f <= :m",
                ExpressionAttributeValues=values,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if code_of(error) != CONDITION:
                raise
            # A lost answer makes the client ask again for what it has just done.
            retried = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
            if retried and not error.response.get("Item"):
                return True
        else:
            return True
        self._change(due, "SET t = f", {})
        return False

    def postpone(self, due: Due, until: float, refused: str) -> None:
        values = {":until": number(until), ":a": number(due.attempts_after(refused))}
        if refused:
            self._change(due, "SET t = :until, a = :a, r = :r", {**values, ":r": {"S": refused}})
        else:
            self._change(due, "SET t = :until, a = :a REMOVE r", values)

    def give_back(self, due: Due) -> None:
        self._change(due, "SET t = s", {})

    def end_claims(self, owner: str, now: float) -> None:
        """Of all that is claimed or postponed, which is little."""
        for partition in partitions("d"):
            for page in self._table.pages(
                IndexName="by_turn",
                KeyConditionExpression="pk = :pk AND t > :now",
                ExpressionAttributeValues={":pk": {"S": partition}, ":now": number(now)},
            ):
                for item in self._table.get([item_key(partition, each["sk"]["S"]) for each in page]):
                    if item.get("l") == {"S": owner}:
                        self._end_claim(item)

    def _end_claim(self, item: Item) -> None:
        with Unless(CONDITION):
            self._table.call(
                "update_item",
                Key=item_key(item["pk"]["S"], item["sk"]["S"]),
                UpdateExpression="SET t = s",
                ConditionExpression="m = :m AND l = :l AND t = :t",
                ExpressionAttributeValues={":m": item["m"], ":l": item["l"], ":t": item["t"]},
            )

    def _change(self, due: Due, change: str, values: dict[str, Any]) -> None:
        """Changes the deferral if it stands as it was claimed."""
        condition, seen = as_claimed(due)
        with Unless(CONDITION):
            self._table.call(
                "update_item",
                Key=deferred_key(due.collection, digest_of(due.key)),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeValues={**seen, **values},
            )

    # --- what people ask for ------------------------------------------------------------------------------------

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]:
        """Reads all intents, and of the deferred keys as far as it takes."""
        chosen = None if collection is None else f"{quoted(collection)}#"

        def of(partition: str) -> list[Pending]:
            if partition.startswith("i"):
                found = [pending_of(item) for item in self._intents(partition, chosen)]
            else:
                found = self._oldest(partition, limit, chosen, after)
            return in_order((each for each in found if after is None or place_of(each) > place_of(after)), limit)

        return in_order((each for some in self._table.each(of, partitions("i", "d")) for each in some), limit)

    def _intents(self, partition: str, prefix: str | None) -> Iterator[Item]:
        condition, values = "pk = :pk", {":pk": {"S": partition}}
        if prefix is not None:
            condition, values = f"{condition} AND begins_with(sk, :sk)", {**values, ":sk": {"S": prefix}}
        for page in self._table.pages(
            KeyConditionExpression=condition, ExpressionAttributeValues=values, ConsistentRead=True
        ):
            yield from page

    def _oldest(self, partition: str, limit: int, prefix: str | None, after: Pending | None) -> list[Pending]:
        """The first `limit` deferrals behind another one: keys from the index, then the items."""
        since = after.since if after is not None else 0.0
        start = place_of(after) if after is not None else (since, "", "", "")
        found: list[tuple[tuple[float, str, str, str], str]] = []
        for page in self._table.pages(
            IndexName="by_age",
            KeyConditionExpression="pk = :pk AND s >= :s",
            ExpressionAttributeValues={":pk": {"S": partition}, ":s": number(since)},
            Limit=max(100, limit + 1),
        ):
            places = ((age_of(item), item["sk"]["S"]) for item in page)
            found += [each for each in places if each[0] > start and each[1].startswith(prefix or "")]
            found.sort()
            # Items of one age come in no order, so all of them have to be seen.
            if len(found) > limit and page and float(page[-1]["s"]["N"]) > found[limit - 1][0][0]:
                break
        return [pending_of(item) for item in self._table.get([item_key(partition, each) for _, each in found[:limit]])]

    def explain_key(self, collection: str, key: Key) -> list[Pending]:
        digest = digest_of(key)
        answer = self._table.call("get_item", Key=deferred_key(collection, digest), ConsistentRead=True)
        items = [*self._intents_of(collection, digest), *([answer["Item"]] if "Item" in answer else [])]
        return in_order(map(pending_of, items), len(items))

    def stats(self) -> JournalStats:
        tallies = dict(zip(partitions("i", "d"), self._table.each(self._tally, partitions("i", "d")), strict=True))
        counts, refused = {"i": Counter[str](), "d": Counter[str]()}, Counter[str]()
        for partition, (count, no, _) in tallies.items():
            counts[partition[0]].update(count)
            refused.update(no)
        oldest = [first for _, _, first in tallies.values() if first is not None]
        age = max(0.0, self.clock.earliest() - min(oldest)) if oldest else 0.0
        # Behind the intents: what has gone from there is counted here.
        passed = Counter({name: int(item["n"]["N"]) for name, item in self._meta(_PASSED)})
        passed.update(counts["i"])
        unclean = {name: float(item["u"]["N"]) for name, item in self._meta(_UNCLEAN)}
        return JournalStats(dict(counts["i"]), dict(counts["d"]), age, unclean, dict(passed), dict(refused))

    def _meta(self, prefix: str) -> list[tuple[str, Item]]:
        """What is noted under a prefix, each with the rest of its name."""
        pages = self._table.pages(
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={":pk": {"S": _META}, ":sk": {"S": prefix}},
            ConsistentRead=True,
        )
        return [(item["sk"]["S"].removeprefix(prefix), item) for page in pages for item in page]

    def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        for name, primary in configured.items():
            with Unless(CONDITION):
                self._note_primary(name, primary, ConditionExpression="attribute_not_exists(sk)")
        return {name: item["p"]["S"] for name, item in self._meta(_PRIMARY)}

    def set_primary(self, collection: str, primary: str) -> None:
        self._note_primary(collection, primary)

    def _note_primary(self, collection: str, primary: str, **condition: str) -> None:
        item = {**item_key(_META, f"{_PRIMARY}{collection}"), "p": {"S": primary}}
        self._table.call("put_item", Item=item, **condition)

    def doubt(self, collection: str, since: float) -> None:
        place = item_key(_META, f"{_UNCLEAN}{collection}")
        self._table.call(
            "update_item",
            Key=place,
            UpdateExpression="SET m = :m, u = if_not_exists(u, :u)",
            ExpressionAttributeValues={":m": {"S": fresh_id()}, ":u": number(since)},
        )
        with Unless(CONDITION):
            self._table.call(
                "update_item",
                Key=place,
                UpdateExpression="SET u = :u",
                ConditionExpression="u > :u",
                ExpressionAttributeValues={":u": number(since)},
            )

    def doubts(self, collection: str) -> str:
        place = item_key(_META, f"{_UNCLEAN}{collection}")
        found = self._table.call("get_item", Key=place, ConsistentRead=True).get("Item", {})
        return str(found["m"]["S"]) if "m" in found else ""

    def trust(self, collection: str, doubts: str) -> None:
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(m)"}
        if doubts:
            values = {":m": {"S": doubts}}
            condition = {"ConditionExpression": "m = :m", "ExpressionAttributeValues": values}
        with Unless(CONDITION):
            self._table.call("delete_item", Key=item_key(_META, f"{_UNCLEAN}{collection}"), **condition)

    def _tally(self, partition: str) -> tuple[Counter[str], Counter[str], float | None]:
        """How many of each collection, how many of these the secondary refuses, as far as they were looked at, and the
        least moment among them. A collection of which there are too many is counted in part, and left at once for the
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
                return counts, +refused, min(moments, default=None)
            low = items[-1]["sk"]["S"]
            name, digest, _ = parts(low)
            if counts[name] >= _COUNTED:
                counts[name] = estimate(counts[name], digest)
                low = f"{quoted(name)}#{_BEHIND}"
                moments += self._least(partition)

    def _least(self, partition: str) -> list[float]:
        """The moment of the oldest deferred key; intents expire, so that of any of them will do."""
        if not partition.startswith("d"):
            return []
        first = self._table.call(
            "query",
            IndexName="by_age",
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            Limit=1,
        )
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

    # --- orphans ------------------------------------------------------------------------------------------------

    def take_sweep(self, now: float, until: float) -> bool:
        with Unless(CONDITION):
            self._table.call(
                "update_item",
                Key=item_key(_META, _SWEEP),
                UpdateExpression="SET u = :until",
                ConditionExpression="attribute_not_exists(u) OR u <= :now",
                ExpressionAttributeValues={":until": number(until), ":now": number(now)},
            )
            return True
        return False

    def end_sweep(self, until: float) -> None:
        item = {**item_key(_META, _SWEEP), "u": number(until)}
        self._table.call("put_item", Item=item)

    def owners(self) -> list[Registered]:
        return [registered_of(name, item) for name, item in self._meta(_OWNER)]

    def forget(self, owner: Registered) -> None:
        with Unless(CONDITION):
            self._table.call(
                "delete_item",
                Key=item_key(_META, f"{_OWNER}{owner.id}"),
                ConditionExpression="b = :b",
                ExpressionAttributeValues={":b": number(owner.beat)},
            )

    def orphans(self, owner: str) -> Iterator[list[IntentRow]]:
        return self._batches("w = :x", {"S": owner})

    def expired(self, now: float) -> Iterator[list[IntentRow]]:
        return self._batches("e < :x", number(now))

    def _batches(self, condition: str, value: Item) -> Iterator[list[IntentRow]]:
        """Of all intents, which are few: those of operations under way."""
        for partition in partitions("i"):
            for page in self._table.pages(
                KeyConditionExpression="pk = :pk",
                FilterExpression=condition,
                ExpressionAttributeValues={":pk": {"S": partition}, ":x": value},
                ConsistentRead=True,
            ):
                for at in range(0, len(page), _ADOPTED):
                    yield [row_of(item) for item in page[at : at + _ADOPTED]]
