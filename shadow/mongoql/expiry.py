"""Whether and when a document expires, by the rule of MongoDB's TTL indexes."""

from __future__ import annotations

import calendar
import datetime as dt
import time
from typing import Final

from bson import DatetimeMS
from pymongo.errors import OperationFailure

from shadow.model.expiry import expired_filter
from shadow.model.order import index_keys
from shadow.model.schema import ExpirySpec
from shadow.model.stored import Damaged
from shadow.model.version import Document, Image
from shadow.mongoql.caching import cached_filter

__all__ = ["MARGIN", "delete_after", "has_expired", "live"]

MARGIN: Final = 24 * 3600
"""Seconds for which an expired document stays on DynamoDB, hidden: far longer than a request can be delayed, so that no
late copy finds the place of a deleted document free."""
_LATEST: Final = 2**40


def has_expired(expiry: ExpirySpec | None, document: Document | None, now: float | None = None) -> bool:
    """Whether the document has expired at `now` (seconds since the epoch; the current time). One that cannot be read
    has not."""
    if expiry is None or document is None or isinstance(document, Damaged):
        return False
    return cached_filter(expired_filter(expiry, time.time() if now is None else now)).matches(document)


def live(expiry: ExpirySpec | None, image: Image) -> Image:
    """The image as the application may see it: without a document that has expired."""
    return Image(image.state) if has_expired(expiry, image.document) else image


def delete_after(expiry: ExpirySpec, document: Document) -> int | None:
    """The time (seconds since the epoch) after which DynamoDB may delete the document; None: never."""
    try:
        values = [value for (value,) in index_keys(document, (expiry.field,), sparse=True)]
    except OperationFailure:
        return None
    dates = [at for value in values if (at := _seconds(value)) is not None]
    if not dates:
        return None
    at = min(dates) + expiry.after + MARGIN
    return min(max(at, 1), _LATEST)


def _seconds(value: object) -> int | None:
    if isinstance(value, dt.datetime):
        return calendar.timegm(value.utctimetuple())
    return int(value) // 1000 if isinstance(value, DatetimeMS) else None
