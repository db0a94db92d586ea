"""The sample backend is an ordinary Motor application: it runs on bare Motor, and on PyMongo's own async client."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from shadow.embedded.notesllm import create_app
from shadow.embedded.notesllm.notes import Notes, now
from shadow.embedded.notesllm.passwords import hash_password, verify_password
from shadow.embedded.notesllm.worker import quiz, summarise, work_once
from tests.support import notesllm


@pytest.fixture
async def motor_database(mongo_url: str, mongo_database: str) -> AsyncIterator[Any]:
    client: Any = AsyncIOMotorClient(mongo_url)
    yield client[mongo_database]
    client.close()


async def test_the_whole_api_works_on_bare_motor(motor_database: Any) -> None:
    await notesllm.walk_through(motor_database)


async def test_the_whole_api_works_on_the_async_client_of_pymongo(mongo_url: str, mongo_database: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        await notesllm.walk_through(client[mongo_database])


async def test_what_is_stored_has_the_types_that_a_migration_must_keep(motor_database: Any) -> None:
    async with notesllm.running(motor_database) as client:
        headers = await notesllm.log_in(client, "ada@example.org")
        draft = {"title": "Notes", "text": notesllm.TEXT, "tags": ["a"]}
        path = f"/documents/{(await client.post('/documents', headers=headers, json=draft)).json()['id']}"
        await notesllm.ready(client, path, headers)
    stored = await motor_database["documents"].find_one({})
    content = await motor_database["generated_content"].find_one({"kind": "summary"})
    user = await motor_database["users"].find_one({})
    types = {"_id": ObjectId, "user_id": ObjectId, "created_at": dt.datetime, "size": int, "tags": list}
    assert {name: type(stored[name]) for name in types} == types
    assert (type(content["document_id"]), type(content["tokens"]), type(content["score"])) == (ObjectId, int, float)
    assert "correct horse" not in str(user)


async def test_many_readers_and_writers_of_one_document_lose_no_page(motor_database: Any) -> None:
    async with notesllm.client_of(create_app(motor_database, password_cost=notesllm.CHEAP)) as client:
        headers = await notesllm.log_in(client, "ada@example.org")
        draft = {"title": "Notes", "text": "start"}
        path = f"/documents/{(await client.post('/documents', headers=headers, json=draft)).json()['id']}"
        pages = [client.post(f"{path}/pages", headers=headers, json={"text": f"page-{n}."}) for n in range(10)]
        await asyncio.gather(*pages)
        document = (await client.get(path, headers=headers)).json()
    assert document["pages"] == 11
    assert document["size"] == len(document["text"])
    assert all(f"page-{n}." in document["text"] for n in range(10))


async def test_two_workers_share_the_work_and_do_nothing_twice(motor_database: Any) -> None:
    notes = Notes(motor_database)
    await notes.add_documents(ObjectId(), [{"title": str(n), "text": notesllm.TEXT, "tags": []} for n in range(20)])
    done = await asyncio.gather(work_once(notes, 20), work_once(notes, 20))
    assert sum(done) == 20
    assert (await notes.count())["generated"] == 40


async def test_a_document_whose_worker_died_is_taken_up_again(motor_database: Any) -> None:
    notes = Notes(motor_database)
    (document,) = await notes.add_documents(ObjectId(), [{"title": "Notes", "text": notesllm.TEXT, "tags": []}])
    assert await notes.claim(document)
    assert await work_once(notes) == 0, "a living worker has it"
    long_ago = now() - dt.timedelta(hours=1)
    await motor_database["documents"].update_one({}, {"$set": {"processing.since": long_ago}})
    assert await work_once(notes) == 1
    assert (await notes.count())["ready"] == 1


async def test_a_password_verifies_against_its_own_hash_only() -> None:
    stored = await hash_password("correct horse")
    assert await verify_password("correct horse", stored)
    assert not await verify_password("wrong horse", stored)
    assert stored != await hash_password("correct horse")


@pytest.mark.parametrize("text", ["", "x", "one two", notesllm.TEXT, "..!?"])
def test_any_text_can_be_worked_on(text: str) -> None:
    for content in (summarise(text), quiz(text)):
        assert set(content) == {"body", "model", "tokens", "score"}
        assert 0 <= content["score"] <= 1
