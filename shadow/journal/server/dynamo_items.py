"""What the journal's table holds, as DynamoDB's items: their keys and their attributes. No request.

Attributes of an intent: `k` packed key, `o` opened, `e` expires, `w` its owner's name. Of a deferral: `k`, `g`
generation, `s` since, `a` attempts, `t` next try, `f` settle after, `m` the moment of the claim that holds it, `r` with
what the secondary refuses it. Times are epoch seconds of the server.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from shadow.host.process import Owner
from shadow.journal.base import Due, Pending
from shadow.journal.server.backend import UNDECIDED, IntentRow, Registered, unpack

__all__ = [
    "Item",
    "age_of",
    "as_claimed",
    "deferred_key",
    "intent_item",
    "intent_key",
    "item_key",
    "number",
    "partitions",
    "parts",
    "pending_of",
    "quoted",
    "registered_of",
    "row_of",
    "shard_of",
]

_SHARDS: Final = 4

Item: TypeAlias = dict[str, Any]


def number(value: float) -> Item:
    return {"N": repr(value)}


def item_key(partition: str, sort_key: str) -> Item:
    return {"pk": {"S": partition}, "sk": {"S": sort_key}}


def partitions(*kinds: str) -> list[str]:
    return [f"{kind}#{shard}" for kind in kinds for shard in range(_SHARDS)]


def shard_of(digest: str) -> int:
    # From its end: within a partition the digests stay evenly spread from the first digit on. What is undecided lies
    # in one partition, for it is asked for all at once.
    return 0 if digest.startswith(UNDECIDED) else int(digest[-2:], 16) % _SHARDS


def quoted(collection: str) -> str:
    """A collection's name within a sort key, without what parts it."""
    return quote(collection, safe="")


def parts(sort_key: str) -> tuple[str, str, str]:
    """Collection, digest and op_id; a deferral has none."""
    name, digest, op_id = (*sort_key.split("#", 2), "")[:3]
    return unquote(name), digest, op_id


def deferred_key(collection: str, digest: str) -> Item:
    return item_key(f"d#{shard_of(digest)}", f"{quoted(collection)}#{digest}")


def intent_key(row: IntentRow) -> Item:
    return item_key(f"i#{shard_of(row.digest)}", f"{quoted(row.collection)}#{row.digest}#{row.op_id}")


def intent_item(row: IntentRow) -> Item:
    return {
        **intent_key(row),
        "k": {"B": row.key},
        "o": number(row.opened),
        "e": number(row.expires),
        "w": {"S": row.owner},
    }


def row_of(item: Item) -> IntentRow:
    collection, digest, op_id = parts(item["sk"]["S"])
    opened, expires = float(item["o"]["N"]), float(item["e"]["N"])
    return IntentRow(op_id, collection, digest, item["k"]["B"], opened, expires, item["w"]["S"])


def registered_of(name: str, item: Item) -> Registered:
    process = Owner(item["place"]["S"], int(item["pid"]["N"]), float(item["started"]["N"]))
    return Registered(name, process, float(item["b"]["N"]))


def as_claimed(due: Due) -> tuple[str, dict[str, Any]]:
    """The deferral as it was claimed: no other claim holds it, and it is not a later one with the same number."""
    return "g = :g AND m = :m", {":g": number(due.generation), ":m": number(due.claimed)}


def age_of(item: Item) -> tuple[float, str, str, str]:
    return float(item["s"]["N"]), *parts(item["sk"]["S"])


def pending_of(item: Item) -> Pending:
    collection, _, op_id = parts(item["sk"]["S"])
    key = unpack(item["k"]["B"])
    if op_id:
        opened, expires = float(item["o"]["N"]), float(item["e"]["N"])
        return Pending(collection, key, opened, expires, op_id=op_id, owner=item["w"]["S"])
    return Pending(
        collection,
        key,
        float(item["s"]["N"]),
        float(item["f"]["N"]),
        generation=int(item["g"]["N"]),
        attempts=int(item["a"]["N"]),
        next_try=float(item["t"]["N"]),
        refused=item.get("r", {}).get("S", ""),
    )
