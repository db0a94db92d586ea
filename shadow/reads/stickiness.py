"""The place of a read between 0 and 1, the same wherever and whenever it is made: a share of the reads is those that
stand below it. A greater share holds a smaller one. Each key has a place of its own, where all reads of it stand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from bson import Regex

from shadow.model.order import MISSING, key_digest
from shadow.model.version import Document, Key

__all__ = ["fixed_key", "place"]

_WHOLE: Final = 2**64


def fixed_key(filter: Document) -> Key:
    """The one key that every match of a canonical filter has, or `MISSING`: an equality on `_id`, also under `$and`."""
    if "_id" in filter:
        found = _single(filter["_id"])
        if found is not MISSING:
            return found
    branches = filter.get("$and")
    for branch in branches if isinstance(branches, list) else ():
        if isinstance(branch, dict) and (found := fixed_key(branch)) is not MISSING:
            return found
    return MISSING


def _single(operand: Key) -> Key:
    if isinstance(operand, dict) and any(name.startswith("$") for name in operand) and "$ref" not in operand:
        if "$eq" in operand:
            operand = operand["$eq"]
        elif isinstance(operand.get("$in"), list) and len(operand["$in"]) == 1:
            operand = operand["$in"][0]
        else:
            return MISSING
    return MISSING if isinstance(operand, list | Regex) else operand


def place(collection: str, filter: Document, pipeline: Sequence[Document] = ()) -> float:
    """At least 0, less than 1. By the key where the filter fixes one; else by the filter's fields, operators and
    values (the order of its fields does not count) and the stages of an aggregate's pipeline. Numbers that MongoDB
    calls equal are one value."""
    key = fixed_key(filter)
    if key is not MISSING:
        text = f"key {key_digest(key)}"
    else:
        text = f"read {key_digest([{name: filter[name] for name in sorted(filter)}, list(pipeline)])}"
    digest = hashlib.blake2b(f"{collection}\0{text}".encode(), digest_size=8).digest()
    # One in 2**11 of the finest steps would round up to 1.0, which no share would hold.
    return min(int.from_bytes(digest, "big") / _WHOLE, 1.0 - 2**-53)
