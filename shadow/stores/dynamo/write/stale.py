"""Claims of unique values whose owner does not hold them.

A document that a manual edit has made unreadable does not show which values it held, so a copy over it cannot release
their claims. They remain, and would refuse these values to every other document. A writer that meets such a claim takes
it over, in the transaction that also checks that the owner is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shadow.model.stored import is_readable
from shadow.model.version import Unknown
from shadow.mongoql.expiry import live
from shadow.stores.dynamo.client.gateway import Cancelled
from shadow.stores.dynamo.items import unique
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.items.expressions import Expression, stamped_as
from shadow.stores.dynamo.query.reads import CollectionTable, Reader

__all__ = ["Stale", "stale_claim"]

_REFUSED = "ConditionalCheckFailed"


@dataclass(frozen=True, slots=True)
class Stale:
    """A claim by the key of its item, the key text of the owner that does not hold it, and the owner's current item."""

    item_key: str
    owner: str
    seen: Item | None

    def check(self, table: CollectionTable) -> dict[str, Any]:
        """The transaction's action that checks that the owner is unchanged since it was read."""
        expression = Expression()
        if self.seen is None:
            condition = f"attribute_not_exists({expression.path('_id')})"
        else:
            condition = stamped_as(expression, table.spec.reserved, self.seen)
        key = {"_id": {"S": self.owner}}
        return {
            "ConditionCheck": {
                "TableName": table.name,
                "Key": key,
                **expression.parameters(ConditionExpression=condition),
            }
        }


async def stale_claim(
    reader: Reader, table: CollectionTable, cancelled: Cancelled, take: Mapping[str, unique.UniqueClaim]
) -> Stale | None:
    """The claim that caused a transaction to be rejected (its first action is the document's, the next are those of
    `take`), if its owner does not hold it; None if that is unknown."""
    codes = [code for code, _ in cancelled.reasons]
    if not codes or codes[0] == _REFUSED:
        return None
    refused = next((key for key, code in zip(take, codes[1:], strict=False) if code == _REFUSED), None)
    claim = None if refused is None else await reader.get(table, refused)
    if refused is None or claim is None:
        return None
    owner = claim.get(table.spec.reserved, {}).get("M", {}).get("w", {}).get("S")
    if owner is None:
        return None
    seen = await reader.get(table, owner)
    image = await reader.image(table, seen)
    if not is_readable(image.document) or isinstance(image.state, Unknown):
        return None
    held = live(table.spec.expiry, image).document
    return None if refused in unique.claims(table.spec, held) else Stale(refused, owner, seen)
