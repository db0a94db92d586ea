"""A flip forward and back with documents of its own: the same code, stores, rights and settings, without real data.

It uses a collection and a table named `shadow_rehearsal` with the indexes and constraints of the real collection, and
a journal and a control store in a temporary folder. The table is kept, empty, for the next rehearsal.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bson import Decimal128, Int64, ObjectId
from pydantic import SecretStr

from shadow.client import Shadow
from shadow.compare.equality import same
from shadow.config import ControlSettings, JournalSettings, Settings
from shadow.fleet.coordinator import make_flip
from shadow.jobs.target import JobRefused
from shadow.model.phase import Phase, StoreName
from shadow.model.version import Document
from shadow.surface.collections.collection import Collection

__all__ = ["COLLECTION", "rehearse"]

COLLECTION: Final = "shadow_rehearsal"
_DOCUMENTS: Final = 12
_HEARTBEAT: Final = 0.1
_LEVEL: Final = 30.0


async def rehearse(settings: Settings, name: str, to: StoreName) -> dict[str, Any]:
    """Shape: {"documents": n, "equal": bool, "seconds": s, "flips": [seconds for which writes were paused]}. `equal`:
    both stores were equal after each of the three stages. Raises the stores' own errors."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shadow-rehearsal-") as folder:
        own = _settings(settings, name, to.other, Path(folder))
        async with Shadow.from_settings(own) as shadow:
            await shadow.prepare()
            things = shadow[COLLECTION]
            await things.delete_many({})
            unique = [path for each in own.collections[COLLECTION].spec(COLLECTION).unique for path in each.fields]
            equal, flips = [await _stage(shadow, things, 0, unique)], []
            for number, store in enumerate((to, to.other), start=1):
                flips.append(await _flip(shadow, own, store))
                equal.append(await _stage(shadow, things, number, unique))
            await things.delete_many({})
            await shadow.settled(_LEVEL)
    seconds = round(time.monotonic() - began, 3)
    return {"documents": 3 * _DOCUMENTS, "equal": all(equal), "seconds": seconds, "flips": flips}


def _settings(settings: Settings, name: str, primary: StoreName, folder: Path) -> Settings:
    entry = settings.collections[name].model_copy(
        update={"primary": primary, "phase": Phase.SHADOW, "forced": "a rehearsal", "compare": (), "reveal_fields": ()}
    )
    return settings.model_copy(
        update={
            "collections": {COLLECTION: entry},
            "journal": JournalSettings(url=SecretStr(f"sqlite:///{folder / 'journal.db'}")),
            "control": ControlSettings(heartbeat=_HEARTBEAT),
            "hooks": (),
            "observe": settings.observe.model_copy(update={"watch_writers": False, "follow_writers": False}),
        }
    )


async def _flip(shadow: Shadow, settings: Settings, to: StoreName) -> float:
    flipped = await asyncio.to_thread(
        make_flip,
        settings.control_place().open(),
        {COLLECTION: to},
        by="a rehearsal",
        heartbeat=_HEARTBEAT,
        limit=settings.limits.drain + settings.limits.in_flight_timeout,
    )
    if shadow.admin.routes()[COLLECTION].primary is not to:
        raise JobRefused(f"the rehearsal did not flip: {flipped.said}", hint="your data was not touched")
    return round(flipped.paused, 4)


async def _stage(shadow: Shadow, things: Collection, stage: int, unique: Sequence[str]) -> bool:
    """Makes every kind of write. Returns whether both stores are equal. `unique`: the unique paths."""
    keys = [f"stage-{stage}-{number}" for number in range(_DOCUMENTS)]
    await things.insert_many([_document(unique, key, number) for number, key in enumerate(keys)])
    await things.update_one({"_id": keys[0]}, {"$inc": {"count": 1}, "$set": {"deep.a": stage}})
    await things.update_many({"_id": {"$in": keys[1:4]}}, {"$push": {"list": stage}})
    await things.replace_one({"_id": keys[4]}, _document(unique, keys[4], _DOCUMENTS))
    await things.delete_one({"_id": keys[5]})
    await things.update_one({"_id": f"stage-{stage}-upsert"}, {"$set": _upserted(unique, stage)}, upsert=True)
    await things.insert_one(_document(unique, keys[5], _DOCUMENTS + 1))
    if not await shadow.settled(_LEVEL):
        return False
    return all([await _is_equal(shadow, key) for key in (*keys, f"stage-{stage}-upsert")])


async def _is_equal(shadow: Shadow, key: str) -> bool:
    primary, secondary = await shadow.admin.images(COLLECTION, key)
    if primary.document is None or secondary.document is None:
        return False
    return primary.state == secondary.state and same(primary.document, secondary.document)


def _document(unique: Sequence[str], key: str, number: int) -> Document:
    """Values of many types, with different ones in every unique field."""
    document: Document = {
        "_id": key,
        "count": number,
        "long": Int64(2**40 + number),
        "double": number + 0.5,
        "decimal": Decimal128("1.50"),
        "at": dt.datetime(2026, 1, 2, 3, 4, 5, 678000),
        "id": ObjectId(),
        "list": [1, "two", None, {"three": 3.0}],
        "deep": {"a": 1, "b": {"c": True}},
        "bytes": b"\x00\xff",
    }
    for path in unique:
        _put(document, path, f"{key}-{number}-{ObjectId()}")
    return document


def _upserted(unique: Sequence[str], stage: int) -> Document:
    return {"stage": stage, **{path: f"upsert-{stage}-{ObjectId()}" for path in unique}}


def _put(document: Document, path: str, value: str) -> None:
    *outer, last = path.split(".")
    for name in outer:
        inner = document.get(name)
        document[name] = inner if isinstance(inner, dict) else {}
        document = document[name]
    document[last] = value
