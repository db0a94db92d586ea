"""The stores that the contract suite holds to one contract, and a way past each of them to its server."""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Callable
from typing import Final

from shadow.embedded.audit import dynamo_client
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import ABSENT, Document, Image, Version
from shadow.stores.base import Store
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.items.codec import encode_value
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from tests.support.drawn import Draw
from tests.support.topologies import DEPLOYMENTS, admit, drop, root_client

__all__ = ["BACKENDS", "Backend", "open_backend"]

BACKENDS: Final = (
    "memory",
    "mongo-one",
    "mongo-replicas",
    "mongo-auth",
    "dynamo-local",
    "dynamo-ministack",
)


class Backend:
    """One store, shared by the tests of a module."""

    store: Store
    shared: Final = "shared"
    """The collection of tests that look at keys of their own and at nothing else."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._prefix = f"c{uuid.uuid4().hex[:12]}"

    def name(self) -> str:
        """The name of a collection that no other test has."""
        return f"fresh{next(self._numbers)}"

    async def fresh(self) -> str:
        """A collection of one's own, empty and ready."""
        spec = CollectionSpec(self.name(), (IndexSpec("owner-index", "owner"),))
        await self.store.prepare([spec])
        return spec.name

    async def plant(self, collection: str, document: Document) -> None:
        """Stores a document as one that no writer of shadow has touched: by the bare driver, without a version."""
        raise NotImplementedError

    async def open(self) -> None:
        await self.store.prepare([CollectionSpec(self.shared)])

    async def close(self) -> None:
        await self.store.close()


class Memory(Backend):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()

    async def plant(self, collection: str, document: Document) -> None:
        assert await self.store.put(collection, document["_id"], Image(Version("", 0), document), ABSENT)


class Mongo(Backend):
    def __init__(self, url: str, driver: str) -> None:
        super().__init__()
        self._url = url
        admit(url, self._prefix)
        self._bare = root_client(url)
        self._client = connect(url, driver)
        self._database = self._prefix
        self.store = MongoStore(self._client, self._database, {}, owned=False)

    async def plant(self, collection: str, document: Document) -> None:
        self._bare[self._database][collection].insert_one(document)

    async def close(self) -> None:
        await self.store.close()
        await self.store.ping()  # the client was handed in: it must still work
        ended = self._client.close()
        if inspect.isawaitable(ended):
            await ended
        drop(self._url, self._database)


class Dynamo(Backend):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        settings = DynamoSettings(
            endpoint_url=url, access_key_id="local", secret_access_key="local", table_prefix=f"{self._prefix}-"
        )
        self.store = DynamoStore(settings, {})

    async def plant(self, collection: str, document: Document) -> None:
        """Strings, numbers, lists and mappings as any other tool would write them."""
        item = {name: encode_value(value)[0] for name, value in document.items()}
        dynamo_client(self._url).put_item(TableName=f"{self._prefix}-{collection}", Item=item)


def open_backend(name: str, url_of: Callable[[str], str], draw: Callable[[str], Draw]) -> Backend:
    """`url_of` answers the value of a session fixture with the url of a server, `draw` what a deployment of MongoDB is
    tried with."""
    match name.split("-"):
        case ["mongo", deployment]:
            drawn = draw(deployment)
            return Mongo(drawn.url(url_of(DEPLOYMENTS[deployment])), drawn.driver)
        case ["dynamo", "local"]:
            return Dynamo(url_of("dynamodb_local_url"))
        case ["dynamo", "ministack"]:
            return Dynamo(url_of("ministack_url"))
        case _:
            return Memory()
