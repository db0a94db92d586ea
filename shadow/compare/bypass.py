"""What a confirmed mismatch says of writers that go past the shim.

Every writer of shadow moves the version in the same atomic step as the content, and never takes it off; the secondary
only ever holds what the primary had. What cannot have come about under these rules was written by somebody else. Where
a document of before the migration would look the same, nothing is said.
"""

from __future__ import annotations

import re
import time
from typing import Final

from bson import ObjectId

from shadow.model.verdict import Bypass, Kind, Mismatch
from shadow.model.version import Absent, Key, Tombstone, Version

__all__ = ["bypass"]

_UNTOUCHED: Final = Version("", 0)
"""The version of a document that no writer of shadow has made or changed."""

_HEX: Final = re.compile(r"[0-9a-f]{24}")
_CLOCKS: Final = 60.0
"""Seconds by which the clock that made a key may be ahead of this one."""


def bypass(found: Mismatch, *, since: float, doubted: bool = False) -> Bypass | None:
    """The kind of writer past the shim that a mismatch is sure to come from; None if none is sure.

    `since`: epoch seconds from which on the shim was in place for certain; `doubted`: the journal may have lost
    intents of the collection, so that a delete may be one that was never followed.
    """
    if found.kind in (Kind.WRITE_RESULT, Kind.UNREADABLE):
        # The same write from the same version: what differs is what the stores made of it. And what cannot be read
        # in the secondary was never written by way of the primary.
        return None
    match found.primary_state, found.secondary_state:
        case Version() as primary, Version() as secondary if primary == secondary:
            return Bypass.CHANGED if primary != _UNTOUCHED else None
        case Version() as primary, Version():
            # The secondary has a version that only the primary can have given it: the primary's was taken off.
            return Bypass.REPLACED if primary == _UNTOUCHED else None
        case Version() as primary, Tombstone():
            return Bypass.INSERTED if primary == _UNTOUCHED else None
        case Version() as primary, Absent():
            return Bypass.INSERTED if primary == _UNTOUCHED and _made_after(found.key, since) else None
        case Absent(), Version() as secondary:
            return Bypass.DELETED if secondary != _UNTOUCHED and not doubted else None
    return None


def _made_after(key: Key, since: float) -> bool:
    """Whether the key is an ObjectId (or the text of one) that was made after `since`, by the time that it carries."""
    if isinstance(key, str) and _HEX.fullmatch(key):
        key = ObjectId(key)
    return isinstance(key, ObjectId) and since <= key.generation_time.timestamp() <= time.time() + _CLOCKS
