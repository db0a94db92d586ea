"""What the collections of MongoDB are beyond their names, looked at before anything is changed for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pymongo.errors import OperationFailure, PyMongoError

from shadow.config import Settings
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.kinds import UnfitKind
from shadow.stores.mongo.store import MongoStore

__all__ = ["Looked", "look_at"]

_PATIENCE: Final = 5.0
"""Seconds within which MongoDB has to have answered for all of them."""


@dataclass(frozen=True, slots=True)
class Looked:
    """`refused`: the collections that two stores cannot hold level. `not_seen`: why nobody answered, and then nothing
    is known of any; "" where all were looked at."""

    refused: Sequence[UnfitKind] = ()
    not_seen: str = ""


async def look_at(settings: Settings, collections: Iterable[str]) -> Looked:
    """As at the start of the application. Reads, and raises nothing of the driver's."""
    client = connect(settings.mongo.url.get_secret_value(), "pymongo")
    store = MongoStore(client, settings.mongo.database, settings.specs(), owned=True)
    try:
        async with asyncio.timeout(_PATIENCE):
            found = [await store.looks.look(name) for name in collections]
        return Looked([each for each in found if each is not None])
    except (PyMongoError, TimeoutError) as error:
        code = f" {error.code}" if isinstance(error, OperationFailure) and error.code is not None else ""
        return Looked(not_seen=f"{type(error).__name__}{code}")
    finally:
        await store.close()
