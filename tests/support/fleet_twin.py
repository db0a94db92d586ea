"""The process of a fleet that is an application on Beanie: the same traffic by documents of that ODM, and the users of
the sample backend's twin, who come, log in and go."""

from __future__ import annotations

from beanie import Document, init_beanie
from beanie.operators import Inc

from shadow.embedded.notesllm.beanie_notes import BeanieNotes, User
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
    backend = "beanie"

    async def prepare(self) -> None:
        # The runbook's file declares the indexes that this traffic needs.
        await init_beanie(database=self.shadow, document_models=[Thing, User], skip_indexes=True)
        self.notes_llm = BeanieNotes()

    async def insert(self, key: str, group: str, n: int) -> None:
        await Thing(id=key, group=group, n=n).insert()
        user = await self.notes_llm.add_user(f"{key}@example.com", key, "a hash")
        assert user is not None, "nobody has this email"
        await self.notes_llm.open_session(user["_id"], "another")
        found = await self.notes_llm.user_by_email(f"{key}@example.com")
        assert found is not None, "it is read by whichever store is the primary"
        assert found["session"]["hash"] == "another"

    async def delete(self, key: str) -> None:
        await Thing.find_one(Thing.id == key).delete()
        gone = await User.find_one(User.email == f"{key}@example.com").delete()
        assert gone.deleted_count == 1

    async def increment(self, key: str) -> None:
        await Thing.find_one(Thing.id == key).update(Inc({Thing.n: 1}), upsert=True)

    async def of_group(self, group: str) -> None:
        await Thing.find(Thing.group == group).to_list()

    async def read(self, key: str) -> None:
        await Thing.get(key)
