"""Out-of-band writes on MongoDB: writes that carry no version, as its change streams report them.

The server filters the events, so that of shadow's own writes only the deletes are sent. Source for the shape of the
events: the MongoDB manual, "Change Events". A change stream needs a replica set.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeAlias

from shadow.model.verdict import Bypass
from shadow.model.version import Document, Key

__all__ = ["Bare", "bare_writes"]

_AWAITED: Final = 200
"""Milliseconds that the server waits for an event before it responds. The driver's connection is in use meanwhile, and
it may be the only one of its pool (`maxPoolSize`)."""

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
    fields: dict[str, list[str]] = {}
    for name, field in reserved.items():
        fields.setdefault(field, []).append(name)
    wanted = [{"ns.coll": {"$in": names}, "$or": _without_version(field)} for field, names in fields.items()]
    shown = {"ns": 1, "documentKey": 1, "operationType": 1, "updateDescription.removedFields": 1}
    return [{"$match": {"$or": wanted}}, {"$project": shown}]


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
