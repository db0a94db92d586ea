"""One transaction of the application on DynamoDB, up to its commit: what it has read and written, kept here.

At the commit, one `TransactWriteItems` writes everything, on the condition that each document that is written still has
the version at which the transaction first saw it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.errors import UnsupportedOperation
from shadow.model.outcome import UNKNOWN_COMMIT, Outcome, classify, transient
from shadow.model.version import Image, Key, State
from shadow.stores.dynamo.client.errors import outcome_unknown
from shadow.stores.dynamo.client.gateway import Cancelled, Gateway
from shadow.stores.dynamo.client.limits import MOST_ACTIONS
from shadow.stores.dynamo.items import unique
from shadow.stores.dynamo.items.codec import Encoded, item_size
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.together import ClaimChange, Together
from shadow.stores.dynamo.write.writes import BUSY, TRANSACTION_ATTEMPTS, FoundItem, Writer, condition_of, expected_of

__all__ = ["Buffer", "BufferedWrite", "Committer"]

_MOST_BYTES: Final = 4_000_000
"""Of the items of one transaction, for which 4 MB are documented; unique values count as well."""
_CLAIM: Final = 2_500
"""Bytes of a unique value's item, at most: its key is a hash or a short text."""
_FAILED: Final = "ConditionalCheckFailed"
_CHANGED: Final = "another writer has changed a document of the transaction"


@dataclass(frozen=True, slots=True)
class BufferedWrite:
    """A document that the transaction has written: as it found it, and as it leaves it."""

    table: CollectionTable
    key: Key
    key_text: str
    found: FoundItem
    after: Image
    encoded: Encoded | None

    @property
    def changes(self) -> bool:
        """Whether anything is to be written: not for a document that it has inserted and deleted again."""
        return self.found.image.present or self.after.present

    @property
    def actions(self) -> int:
        """How many items it writes, at most."""
        take, release = unique.changed_claims(self.table.spec, self.found.image.document, self.after.document)
        return 1 + len(take) + len(release)

    @property
    def size(self) -> int:
        """Bytes."""
        claims = _CLAIM * (self.actions - 1)
        return claims + (item_size(self.encoded.item) if self.encoded is not None else len(self.key_text))


@dataclass(slots=True)
class Buffer:
    """`seen`: the version at which each document was first read, by collection and the text of its key."""

    writes: dict[tuple[str, str], BufferedWrite] = field(default_factory=dict)
    seen: dict[tuple[str, str], State] = field(default_factory=dict)
    op_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """In the stamp of each document that it writes; and what makes its commit idempotent."""
    sent: bool = False
    """Whether a commit had no answer, so that it may have been applied."""
    committed: bool = False

    def of(self, collection: str) -> list[BufferedWrite]:
        return [each for (name, _), each in self.writes.items() if name == collection]

    def note(self, collection: str, key_text: str, state: State) -> None:
        """The transaction has read a document in this state."""
        self.seen.setdefault((collection, key_text), state)

    def check(self, collection: str, key_text: str, state: State) -> None:
        """Raises a transient error if the document has changed since the transaction first read it."""
        if self.seen.setdefault((collection, key_text), state) != state:
            raise transient(_CHANGED)

    def check_room(self, place: tuple[str, str], write: BufferedWrite) -> None:
        """Raises `UnsupportedOperation` if the transaction would be too large for DynamoDB with this write."""
        writes = [each for each in {**self.writes, place: write}.values() if each.changes]
        actions, size = sum(each.actions for each in writes), sum(each.size for each in writes)
        if actions > MOST_ACTIONS:
            raise UnsupportedOperation(
                f"a transaction of {actions} items", f"DynamoDB takes {MOST_ACTIONS}, unique values included"
            )
        if size > _MOST_BYTES:
            raise UnsupportedOperation(f"a transaction of {size} bytes", f"DynamoDB takes {_MOST_BYTES}")


class Committer:
    def __init__(self, gateway: Gateway, writer: Writer, together: Together) -> None:
        self._gateway = gateway
        self._writer = writer
        self._together = together

    async def commit(self, buffer: Buffer) -> None:
        """Writes all, or nothing. Raises a transient error if a document has changed since it was read, and what the
        driver raises where it is unknown whether it was written; then it may be called again."""
        writes = [each for each in buffer.writes.values() if each.changes]
        if not writes or buffer.committed:
            return
        actions = await self._actions(writes)
        for each in writes:
            if each.encoded is not None and each.encoded.parts:
                await self._writer.write_parts(each.table, each.key_text, each.encoded)
        try:
            await self._send(buffer, writes, actions)
        except Exception as error:
            if classify(error) is Outcome.UNKNOWN:
                buffer.sent = True
                if hasattr(error, "_add_error_label"):
                    error._add_error_label(UNKNOWN_COMMIT)
            elif not buffer.sent:
                for each in writes:
                    await self._writer.discard(each.table, each.key_text, each.encoded)
            raise
        buffer.committed = True
        for each in writes:
            if each.found.item is not None:
                await self._writer.delete_body(each.table, each.found.item)

    async def _actions(self, writes: Sequence[BufferedWrite]) -> list[dict[str, Any]]:
        """The actions of all tables; the documents' come first, in the order of `writes`."""
        rest: list[dict[str, Any]] = []
        for name in dict.fromkeys(each.table.name for each in writes):
            own = [each for each in writes if each.table.name == name]
            changes = [ClaimChange(each.key_text, each.found, each.after, each.encoded) for each in own]
            rest += await self._together.claim_actions(own[0].table, changes)
        actions = [*(_head(each) for each in writes), *rest]
        if len(actions) > MOST_ACTIONS:
            raise UnsupportedOperation(f"a transaction of {len(actions)} items", f"DynamoDB takes {MOST_ACTIONS}")
        return actions

    async def _send(self, buffer: Buffer, writes: Sequence[BufferedWrite], actions: Sequence[dict[str, Any]]) -> None:
        for attempt in range(TRANSACTION_ATTEMPTS):
            try:
                await self._gateway.call(
                    "transact_write_items",
                    writes[0].table.name,
                    TransactItems=actions,
                    ClientRequestToken=buffer.op_id,
                    ReturnConsumedCapacity="INDEXES",
                )
            except Cancelled as cancelled:
                codes = [code for code, _ in cancelled.reasons]
                if _FAILED in codes or BUSY.isdisjoint(codes):
                    if self._is_own(buffer, writes, cancelled):
                        return
                    if buffer.sent or cancelled.retried:
                        raise outcome_unknown("transact_write_items", writes[0].table.name) from None
                    raise transient(_CHANGED) from None
            else:
                return
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
        raise transient("other writers have kept the documents of the transaction busy")

    def _is_own(self, buffer: Buffer, writes: Iterable[BufferedWrite], cancelled: Cancelled) -> bool:
        """Whether a document in the way is one that an earlier attempt of this very commit has written."""
        return any(
            item is not None and each.table.codec.op_id(item) == buffer.op_id
            for each, (_, item) in zip(writes, cancelled.reasons, strict=False)
        )


def _head(write: BufferedWrite) -> dict[str, Any]:
    expression = Expression()
    condition = condition_of(expression, write.table.spec.reserved, expected_of(write.found))
    request = {
        "TableName": write.table.name,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **expression.parameters(ConditionExpression=condition),
    }
    if write.encoded is None:
        return {"Delete": {"Key": {"_id": {"S": write.key_text}}, **request}}
    return {"Put": {"Item": write.encoded.item, **request}}
