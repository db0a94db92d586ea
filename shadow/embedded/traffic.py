"""Traffic for the sample backend: concurrent users over HTTP, until stopped."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Final

import httpx

__all__ = ["Person", "Traffic"]

_WORDS: Final = tuple(
    "shadow store primary second write read answer journal lane fence version image tombstone intent replay copy heal "  # noqa: SIM905
    "verdict match noise canary gate epoch flip backend table index query scan batch document user session".split()
)


def _text(rng: random.Random) -> str:
    sentences = (" ".join(rng.choices(_WORDS, k=rng.randint(5, 14))).capitalize() for _ in range(rng.randint(2, 8)))
    return ". ".join(sentences) + "."


class Person:
    """One user of the backend, registered and logged in, with their documents."""

    def __init__(self, client: httpx.AsyncClient, email: str, rng: random.Random) -> None:
        self.email = email
        self.documents: list[str] = []
        self._client = client
        self._rng = rng
        self._headers: dict[str, str] = {}

    async def sign_up(self) -> None:
        credentials = {"email": self.email, "password": "correct horse battery"}
        await self.ask("POST", "/users", json={**credentials, "name": "A person"})
        answer = await self.ask("POST", "/login", json=credentials)
        self._headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request. Raises httpx.HTTPStatusError for a server error, which the backend must never return."""
        answer = await self._client.request(method, path, headers=self._headers, **options)
        if answer.is_server_error:
            answer.raise_for_status()
        return answer

    async def upload(self, count: int) -> None:
        drafts = [{"title": f"Note {self._rng.randint(1, 999)}", "text": _text(self._rng)} for _ in range(count)]
        answer = await self.ask("POST", "/documents/batch", json=drafts)
        self.documents += [each["id"] for each in answer.json()]

    async def read_all(self) -> None:
        """Reads every document and lists them, by key and through the index."""
        await self.ask("GET", "/documents", params={"limit": 100})
        for each in list(self.documents):
            await self.ask("GET", f"/documents/{each}")
            await self.ask("GET", f"/documents/{each}/generated")

    async def act(self) -> None:
        """Does one random thing."""
        if not self.documents:
            await self.upload(2)
            return
        one = self._rng.choice(self.documents)
        match self._rng.choices(
            ("read", "list", "upload", "rename", "page", "replace", "profile", "delete"), (30, 15, 8, 10, 10, 4, 4, 3)
        )[0]:
            case "read":
                await self.ask("GET", f"/documents/{one}")
                await self.ask("GET", f"/documents/{one}/generated")
            case "list":
                await self.ask("GET", "/documents", params={"limit": 10})
            case "upload":
                await self.upload(1)
            case "rename":
                await self.ask("PATCH", f"/documents/{one}", json={"title": f"Renamed {self._rng.random():.6f}"})
            case "page":
                await self.ask("POST", f"/documents/{one}/pages", json={"text": _text(self._rng)})
            case "replace":
                await self.ask("PUT", f"/documents/{one}", json={"title": "Again", "text": _text(self._rng)})
            case "profile":
                await self.ask("PATCH", "/me", json={"theme": self._rng.choice(("light", "dark", None))})
            case _:
                self.documents.remove(one)
                await self.ask("DELETE", f"/documents/{one}")


class Traffic:
    """Users who act until `stop` is set. `faults` counts the backend's server errors by path."""

    def __init__(self, base_url: str, *, people: int, pause: float = 0.02, seed: int = 1) -> None:
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.stop = asyncio.Event()
        self._client = httpx.AsyncClient(base_url=base_url, timeout=30, event_hooks={"response": [self._count]})
        self._pause = pause
        self._rng = random.Random(seed)
        self._people = [self.person(f"person{number}@example.org") for number in range(people)]

    def person(self, email: str) -> Person:
        return Person(self._client, email, random.Random(self._rng.random()))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for person in self._people:
                group.create_task(self._live(person))

    async def close(self) -> None:
        await self._client.aclose()

    async def _live(self, person: Person) -> None:
        await person.sign_up()
        while not self.stop.is_set():
            try:
                await person.act()
            except httpx.HTTPError as error:
                self.faults[type(error).__name__] += 1
            await asyncio.sleep(self._pause * self._rng.random() * 2)

    async def _count(self, answer: httpx.Response) -> None:
        self.requests += 1
