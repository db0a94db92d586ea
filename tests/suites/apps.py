"""The applications of our own on ODMs that ship no tests, each played bare and with the library (`plays.py`)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient, MongoClient

from shadow import Shadow
from shadow.config import Settings
from shadow.embedded.audit import Audit
from tests.suites import beanie_app, beanie_models, odmantic_app
from tests.suites.plays import Answers, Feature, play
from tests.suites.runs import Servers
from tests.suites.suites import MODES

__all__ = ["APPS", "App", "bare", "with_library"]


@dataclasses.dataclass(frozen=True, slots=True)
class App:
    driver: str
    collections: tuple[str, ...]
    features: Mapping[str, Feature]
    begin: Callable[[Any], Awaitable[None]]


APPS: Final = {
    "beanie-app": App("pymongo", beanie_models.COLLECTIONS, beanie_app.FEATURES, beanie_app.begin),
    "odmantic-app": App("motor", odmantic_app.COLLECTIONS, odmantic_app.FEATURES, odmantic_app.begin),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Played:
    answers: dict[str, Answers]
    apart: tuple[str, ...] = ()
    """What the stores do not hold alike in the end."""
    mismatches: int = 0
    """That shadow reads have counted."""


async def _played(app: App, database: Any) -> dict[str, Answers]:
    async with asyncio.timeout(60):
        await app.begin(database)
    return await play(app.features, database)


async def bare(app: App, servers: Servers, database: str) -> Played:
    """Over the driver's own database object."""
    if app.driver == "pymongo":
        async with AsyncMongoClient[dict[str, Any]](servers.mongo_url) as client:
            return Played(await _played(app, client[database]))
    from motor.motor_asyncio import AsyncIOMotorClient

    motor: Any = AsyncIOMotorClient(servers.mongo_url)
    try:
        return Played(await _played(app, motor[database]))
    finally:
        motor.close()


async def with_library(app: App, mode: str, servers: Servers, database: str, folder: Path) -> Played:
    """Over a Shadow in the same place. The database is empty before."""
    with MongoClient[Any](servers.mongo_url) as client:
        client.drop_database(database)
    settings = _settings(app, mode, servers, database, folder)
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        answers = await _played(app, shadow)
        if mode == "off":
            return Played(answers)
        if not await shadow.settled(60):
            return Played(answers, ("the journal was not empty after a minute",))
        audit = Audit(servers.mongo_url, database, servers.dynamo_url, f"{database}-", settings.specs())
        apart = await asyncio.to_thread(audit.disagreements)
        verdicts = (await shadow.admin.status())["totals"]["verdicts"]
        return Played(answers, tuple(f"{each.collection}: {each.what}" for each in apart), verdicts.get("mismatch", 0))


def _settings(app: App, mode: str, servers: Servers, database: str, folder: Path) -> Settings:
    return Settings(
        mongo={"url": servers.mongo_url, "database": database, "driver": app.driver},
        dynamo={
            "endpoint_url": servers.dynamo_url,
            "table_prefix": f"{database}-",
            "access_key_id": "local",
            "secret_access_key": "local",
        },
        journal={"url": f"sqlite:///{folder / 'shadow.db'}"},
        limits={"loop_lag": 0.0, "settle": 0.2, "read_deadline": 5.0, "write_deadline": 5.0},
        observe={"holdout": 0.0, "noise_share": 0.0},
        defaults={**MODES[mode], "forced": "a test"},
        collections={name: {} for name in app.collections},
    )
