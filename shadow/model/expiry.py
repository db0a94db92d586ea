"""Documents that expire: one rule for both stores, with the clock read once, above them. Pure.

MongoDB deletes a document when a date in the field is older than `after` seconds: of an array the earliest counts, and
what is no date never expires. Its monitor runs once a minute, and DynamoDB's own TTL takes days. So a read asks both
stores for what has not expired, and neither store's deletions can be seen in an answer.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from shadow.model.reads import Aggregate, Count, Distinct, Find, FindOne, Read
from shadow.model.schema import ExpirySpec
from shadow.model.version import Document

__all__ = ["expired_filter", "hide", "joined_collections", "renew", "unexpired"]

_EPOCH: Final = dt.datetime(1970, 1, 1)
_MUST_BE_FIRST: Final = frozenset(
    {
        *("$geoNear", "$collStats", "$indexStats", "$planCacheStats", "$documents"),
        *("$search", "$searchMeta", "$vectorSearch"),
    }
)
"""Stages before which there can be no other."""


def expired_filter(expiry: ExpirySpec, now: float) -> Document:
    """What has expired at `now`, in seconds since the epoch."""
    return {expiry.field: {"$lte": _cutoff(expiry, now)}}


def unexpired(expiry: ExpirySpec, filter: Document, now: float) -> Document:
    """`filter`, without what has expired at `now`."""
    condition = _condition(expiry, now)
    return {"$and": [filter, condition]} if filter else condition


def _condition(expiry: ExpirySpec, now: float) -> Document:
    return {expiry.field: {"$not": {"$lte": _cutoff(expiry, now)}}}


def _cutoff(expiry: ExpirySpec, now: float) -> dt.datetime:
    # Of the whole second, so that the filters of one second are compiled once; at its end, so that a document is hidden
    # before MongoDB can delete it.
    return _EPOCH + dt.timedelta(seconds=math.ceil(now) - expiry.after)


def hide(expiry: ExpirySpec, read: Read, now: float) -> Read:
    """The read of what has not expired at `now`. An estimated count is left as it is, and so is a pipeline that does
    not begin with the documents of the collection."""
    match read:
        case FindOne(query) | Find(query):
            return replace(read, query=replace(query, filter=unexpired(expiry, query.filter, now)))
        case Count(filter, estimated=False) | Distinct(filter=filter):
            return replace(read, filter=unexpired(expiry, filter, now))
        case Aggregate(pipeline):
            first: Mapping[str, Any] = pipeline[0] if pipeline else {}
            if "$match" in first:
                return replace(read, pipeline=[{"$match": unexpired(expiry, first["$match"], now)}, *pipeline[1:]])
            if not _MUST_BE_FIRST.isdisjoint(first):
                return read
            return replace(read, pipeline=[{"$match": _condition(expiry, now)}, *pipeline])
    return read


def renew(expiry: ExpirySpec, read: Read, now: float) -> Read:
    """A read that `hide` has made, for a later time: what has expired since is hidden too."""
    match read:
        case FindOne(query) | Find(query):
            return replace(read, query=replace(query, filter=_renewed(expiry, query.filter, now)))
        case Count(filter) | Distinct(filter=filter):
            return replace(read, filter=_renewed(expiry, filter, now))
        case Aggregate(pipeline) if pipeline and "$match" in pipeline[0]:
            return replace(read, pipeline=[{"$match": _renewed(expiry, pipeline[0]["$match"], now)}, *pipeline[1:]])
    return read


def _renewed(expiry: ExpirySpec, filter: Document, now: float) -> Document:
    match filter:
        case {"$and": [*others, last]} if len(filter) == 1 and _is_condition(expiry, last):
            return {"$and": [*others, _condition(expiry, now)]}
        case _ if _is_condition(expiry, filter):
            return _condition(expiry, now)
    return filter


def _is_condition(expiry: ExpirySpec, filter: Any) -> bool:
    match filter:
        case {expiry.field: {"$not": {"$lte": dt.datetime()}}}:
            return len(filter) == 1
    return False


def joined_collections(read: Read) -> set[str]:
    """The other collections that a pipeline reads from, whose expired documents it may see."""
    return _names(read.pipeline) if isinstance(read, Aggregate) else set()


def _names(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        own = {value["from"]} if isinstance(value.get("from"), str) else set()
        union = value.get("$unionWith")
        own |= {union} if isinstance(union, str) else {union["coll"]} if isinstance(union, Mapping) else set()
        return own.union(*map(_names, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_names, value))
    return set()
