"""The process of a fleet that is an application on Beanie: the same traffic by documents of that ODM."""

from __future__ import annotations

from beanie import Document, init_beanie
from beanie.operators import Inc

from tests.support.fleet_worker import COLLECTION, Worker

__all__ = ["Twin"]


class Thing(Document):
    id: str
    group: str | None = None
    n: int = 0

    class Settings:
        name = COLLECTION
        keep_nulls = False


class Twin(Worker):
    async def prepare(self) -> None:
        await init_beanie(database=self.shadow, document_models=[Thing])

    async def insert(self, key: str, group: str, n: int) -> None:
        await Thing(id=key, group=group, n=n).insert()

    async def delete(self, key: str) -> None:
        await Thing.find_one(Thing.id == key).delete()

    async def increment(self, key: str) -> None:
        await Thing.find_one(Thing.id == key).update(Inc({Thing.n: 1}), upsert=True)

    async def of_group(self, group: str) -> None:
        await Thing.find(Thing.group == group).to_list()

    async def read(self, key: str) -> None:
        await Thing.get(key)
