"""Out-of-band writes on MongoDB: writes that carry no version, as its change streams report them.

The watch counts them (`bare_writes`), the relay repairs them (`past_writes`). The relay also asks for what a
version does not show: a writer that reads a document, and writes it back whole, writes its version back as well.

The server filters the events, so that of shadow's own writes only the deletes are sent. Source for the shape of the
events: the MongoDB manual, "Change Events". A change stream needs a replica set.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, TypeAlias

from pymongo.errors import OperationFailure

from shadow.model.verdict import Bypass
from shadow.model.version import Document, Key
from shadow.stores.past import HistoryLost, PastPage, PastWrite

__all__ = ["Bare", "bare_writes", "past_writes"]

_AWAITED: Final = 200
"""Milliseconds that the server waits for an event before it responds. The driver's connection is in use meanwhile, and
it may be the only one of its pool (`maxPoolSize`)."""

_HISTORY_LOST: Final = frozenset({9, 136, 260, 280, 286})
"""FailedToParse (the token), CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost
(error_codes.yml)."""
_PAGE: Final = 500
"""The most events of one page."""
_GATHERED: Final = 0.2
"""Seconds for which a page grows while events keep coming."""

Bare: TypeAlias = tuple[str, Key, Bypass, str]
"""Collection, key, kind, and a text that names the event. A delete may be shadow's own: it leaves no version either."""


async def bare_writes(
    database: Any, reserved: Mapping[str, str], after: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[Bare, Mapping[str, Any]]]:
    """Yields each write to one of the collections in `reserved` (name to reserved field) that moved no version, with
    the token to resume after it; starts now, or after the token `after`.

    `database` is Motor's or PyMongo's async. Ends only with an error of the driver.
    """
    stream = database.watch(_pipeline(reserved), resume_after=after, max_await_time_ms=_AWAITED)
    if inspect.isawaitable(stream):
        stream = await stream
    try:
        async for event in stream:
            name = event["ns"]["coll"]
            kind = _kind(event, reserved[name])
            yield (name, event["documentKey"]["_id"], kind, str(event["_id"]["_data"])), event["_id"]
    finally:
        await stream.close()


def _kind(event: Mapping[str, Any], reserved: str) -> Bypass:
    removed = event.get("updateDescription", {}).get("removedFields", ())
    return Bypass.REPLACED if reserved in removed else _KINDS[event["operationType"]]


_KINDS: Final = {
    "insert": Bypass.INSERTED,
    "update": Bypass.CHANGED,
    "replace": Bypass.REPLACED,
    "delete": Bypass.DELETED,
}


def _pipeline(reserved: Mapping[str, str]) -> list[Document]:
    wanted = [{"ns.coll": {"$in": names}, "$or": _without_version(field)} for field, names in _by_field(reserved)]
    shown = {"ns": 1, "documentKey": 1, "operationType": 1, "updateDescription.removedFields": 1}
    return [{"$match": {"$or": wanted}}, {"$project": shown}]


def _by_field(reserved: Mapping[str, str]) -> Iterable[tuple[str, list[str]]]:
    """The names of the collections by their reserved field."""
    fields: dict[str, list[str]] = {}
    for name, field in reserved.items():
        fields.setdefault(field, []).append(name)
    return fields.items()


def _without_version(field: str) -> list[Document]:
    names = {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
    moved = {"$regexMatch": {"input": "$$this.k", "regex": rf"^{re.escape(field)}(\.|$)"}}
    return [
        {"operationType": {"$in": ["insert", "replace"]}, f"fullDocument.{field}": {"$exists": False}},
        {
            "operationType": "update",
            "$expr": {"$not": [{"$anyElementTrue": [{"$map": {"input": names, "in": moved}}]}]},
        },
        {"operationType": "delete"},
    ]


async def past_writes(
    database: Any, reserved: Mapping[str, str], cursor: Mapping[str, Any] | None
) -> AsyncIterator[PastPage]:
    """See `Streaming.past_writes`; `database` and `reserved` as in `bare_writes`. The cursor is a resume token."""
    try:
        # `startAfter` also continues behind the end of a stream that a dropped database has ended.
        stream = database.watch(_relayed(reserved), start_after=cursor, max_await_time_ms=_AWAITED)
        if inspect.isawaitable(stream):
            stream = await stream
    except OperationFailure as error:
        raise _explained(error, cursor) from error
    try:
        while True:
            events, quiet = await _gathered(stream)
            token = stream.resume_token
            if token is not None:
                yield _page(events, reserved, token, quiet)
            if not stream.alive:
                return
            await asyncio.sleep(0)
    except OperationFailure as error:
        raise _explained(error, cursor) from error
    finally:
        await stream.close()


def _explained(error: OperationFailure, cursor: Mapping[str, Any] | None) -> Exception:
    return HistoryLost(str(error.code)) if cursor is not None and error.code in _HISTORY_LOST else error


async def _gathered(stream: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """The next events, and whether the stream had nothing more to tell."""
    events: list[Mapping[str, Any]] = []
    until = time.monotonic() + _GATHERED
    while len(events) < _PAGE and (not events or time.monotonic() < until):
        event = await stream.try_next()
        if event is None:
            return events, True
        events.append(event)
    return events, False


def _page(
    events: Iterable[Mapping[str, Any]], reserved: Mapping[str, str], token: Mapping[str, Any], quiet: bool
) -> PastPage:
    writes: list[PastWrite] = []
    lost: list[tuple[str, str]] = []
    at = 0.0
    for event in events:
        at = float(event["clusterTime"].time)
        kind = event["operationType"]
        if kind in _KINDS:
            writes.append(_past_write(event, reserved))
        elif kind == "dropDatabase":
            lost += [(name, "its database was dropped") for name in reserved]
        elif kind != "invalidate":
            names = (event["ns"].get("coll"), event.get("to", {}).get("coll"))
            lost += [(name, _LOST[kind]) for name in names if name in reserved]
    return PastPage(tuple(writes), token, tuple(lost), at, quiet)


_LOST: Final = {"drop": "the collection was dropped", "rename": "a collection was renamed from or to this name"}


def _past_write(event: Mapping[str, Any], reserved: Mapping[str, str]) -> PastWrite:
    name = event["ns"]["coll"]
    kind, stamped = _kind(event, reserved[name]), reserved[name] in event.get("fullDocument", {})
    certain = kind is not Bypass.DELETED and not stamped
    return PastWrite(name, event["documentKey"]["_id"], kind, str(event["_id"]["_data"]), certain)


def _relayed(reserved: Mapping[str, str]) -> list[Document]:
    """The events of the watch; those of documents that were written with a version which shadow cannot have given
    (its own inserts have the first revision) or which may be the old one; and those of whole collections."""
    wanted = [{"ns.coll": {"$in": names}, "$or": [*_without_version(field), *_with_version(field)]}
              for field, names in _by_field(reserved)]  # fmt: skip
    names = list(reserved)
    whole: list[Document] = [
        {
            "operationType": {"$in": ["drop", "rename"]},
            "$or": [{"ns.coll": {"$in": names}}, {"to.coll": {"$in": names}}],
        },
        {"operationType": {"$in": ["dropDatabase", "invalidate"]}},
    ]
    shown: Document = {"ns": 1, "to": 1, "documentKey": 1, "operationType": 1, "clusterTime": 1}
    shown |= {"updateDescription.removedFields": 1, **{f"fullDocument.{field}": 1 for field, _ in _by_field(reserved)}}
    return [{"$match": {"$or": [*wanted, *whole]}}, {"$project": shown}]


def _with_version(field: str) -> list[Document]:
    return [
        {"operationType": "replace", f"fullDocument.{field}": {"$exists": True}, f"fullDocument.{field}.t": None},
        {"operationType": "insert", f"fullDocument.{field}.r": {"$gt": 1}},
    ]
