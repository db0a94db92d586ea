"""Writes: every change of a document is one conditional write (or one transaction) on the state that was read.

The condition is the state that was read, and not just "there is a document": a request may be delayed on the way while
the client sends it again, and must not apply when it arrives after all.

The body of a document over 400 KB is stored in parts. A new body is written under a new generation before the
conditional write of the head item refers to it, and the old generation is deleted after that: at every moment the head
refers to a complete body. A crash in between leaves orphaned parts; `sweep` removes them when they are older than any
write can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError, WriteError

from shadow.model.operation import UpsertGuard
from shadow.model.stored import Damaged
from shadow.model.version import ABSENT, Image, State, Unknown
from shadow.mongoql.expiry import has_expired
from shadow.stores.dynamo.client.gateway import Cancelled, ConditionFailed, Gateway
from shadow.stores.dynamo.client.limits import MOST_ACTIONS
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import BodyParts, Encoded, Item
from shadow.stores.dynamo.items.expressions import Expression, exactly, stamped_as, vacant
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.write.stale import Stale, stale_claim
from shadow.stores.dynamo.write.upserts import advance

__all__ = [
    "BUSY",
    "NOTHING",
    "SWEEP_MARK",
    "TRANSACTION_ATTEMPTS",
    "VACANT",
    "Addition",
    "Expected",
    "ExpectedStamp",
    "FoundItem",
    "Vacant",
    "Writer",
    "condition_of",
    "expected_of",
]

SWEEP_MARK: Final = "~sweep"
"""The key of the item that records that a table has had parts of large documents, and when it was last swept."""

TRANSACTION_ATTEMPTS: Final = 8
_WRITE_CONFLICT: Final = 112
_UNAUTHORIZED: Final = 13
BUSY: Final = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})


@dataclass(frozen=True, slots=True)
class Vacant:
    """Expected: nothing, or any tombstone."""


@dataclass(frozen=True, slots=True)
class ExpectedStamp:
    """Expected: the stamp of this item, whatever it is. For an unreadable stamp."""

    item: Item


VACANT: Final = Vacant()
Expected: TypeAlias = State | Vacant | ExpectedStamp | tuple[State, ...]
"""What a write expects to find; of a tuple, any one of its states."""


@dataclass(frozen=True, slots=True)
class FoundItem:
    """What a key holds, as read: the item (None: nothing) and the image in it."""

    item: Item | None
    image: Image


NOTHING: Final = FoundItem(None, Image(ABSENT))


@dataclass(frozen=True, slots=True)
class Addition:
    """A document to insert: its key text, its item, and its claims by the keys of their items."""

    key_text: str
    item: Item
    claims: Mapping[str, unique.UniqueClaim]

    @property
    def names(self) -> frozenset[str]:
        """The keys of all items that inserting it writes."""
        return frozenset((self.key_text, *self.claims))


async def _all_of(*requests: Awaitable[Any]) -> None:
    """Sends the requests concurrently and returns when all have ended, even if one of them raises: none may still be
    writing when the caller continues."""
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


class _GuardMoved(WriteError):
    """Another upsert of the same filter has inserted its document; nothing was written."""

    def __init__(self, guard: UpsertGuard) -> None:
        message = "another upsert of the same filter was first"
        super().__init__(message, _WRITE_CONFLICT, {"index": 0, "code": _WRITE_CONFLICT, "errmsg": message})


class Writer:
    def __init__(
        self, gateway: Gateway, reader: Reader, on_denied: Callable[[str, str], None] = lambda table, text: None
    ) -> None:
        """`on_denied` is called with (table, text), once per table, if a missing right affects work that fails no
        write."""
        self._gateway = gateway
        self._on_denied = on_denied
        self._denied: set[str] = set()
        self._reader = reader
        self._marked: set[str] = set()

    async def commit(
        self,
        table: CollectionTable,
        key_text: str,
        expected: Expected,
        before: FoundItem,
        after: Image,
        op_id: str,
        guard: UpsertGuard | None = None,
    ) -> None:
        """Puts `after` under the key (ABSENT: deletes it) if the key is at `expected`.

        `before` is what was read there; NOTHING is enough if no constraint is unique and nothing was read. Raises
        `ConditionFailed` with the current item, `DuplicateKeyError` for a violated constraint, and a WriteError with
        code 112 if `guard` has changed since it was read.
        """
        encoded = await self.encode(table, key_text, after, op_id)
        if encoded is not None and encoded.parts:
            await self.write_parts(table, key_text, encoded)
        try:
            replaced = await self._write_head(table, key_text, expected, before, after, encoded, guard)
        except ConditionFailed as failed:
            if not failed.retried:  # else an earlier attempt may have been applied, and the head may name the parts
                await self.discard(table, key_text, encoded)
            raise
        except (DuplicateKeyError, _GuardMoved):
            await self.discard(table, key_text, encoded)
            raise
        old = replaced if replaced is not None else before.item
        if old is not None:
            await self.delete_body(table, old)

    async def encode(self, table: CollectionTable, key_text: str, after: Image, op_id: str) -> Encoded | None:
        if after.state == ABSENT:
            return None
        encode = table.codec.encode
        if after.document is not None and table.codec.is_large(after.document):
            return await asyncio.to_thread(encode, key_text, after.state, after.document, op_id)
        return encode(key_text, after.state, after.document, op_id)

    async def _write_head(
        self,
        table: CollectionTable,
        key_text: str,
        expected: Expected,
        before: FoundItem,
        after: Image,
        encoded: Encoded | None,
        guard: UpsertGuard | None,
    ) -> Item | None:
        """The conditional write; returns the item that it replaced, if DynamoDB returns it."""
        expression = Expression()
        condition = condition_of(expression, table.spec.reserved, expected)
        request: dict[str, Any] = {
            "TableName": table.name,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **({"Key": {"_id": {"S": key_text}}} if encoded is None else {"Item": encoded.item}),
            **expression.parameters(ConditionExpression=condition),
        }
        take, release = unique.changed_claims(table.spec, before.image.document, after.document)
        if release and has_expired(table.spec.expiry, before.image.document):
            release = await self.still_held(table, key_text, release)
        if isinstance(before.image.state, Unknown):
            take = unique.claims(table.spec, after.document)  # it is unknown whether it ever took its own
        if take or release or guard:
            head = {"Delete" if encoded is None else "Put": request}
            await self._transact(table, key_text, head, take, release, guard)
            return None
        verb = "delete_item" if encoded is None else "put_item"
        returned = "ALL_OLD" if before.item is None and expected != ABSENT else "NONE"
        answer = await self._gateway.call(
            verb, table.name, **request, ReturnValues=returned, ReturnConsumedCapacity="INDEXES"
        )
        return answer.get("Attributes") or None

    async def still_held(
        self, table: CollectionTable, key_text: str, release: dict[str, unique.UniqueClaim]
    ) -> dict[str, unique.UniqueClaim]:
        """Those that the document still holds: another one may have taken the claims of one that has expired."""
        items = await self._reader.get_many(table, list(release))
        owners = {name: unique.owner_of(item, table.spec.reserved) for name, item in items.items()}
        return {name: claim for name, claim in release.items() if owners.get(name) == key_text}

    async def claim(
        self, table: CollectionTable, key_text: str, state: State, take: dict[str, unique.UniqueClaim]
    ) -> None:
        """Takes claims for a document that is at `state`. Raises as `commit` does."""
        expression = Expression()
        check = {
            "TableName": table.name,
            "Key": {"_id": {"S": key_text}},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **expression.parameters(ConditionExpression=exactly(expression, table.spec.reserved, state)),
        }
        await self._transact(table, key_text, {"ConditionCheck": check}, take, {})

    async def add_all(self, table: CollectionTable, additions: Sequence[Addition]) -> Sequence[int]:
        """Inserts all, each where there is nothing or a tombstone, or none of them; no two may share a name. Returns
        the positions of those that have to be written alone; if empty, all were inserted. Raises the error of the
        request as a whole; by `model.outcome.classify`, the request may have been applied nevertheless."""
        actions = [(place, action) for place, each in enumerate(additions) for action in _actions(table, each)]
        for attempt in range(TRANSACTION_ATTEMPTS):
            try:
                await self.send(table, [action for _, action in actions])
            except Cancelled as cancelled:
                codes = [code for code, _ in cancelled.reasons]
                refused = {
                    place for (place, _), code in zip(actions, codes, strict=False) if code not in (*BUSY, "None")
                }
                if refused:
                    return sorted(refused)
            else:
                return ()
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
        return range(len(additions))

    async def send(self, table: CollectionTable, actions: Sequence[dict[str, Any]]) -> None:
        """Sends one transaction. The token makes it idempotent, however often the client sends it."""
        await self._gateway.call(
            "transact_write_items",
            table.name,
            TransactItems=actions,
            ClientRequestToken=str(uuid.uuid4()),
            ReturnConsumedCapacity="INDEXES",
        )

    async def _transact(
        self,
        table: CollectionTable,
        key_text: str,
        head: dict[str, Any],
        take: dict[str, unique.UniqueClaim],
        release: dict[str, unique.UniqueClaim],
        guard: UpsertGuard | None = None,
    ) -> None:
        taken = list(take.values())
        stale: dict[str, Stale] = {}
        actions = _claiming(table, key_text, head, take, release, stale, guard)
        for attempt in range(TRANSACTION_ATTEMPTS):
            try:
                await self.send(table, actions)
            except Cancelled as cancelled:
                if guard is not None and cancelled.reasons[-1][0] == "ConditionalCheckFailed":
                    raise _GuardMoved(guard) from cancelled
                found = await stale_claim(self._reader, table, cancelled, take)
                if found is None:
                    _judge(cancelled, table, taken)
                    stale.clear()  # an owner may have changed since it was read
                else:
                    stale[found.item_key] = found
                actions = _claiming(table, key_text, head, take, release, stale, guard)
            else:
                return
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
        raise OperationFailure(f"DynamoDB transact_write_items on {table.name}: conflicts", 262, {"code": 262})

    # ---- parts of large documents ----

    async def delete_body(self, table: CollectionTable, item: Item) -> None:
        """Deletes the parts of a replaced or deleted item. The write is complete by then, so a failure here does not
        fail it: `sweep` will find the remaining parts."""
        if (parts := table.codec.parts(item)) is not None:
            await self._tidy(table, parts.keys)

    async def _tidy(self, table: CollectionTable, key_texts: Iterable[str]) -> None:
        """Deletes orphaned parts. Reports a missing right, because nothing else would ever show it."""
        try:
            await self.delete_keys(table, key_texts)
        except PyMongoError as error:
            if getattr(error, "code", None) == _UNAUTHORIZED and table.name not in self._denied:
                self._denied.add(table.name)
                self._on_denied(table.name, str(error))

    async def write_parts(self, table: CollectionTable, key_text: str, encoded: Encoded) -> None:
        reserved = table.spec.reserved
        if table.name not in self._marked:
            await self._mark(table)
        items = [
            {
                "_id": {"S": keys.part_key(key_text, encoded.generation, number)},
                reserved: {"M": {"k": {"S": "part"}, "w": {"S": key_text}, "g": {"S": encoded.generation}}},
                "d": {"B": data},
            }
            for number, data in enumerate(encoded.parts)
        ]
        await _all_of(
            *(
                self._gateway.call(
                    "put_item", table.name, TableName=table.name, Item=item, ReturnConsumedCapacity="INDEXES"
                )
                for item in items
            )
        )

    async def _mark(self, table: CollectionTable) -> None:
        """Records in the table, once per process, that it may need sweeping from now on."""
        expression = Expression()
        stamp = {"M": {"k": {"S": "sweep"}, "at": {"N": f"{time.time():.3f}"}}}
        reserved = expression.path(table.spec.reserved)
        await self._gateway.call(
            "update_item",
            table.name,
            TableName=table.name,
            Key={"_id": {"S": SWEEP_MARK}},
            ReturnConsumedCapacity="INDEXES",
            **expression.parameters(
                UpdateExpression=f"SET {reserved} = if_not_exists({reserved}, {expression.value(stamp)})"
            ),
        )
        self._marked.add(table.name)

    def forget_mark(self, table: CollectionTable) -> None:
        """Forgets the mark of a table that is about to be dropped."""
        self._marked.discard(table.name)

    async def discard(self, table: CollectionTable, key_text: str, encoded: Encoded | None) -> None:
        """Removes the parts of a write that was rejected."""
        if encoded is not None and encoded.parts:
            await self._tidy(table, BodyParts(key_text, encoded.generation, len(encoded.parts)).keys)

    async def delete_keys(self, table: CollectionTable, key_texts: Iterable[str]) -> None:
        await _all_of(
            *(
                self._gateway.call(
                    "delete_item",
                    table.name,
                    TableName=table.name,
                    Key={"_id": {"S": text}},
                    ReturnConsumedCapacity="INDEXES",
                )
                for text in key_texts
            )
        )

    async def reindex(self, table: CollectionTable, items: Sequence[Item]) -> int:
        """Rewrites those of `items` whose index attributes differ from what the codec writes today, each on the
        condition that its version is unchanged; returns how many."""
        written = 0
        for item in items:
            image = await self._reader.image(table, item)
            if not image.present or isinstance(image.document, Damaged) or table.codec.is_indexed(item, image):
                continue  # a copy repairs an unreadable one, and writes its index attributes too
            found = FoundItem(item, image)
            with contextlib.suppress(ConditionFailed):  # a writer since then has written today's attributes
                await self.commit(table, item["_id"]["S"], image.state, found, image, table.codec.op_id(item))
                written += 1
        return written


def _claiming(
    table: CollectionTable,
    key_text: str,
    head: dict[str, Any],
    take: Mapping[str, unique.UniqueClaim],
    release: Mapping[str, unique.UniqueClaim],
    stale: Mapping[str, Stale],
    guard: UpsertGuard | None,
) -> list[dict[str, Any]]:
    """The actions of a document's write, its claims, and the checks of the claims that it takes over. Raises
    `WriteError` if they do not fit into one transaction."""
    reserved = table.spec.reserved
    others = {item_key: each.owner for item_key, each in stale.items()}
    checks = {each.owner: each.check(table) for each in stale.values()}
    actions = [
        head,
        *(unique.take(table.name, reserved, item_key, key_text, others.get(item_key)) for item_key in take),
        *(unique.release(table.name, reserved, item_key, key_text) for item_key in release),
        *checks.values(),
        *([] if guard is None else [advance(table, guard, key_text)]),
    ]
    if len(actions) > MOST_ACTIONS:
        raise WriteError(f"{len(actions)} unique values change at once; the limit is {MOST_ACTIONS}", 2)
    return actions


def _actions(table: CollectionTable, addition: Addition) -> list[dict[str, Any]]:
    expression = Expression()
    put = {
        "TableName": table.name,
        "Item": addition.item,
        **expression.parameters(ConditionExpression=vacant(expression, table.spec.reserved)),
    }
    takes = (unique.take(table.name, table.spec.reserved, name, addition.key_text) for name in addition.claims)
    return [{"Put": put}, *takes]


def condition_of(expression: Expression, reserved: str, expected: Expected) -> str:
    """The condition that a key holds what is expected."""
    match expected:
        case Vacant():
            return vacant(expression, reserved)
        case ExpectedStamp(item):
            return stamped_as(expression, reserved, item)
        case tuple():
            return " OR ".join(exactly(expression, reserved, state) for state in expected)
        case _:
            return exactly(expression, reserved, expected)


def _judge(cancelled: Cancelled, table: CollectionTable, taken: list[unique.UniqueClaim]) -> None:
    """Raises the error that a cancelled transaction means; returns if it should be tried again."""
    codes = [code for code, _ in cancelled.reasons]
    if codes[0] == "ConditionalCheckFailed":
        raise ConditionFailed(cancelled.reasons[0][1], retried=cancelled.retried)
    for claim, code in zip(taken, codes[1:], strict=False):
        if code == "ConditionalCheckFailed":
            raise unique.violation(table.namespace, claim)
    if not BUSY.intersection(codes) and "ConditionalCheckFailed" not in codes:
        raise WriteError(f"DynamoDB transact_write_items on {table.name}: {', '.join(sorted(set(codes)))}", 2)


def expected_of(found: FoundItem) -> Expected:
    """What a write expects to find after this read."""
    if isinstance(found.image.state, Unknown) and found.item is not None:
        return ExpectedStamp(found.item)
    return found.image.state if found.image.present else VACANT
