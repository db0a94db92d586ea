"""Collections that are not migrated are the driver's own call: those that the configuration does not name, and those in
phase `off` on MongoDB. Held against the bare driver, both drivers, clients of our own and handed in: every verb with
every option that its signature documents, answers and errors as they are, and what is stored, to the byte."""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio
from bson.raw_bson import RawBSONDocument

from shadow import Shadow
from shadow.config import CollectionSettings, Defaults, JournalSettings, MongoSettings, Settings
from shadow.model.phase import Phase
from shadow.stores.dynamo.settings import DynamoSettings
from shadow.stores.mongo import connect
from tests.support.calls import DOCUMENTS, INDEX_CALLS, Call, answer_of, calls, undocumented

_NOWHERE = DynamoSettings(endpoint_url="http://127.0.0.1:9", access_key_id="x", secret_access_key="x")


class Beside:
    """The same collection twice: the driver's own, and through a Shadow."""

    def __init__(self, shadow: Shadow, bare: Any, name: str, collection: str) -> None:
        self.shadow = shadow
        self.name = name
        self.collection = collection
        self.bare = bare[f"{name}bare"][collection]
        self.shim = shadow[collection]
        self.names = (f"{name}bare", name)
        self._way_past: pymongo.MongoClient[Any] = pymongo.MongoClient(
            shadow.settings.mongo.url.get_secret_value(), document_class=RawBSONDocument
        )

    def stored(self, shim: bool) -> list[bytes]:
        """What is there, to the byte, but for ids that were made on the way."""
        database = self._way_past[self.name if shim else f"{self.name}bare"]
        found = list(database[self.collection].find(sort=[("_id", 1)]))
        return [
            bson.encode({**each, "_id": "made"}) if isinstance(each["_id"], bson.ObjectId) else each.raw
            for each in found
        ]

    def refill(self, *, anew: bool = True) -> None:
        for database in (self._way_past[self.name], self._way_past[f"{self.name}bare"]):
            for name in database.list_collection_names() if anew else ():
                database.drop_collection(name)
            database[self.collection].delete_many({})
            database[self.collection].insert_many([dict(each) for each in DOCUMENTS])

    def end(self) -> None:
        for name in self.names:
            self._way_past.drop_database(name)
        self._way_past.close()

    async def difference(self, call: Call, before: str = "drop") -> str:
        self.refill(anew=before in INDEX_CALLS)
        theirs, ours = [await self._answer(call, side) for side in (self.bare, self.shim)]
        if theirs != ours:
            return f"{call}\n  driver: {theirs}\n  shim:   {ours}"
        stored = self.stored(shim=True)
        return "" if stored == self.stored(shim=False) else f"{call}: stored {[bson.decode(each) for each in stored]}"

    async def _answer(self, call: Call, collection: Any) -> Any:
        try:
            return answer_of(await call.on(collection), self.names)
        except Exception as error:
            return answer_of(error, self.names)


@contextlib.asynccontextmanager
async def beside(
    folder: Path, mongo_url: str, driver: str, *, named: bool, handed_in: bool, options: str = ""
) -> AsyncIterator[Beside]:
    name, url = f"t{uuid.uuid4().hex[:12]}", f"{mongo_url}{options}"
    settings = Settings(
        mongo=MongoSettings(url=url, database=name, driver=driver),
        dynamo=_NOWHERE,
        journal=JournalSettings(url=f"sqlite:///{folder / 'journal.db'}"),
        defaults=Defaults(phase=Phase.SHADOW),
        collections={"things" if named else "others": CollectionSettings(phase=Phase.OFF)},
    )
    bare = connect(url, driver)
    given = connect(url, driver) if handed_in else None
    try:
        async with Shadow.from_settings(settings, mongo_client=given) as shadow:
            made = Beside(shadow, bare, name, "things")
            try:
                yield made
            finally:
                made.end()
    finally:
        for client in (bare, given):
            ending = None if client is None else client.close()
            if inspect.isawaitable(ending):
                await ending


@pytest_asyncio.fixture(params=["motor", "pymongo"])
async def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=["unnamed", "off"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, mongo_url: str, driver: str) -> AsyncIterator[Beside]:
    async with beside(tmp_path, mongo_url, driver, named=request.param == "off", handed_in=False) as made:
        yield made


def test_every_documented_option_is_tried() -> None:
    assert undocumented() == set()


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "off"])
@pytest.mark.parametrize("handed_in", [False, True], ids=["own", "handed-in"])
async def test_every_verb_with_every_option(
    tmp_path: Path, mongo_url: str, driver: str, named: bool, handed_in: bool
) -> None:
    async with beside(tmp_path, mongo_url, driver, named=named, handed_in=handed_in) as site:
        made = list(calls())
        assert len(made) > 150
        verbs = ["drop", *(call.verb for call in made[:-1])]
        pairs = zip(made, verbs, strict=True)
        different = [text for call, before in pairs if (text := await site.difference(call, before))]
        assert not different, "\n".join(different)
