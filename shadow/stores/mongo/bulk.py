"""What an error of many inserts in one call says of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
from pymongo.errors import WriteConcernError

from shadow.model.version import Document

__all__ = ["in_one_batch", "write_concern_error"]

_BATCH_COUNT: Final = 50_000
_BATCH_BYTES: Final = 24_000_000
"""Half of what servers take in one message (`maxWriteBatchSize`, `maxMessageSizeBytes`): the driver sends more than
that in several, one after the other."""


def write_concern_error(details: Mapping[str, Any]) -> WriteConcernError | None:
    """The first write concern error that the details of a bulk write name: the writes are done, and may be undone."""
    for each in details.get("writeConcernErrors") or ():
        return WriteConcernError(str(each.get("errmsg", "")), each.get("code"), dict(each))
    return None


def in_one_batch(raws: Sequence[Document]) -> bool:
    """Whether an error of the whole call is one of every document: nothing was sent before the batch that it is of.
    False if earlier batches may have been, or that cannot be told."""
    if len(raws) > _BATCH_COUNT:
        return False
    size = 0
    for raw in raws:
        try:
            size += len(bson.encode(raw))
        except Exception:
            # The driver has come to this document, and no further.
            return True
        if size > _BATCH_BYTES:
            return False
    return True
