"""What a database answers by itself once no configured collection is read from MongoDB, which may be gone."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import PyMongoError

from shadow.errors import ShadowError
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql import cached_filter

__all__ = ["answer", "is_own", "listed"]

_PATIENCE: Final = 2.0
"""Seconds for which a list of collections waits for MongoDB, which may have some that are not configured."""
_OWN: Final = ("shadow_witness", "shadow_journal", "shadow_control")
"""Collections of shadow itself, by the beginning of their names."""


def is_own(name: Any) -> bool:
    """Whether a collection of the database belongs to shadow, and not to the application."""
    return str(name).startswith(_OWN)


def answer(command: str) -> Document | None:
    """The answer to a command about the server: `ping`, `buildInfo`, `hello`, `isMaster`; None for another."""
    match command.lower():
        case "ping":
            return {"ok": 1.0}
        case "buildinfo":
            return {"version": "6.0.0", "versionArray": [6, 0, 0, 0], "bits": 64, "ok": 1.0, **_self()}
        case "hello" | "ismaster":
            names = {"hello": "isWritablePrimary", "ismaster": "ismaster"}
            return {
                names[command.lower()]: True,
                "maxBsonObjectSize": 16 * 1024 * 1024,
                "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000,
                "localTime": dt.datetime.now(dt.UTC).replace(tzinfo=None),
                "minWireVersion": 0,
                "maxWireVersion": 17,
                "readOnly": False,
                "ok": 1.0,
                **_self(),
            }
    return None


def _self() -> Document:
    return {"modules": [], "shadow": importlib.metadata.version("shadow")}


async def listed(configured: Collection[str], driver: Any, filter: Any) -> list[Document]:
    """The collections as `listCollections` shows them: the configured ones, and those that MongoDB has besides, if it
    answers within 2 s. `driver`: makes the driver's database object."""
    found = {name: _described(name) for name in configured}
    try:
        async with asyncio.timeout(_PATIENCE):
            reply = await driver().command("listCollections", authorizedCollections=True, nameOnly=False)
        for each in _first_batch(reply):
            if not is_own(each.get("name")):
                found.setdefault(str(each["name"]), dict(each))
    except (TimeoutError, PyMongoError, ShadowError, RuntimeError):
        pass  # it is not needed any more
    shown = [found[name] for name in sorted(found)]
    if not filter:
        return shown
    matches = cached_filter(normalise(filter)).matches
    return [each for each in shown if matches(normalise(each))]


def _first_batch(reply: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return list(reply.get("cursor", {}).get("firstBatch", ()))


def _described(name: str) -> Document:
    return {
        "name": name,
        "type": "collection",
        "options": {},
        "info": {"readOnly": False},
        "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"},
    }
