"""What DynamoDB's requests and responses are made of, in the wire form of the low-level client."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Attribute", "Item"]

Attribute: TypeAlias = dict[str, Any]
"""One AttributeValue, e.g. {"N": "5"}."""

Item: TypeAlias = dict[str, Attribute]
"""The AttributeValues of an item by name."""
