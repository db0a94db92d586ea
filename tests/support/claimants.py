"""What the processes of the uniqueness test run: many inserts of one unique value, each by a store of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from shadow.model.operation import Insert
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import fresh_id
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore

__all__ = ["EMAIL", "USERS", "claim", "store_at"]

USERS: Final = CollectionSpec("users", (), (UniqueSpec("email_1", ("email",)),))
EMAIL: Final = "ada@example.org"


def store_at(url: str, prefix: str, spec: CollectionSpec = USERS) -> DynamoStore:
    settings = DynamoSettings(
        endpoint_url=url,
        table_prefix=prefix,
        access_key_id="local",
        secret_access_key="local",
        connect_timeout=30.0,
        read_timeout=30.0,  # for as long as a busy machine takes
    )
    return DynamoStore(settings, {spec.name: spec})


def claim(url: str, prefix: str, name: str, inserts: int, log: str) -> None:
    """`inserts` documents with one value at once; writes how each of them ended, counted, into the file `log`."""

    async def one(store: DynamoStore, number: int) -> str:
        document: dict[str, Any] = {"_id": f"{name}.{number}", "email": EMAIL, "pad": "x" * 100}
        try:
            await store.apply("users", Insert(document["_id"], document, fresh_id()), fresh_id())
        except DuplicateKeyError as error:
            details = error.details or {}
            return "duplicate" if details.get("keyPattern") == {"email": 1} else "other duplicate"
        except Exception as error:
            return type(error).__name__
        return "inserted"

    async def run() -> Counter[str]:
        store = store_at(url, prefix)
        try:
            return Counter(await asyncio.gather(*(one(store, number) for number in range(inserts))))
        finally:
            await store.close()

    ended = asyncio.run(run())
    Path(log).write_text("".join(f"{outcome} {times}\n" for outcome, times in ended.items()))
