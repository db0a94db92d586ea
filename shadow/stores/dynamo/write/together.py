"""Puts several documents in one transaction, so that unique values can move between them in one step.

Each head item keeps its own condition, and each uniqueness item passes from the document that releases the value to the
one that takes it. A uniqueness item whose document no longer holds the value (a writer that did not know the constraint
has changed the document) is taken over as well, on the condition that this document is unchanged since it was read.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pymongo.errors import WriteError

from shadow.model.version import Document, Image, Key, State
from shadow.mongoql.expiry import has_expired, live
from shadow.stores.dynamo.client.gateway import Cancelled
from shadow.stores.dynamo.client.limits import MOST_ACTIONS, TRANSACTION
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import Encoded, item_size
from shadow.stores.dynamo.items.expressions import Expression, exactly
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.write.writes import BUSY, TRANSACTION_ATTEMPTS, FoundItem, Writer

__all__ = ["ClaimChange", "Put", "Together"]

_FAILED: Final = "ConditionalCheckFailed"

Put: TypeAlias = tuple[Key, Image, State]
"""A key, the image that it should hold, and the state that it must have."""


@dataclass(frozen=True, slots=True)
class ClaimChange:
    """A document that changes: what its key holds, and what it will."""

    text: str
    before: FoundItem
    after: Image
    encoded: Encoded | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The actions of one transaction, and what the first of them are about."""

    heads: list[dict[str, Any]]
    takes: list[tuple[unique.UniqueClaim, dict[str, Any]]]
    rest: list[dict[str, Any]]

    @property
    def actions(self) -> list[dict[str, Any]]:
        return [*self.heads, *(action for _, action in self.takes), *self.rest]


class Together:
    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def holders(self, table: CollectionTable, key_text: str, document: Document) -> list[Key]:
        """The keys of the other documents that hold unique values of `document`."""
        items = await self._reader.get_many(table, unique.claims(table.spec, document))
        owners = {unique.owner_of(item, table.spec.reserved) for item in items.values()} - {key_text, ""}
        heads = await self._reader.get_many(table, owners)
        stamps = [table.codec.stamp(head) for head in heads.values()]
        return [stamp.document["_id"] for stamp in stamps if stamp.document is not None]

    async def put(self, table: CollectionTable, puts: Sequence[Put]) -> bool | None:
        """Puts all, or none. False: one did not have its state. None: they do not fit into one transaction. Raises
        `DuplicateKeyError` for a value that a document outside them holds, or that two of them claim."""
        texts = [keys.key_text(key) for key, _, _ in puts]
        heads = await self._reader.get_many(table, texts)
        found = [FoundItem(heads.get(text), await self._reader.image(table, heads.get(text))) for text in texts]
        if any(each.image.state != expected for each, (_, _, expected) in zip(found, puts, strict=True)):
            return False
        changes: list[ClaimChange] = []
        for text, before, (_, image, _) in zip(texts, found, puts, strict=True):
            encoded = await self._writer.encode(table, text, image, str(uuid.uuid4()))
            changes.append(ClaimChange(text, before, image, encoded))
        plan = await self._plan(table, changes)
        size = sum(item_size(each.encoded.item) for each in changes if each.encoded is not None)
        if len(plan.actions) > MOST_ACTIONS or size > TRANSACTION:
            return None
        return await self._write(table, changes, plan)

    async def _plan(self, table: CollectionTable, changes: Sequence[ClaimChange]) -> _Plan:
        reserved = table.spec.reserved
        old = await self._held(table, changes)
        new: dict[str, tuple[str, unique.UniqueClaim]] = {}
        for each in changes:
            for name, claim in unique.claims(table.spec, each.after.document).items():
                if name in new:
                    raise unique.violation(table.namespace, claim)
                new[name] = each.text, claim
        wanted = {name: one for name, one in new.items() if old.get(name) != one[0]}
        stale, witnesses = await self._stale(table, [name for name in wanted if name not in old])
        takes = [
            (claim, unique.take(table.name, reserved, name, text, old.get(name) or stale.get(name, "")))
            for name, (text, claim) in wanted.items()
        ]
        gone = (unique.release(table.name, reserved, name, text) for name, text in old.items() if name not in new)
        own = {each.text for each in changes}
        checks = (check for text, check in witnesses.items() if text not in own)
        return _Plan([_head(table, each) for each in changes], takes, [*gone, *checks])

    async def claim_actions(self, table: CollectionTable, changes: Sequence[ClaimChange]) -> list[dict[str, Any]]:
        """What moves the unique values of these documents in the same transaction. Raises `DuplicateKeyError` for a
        value that two of them claim."""
        if not table.spec.unique:
            return []
        plan = await self._plan(table, changes)
        return [*(action for _, action in plan.takes), *plan.rest]

    async def _held(self, table: CollectionTable, changes: Sequence[ClaimChange]) -> dict[str, str]:
        """The claims of these documents before their change, by the keys of their items: the texts of the documents'
        own keys. Another document may have taken those of one that has expired."""
        held: dict[str, str] = {}
        for each in changes:
            document = each.before.image.document
            claims = unique.claims(table.spec, document)
            if has_expired(table.spec.expiry, document):
                claims = await self._writer.still_held(table, each.text, claims)
            held |= dict.fromkeys(claims, each.text)
        return held

    async def _stale(
        self, table: CollectionTable, names: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """The uniqueness items whose document does not hold the value: their owners by their keys, and for each owner
        the check that it is unchanged."""
        items = await self._reader.get_many(table, names)
        owners = {name: unique.owner_of(item, table.spec.reserved) for name, item in items.items()}
        heads = await self._reader.get_many(table, owners.values())
        stale: dict[str, str] = {}
        checks: dict[str, dict[str, Any]] = {}
        for name, owner in owners.items():
            image = await self._reader.image(table, heads.get(owner))
            if name not in unique.claims(table.spec, live(table.spec.expiry, image).document):
                stale[name] = owner
                checks[owner] = _check(table, owner, image.state)
        return stale, checks

    async def _write(self, table: CollectionTable, changes: Sequence[ClaimChange], plan: _Plan) -> bool:
        for each in changes:
            if each.encoded is not None and each.encoded.parts:
                await self._writer.write_parts(table, each.text, each.encoded)
        for attempt in range(TRANSACTION_ATTEMPTS):
            try:
                await self._writer.send(table, plan.actions)
            except Cancelled as cancelled:
                codes = [code for code, _ in cancelled.reasons]
                if BUSY.isdisjoint(codes):
                    if not cancelled.retried:  # else an earlier attempt may have been applied, and name the parts
                        await self._discard(table, changes)
                    _raise_violation(table, plan, codes)
                    return False
            else:
                for each in changes:
                    if each.before.item is not None:
                        await self._writer.delete_body(table, each.before.item)
                return True
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
        await self._discard(table, changes)
        return False

    async def _discard(self, table: CollectionTable, changes: Sequence[ClaimChange]) -> None:
        for each in changes:
            await self._writer.discard(table, each.text, each.encoded)


def _raise_violation(table: CollectionTable, plan: _Plan, codes: Sequence[str]) -> None:
    """Raises if the cause is a unique value, or if no condition failed."""
    if _FAILED not in codes:
        raise WriteError(f"DynamoDB transact_write_items on {table.name}: {', '.join(sorted(set(codes)))}", 2)
    if _FAILED in codes[: len(plan.heads)]:
        return
    for (claim, _), code in zip(plan.takes, codes[len(plan.heads) :], strict=False):
        if code == _FAILED:
            raise unique.violation(table.namespace, claim)


def _head(table: CollectionTable, change: ClaimChange) -> dict[str, Any]:
    at = _at(table, change.before.image.state)
    if change.encoded is None:
        return {"Delete": {"Key": {"_id": {"S": change.text}}, **at}}
    return {"Put": {"Item": change.encoded.item, **at}}


def _check(table: CollectionTable, key_text: str, state: State) -> dict[str, Any]:
    return {"ConditionCheck": {"Key": {"_id": {"S": key_text}}, **_at(table, state)}}


def _at(table: CollectionTable, state: State) -> Mapping[str, Any]:
    expression = Expression()
    condition = exactly(expression, table.spec.reserved, state)
    return {"TableName": table.name, **expression.parameters(ConditionExpression=condition)}
