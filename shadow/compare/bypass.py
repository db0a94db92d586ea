"""What a confirmed mismatch says about out-of-band writes.

Every writer of shadow moves the version in the same atomic step as the content and never removes it, and the secondary
only ever holds what the primary had. What cannot have happened under these rules was written by somebody else. If a
document from before the migration could look the same, nothing is reported.
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
"""The version of a document that shadow has never written."""

_HEX: Final = re.compile(r"[0-9a-f]{24}")
_CLOCKS: Final = 60.0
"""Seconds by which the clock that created a key may be ahead of this one."""


def bypass(found: Mismatch, *, since: float, doubted: bool = False) -> Bypass | None:
    """The kind of out-of-band write that certainly caused a mismatch; None if none is certain.

    `since`: epoch seconds from which shadow was certainly in place. `doubted`: the collection is unverified, so the
    journal may have lost intents, and a delete may be one that was never replicated.
    """
    if found.kind in (Kind.WRITE_RESULT, Kind.UNREADABLE):
        # The same write from the same version: the stores produced different results. And shadow never copies
        # something unreadable to the secondary.
        return None
    match found.primary_state, found.secondary_state:
        case Version() as primary, Version() as secondary if primary == secondary:
            return Bypass.CHANGED if primary != _UNTOUCHED else None
        case Version() as primary, Version():
            # Only the primary can have assigned the secondary's version, so the primary's own was removed.
            return Bypass.REPLACED if primary == _UNTOUCHED else None
        case Version() as primary, Tombstone():
            return Bypass.INSERTED if primary == _UNTOUCHED else None
        case Version() as primary, Absent():
            return Bypass.INSERTED if primary == _UNTOUCHED and _made_after(found.key, since) else None
        case Absent(), Version() as secondary:
            return Bypass.DELETED if secondary != _UNTOUCHED and not doubted else None
    return None


def _made_after(key: Key, since: float) -> bool:
    """Whether the key is an ObjectId, or the text of one, whose timestamp is after `since`."""
    if isinstance(key, str) and _HEX.fullmatch(key):
        key = ObjectId(key)
    return isinstance(key, ObjectId) and since <= key.generation_time.timestamp() <= time.time() + _CLOCKS
