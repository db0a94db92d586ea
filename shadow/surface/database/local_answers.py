"""What a database answers by itself once no configured collection is read from MongoDB, which may be gone."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions
from pymongo.errors import PyMongoError

from shadow.errors import ShadowError
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql import cached_filter
from shadow.mongoql.values.failures import failure
from shadow.surface.calls.sessions import check_session
from shadow.surface.direct.ways_around import CollectionOwner

__all__ = ["answer", "given", "is_own", "listed"]

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


_OF_COMMAND: Final = ("value", "check", "allowable_errors", "read_preference", "codec_options", "session", "comment")
"""The arguments of a driver's `command` after the command itself."""
_OF_LIST: Final = frozenset({"filter", "nameOnly", "authorizedCollections", "comment", "session", "maxTimeMS"})
"""What `listCollections` takes."""


async def given(owner: CollectionOwner, known: Document, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """A known answer, to somebody who calls the driver's `command` with these arguments."""
    asked = {**dict(zip(_OF_COMMAND, arguments, strict=False)), **options}
    check_session(owner, "command", asked)
    codec: CodecOptions[Any] | None = asked.get("codec_options")
    return known if codec is None else bson.decode(bson.encode(known), codec_options=codec)


async def listed(
    owner: CollectionOwner, driver: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> list[Document]:
    """The collections as `listCollections` shows them: the configured ones, and those that MongoDB has besides, if it
    answers within 2 s. `driver`: makes the driver's database object. Raises what the server and the driver raise for
    the arguments."""
    asked = {**dict(zip(("session", "filter", "comment"), arguments, strict=False)), **options}
    check_session(owner, "listCollections", asked)
    if unknown := sorted(asked.keys() - _OF_LIST):
        raise failure(40415, f"BSON field 'listCollections.{unknown[0]}' is an unknown field.")
    filter = asked.get("filter")
    found = {name: _described(name) for name in owner.configured()}
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
