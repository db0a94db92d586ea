"""A walk through the whole API of the sample backend; any database that has Motor's surface must pass it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
from fastapi import FastAPI

from shadow.embedded.notesllm import create_app, worker
from shadow.embedded.notesllm.notes import Database

__all__ = ["CHEAP", "TEXT", "client_of", "log_in", "ready", "running", "walk", "walk_through"]

CHEAP: Final = 2
"""scrypt's `n` where hashing is not what is tested."""

TEXT: Final = "Databases keep documents. Documents hold fields. A migration moves documents between databases. The end."


@contextlib.asynccontextmanager
async def running(database: Database, notes: Any = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over `database`, with its worker at work. `notes`: what stands in for its own."""
    stop = asyncio.Event()
    working = asyncio.create_task(worker(database, stop, poll_seconds=0.01, notes=notes))
    try:
        async with client_of(create_app(database, password_cost=CHEAP, notes=notes)) as client:
            yield client
    finally:
        stop.set()
        await working


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://notes")


async def log_in(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    """Registers and logs in; returns the headers of that user's requests."""
    credentials = {"email": email, "password": "correct horse"}
    assert (await client.post("/users", json={**credentials, "name": "Ada"})).status_code == 201
    answer = await client.post("/login", json=credentials)
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def ready(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> Any:
    """The document when the worker is done with it."""
    async with asyncio.timeout(20):
        while True:
            document = (await client.get(path, headers=headers)).json()
            if document["status"] == "ready":
                return document
            await asyncio.sleep(0.01)


async def walk_through(database: Database, notes: Any = None) -> None:
    """Every endpoint, its refusals included, over an empty database."""
    async with running(database, notes) as client:
        await walk(client)


async def walk(client: httpx.AsyncClient) -> None:
    """`walk_through` for an application that runs already."""
    headers = await log_in(client, "ada@example.org")
    await _users(client, headers)
    await _documents(client, headers)
    await _listing(client, headers)
    figures = (await client.get("/stats")).json()
    assert figures == {"users": 2, "documents": 5, "uploaded": 0, "processing": 0, "ready": 5, "generated": 10}


async def _users(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    again = {"email": "ADA@example.org ", "password": "correct horse"}
    assert (await client.post("/users", json=again)).status_code == 409
    wrong = {"email": "ada@example.org", "password": "wrong horse!"}
    assert (await client.post("/login", json=wrong)).status_code == 401
    assert (await client.get("/me")).status_code == 401
    assert (await client.get("/me", headers={"Authorization": headers["Authorization"] + "x"})).status_code == 401
    me = (await client.get("/me", headers=headers)).json()
    assert (me["email"], me["name"], me["settings"], me["uploads"]) == ("ada@example.org", "Ada", {"theme": "light"}, 0)
    changed = await client.patch("/me", headers=headers, json={"name": "Ada L.", "language": "en", "theme": None})
    assert changed.json()["settings"] == {"language": "en"}
    assert changed.json()["name"] == "Ada L."


async def _documents(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    draft = {"title": "Notes", "text": TEXT, "tags": ["a", "b"]}
    made = await client.post("/documents", headers=headers, json=draft)
    assert made.status_code == 201
    path = f"/documents/{made.json()['id']}"
    document = await ready(client, path, headers)
    assert (document["size"], document["pages"], document["tags"]) == (len(TEXT), 1, ["a", "b"])
    assert document["created_at"] == made.json()["created_at"]
    contents = (await client.get(f"{path}/generated", headers=headers)).json()
    assert [content["kind"] for content in contents] == ["quiz", "summary"]
    assert all(content["tokens"] > 0 and 0 < content["score"] <= 1 for content in contents)
    assert (await client.patch(path, headers=headers, json={"title": "Renamed"})).json()["title"] == "Renamed"
    assert (await client.post(f"{path}/pages", headers=headers, json={"text": "More."})).json()["pages"] == 2
    assert (await ready(client, path, headers))["text"] == f"{TEXT}\nMore."
    assert (await client.put(path, headers=headers, json={**draft, "tags": []})).json()["pages"] == 1
    await ready(client, path, headers)
    stranger = await log_in(client, "eve@example.org")
    for answer in (
        await client.get(path, headers=stranger),
        await client.patch(path, headers=stranger, json={"title": "Mine"}),
        await client.delete(path, headers=stranger),
        await client.get("/documents/nonsense", headers=headers),
    ):
        assert answer.status_code == 404
    assert (await client.delete(path, headers=headers)).status_code == 204
    assert (await client.get(path, headers=headers)).status_code == 404
    assert (await client.get(f"{path}/generated", headers=headers)).status_code == 404


async def _listing(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    drafts = [{"title": f"Part {number}", "text": TEXT} for number in range(5)]
    made = (await client.post("/documents/batch", headers=headers, json=drafts)).json()
    assert len(made) == 5
    for document in made:
        await ready(client, f"/documents/{document['id']}", headers)
    newest = sorted(made, key=lambda document: (document["created_at"], document["id"]), reverse=True)
    page = (await client.get("/documents", headers=headers, params={"limit": 2, "skip": 1})).json()
    assert [document["id"] for document in page] == [document["id"] for document in newest[1:3]]
    assert (await client.get("/documents", headers=headers, params={"status": "uploaded"})).json() == []
    since = newest[0]["created_at"]
    recent = (await client.get("/documents", headers=headers, params={"since": since})).json()
    assert recent[0]["id"] == newest[0]["id"]
    assert (await client.get("/me", headers=headers)).json()["uploads"] == 6
    assert (await client.post("/logout", headers=headers)).status_code == 204
    assert (await client.get("/me", headers=headers)).status_code == 401
