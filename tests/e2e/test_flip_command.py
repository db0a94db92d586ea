"""`shadow flip` against a running application: refused while gates are closed, done under load, and taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from fastapi import FastAPI

from shadow import Shadow
from shadow.embedded.process import free_port
from tests.e2e.test_migration_commands import Operator
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site


class Application:
    """A Shadow with its admin router behind a real port, in this event loop."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.shadow = Shadow.from_file(operator.config)
        app = FastAPI(lifespan=self.shadow.lifespan)
        app.include_router(self.shadow.admin_router())
        self.port = free_port()
        self.server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="error"))

    async def shadow_(self, *words: str, code: int = 0) -> Any:
        """Runs `shadow` beside the application."""
        said = await asyncio.to_thread(self.operator.run, *words, "--json", code=code)
        return json.loads(said) if code != 2 else said

    def primary(self) -> str:
        return str(self.shadow.admin.routes()[COLLECTION].primary)


@pytest.fixture
async def application(
    least_role_url: str, least_role_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Application]:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    site = Site(least_role_url, least_role_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"))
    operator = Operator(site, tmp_path)
    content = yaml.safe_load(operator.config.read_text())
    operator.config.write_text(
        yaml.safe_dump({**content, "watch_every": 0.1, "defaults": {"phase": "shadow"}}) + "# a comment that stays\n"
    )
    running = Application(operator)
    await running.shadow.prepare()
    serving = asyncio.create_task(running.server.serve())
    await until(lambda: running.server.started)
    yield running
    running.server.should_exit = True
    await serving


async def test_a_flip_is_refused_forced_under_load_and_taken_back(application: Application) -> None:
    things, ended, written = application.shadow[COLLECTION], asyncio.Event(), 0
    before = application.operator.config.read_text()

    refused = await application.shadow_("flip", COLLECTION, "--to", "dynamo", code=1)
    assert {"copied", "equal", "compared"} <= {gate["name"] for gate in refused["closed"]}
    assert (application.operator.config.read_text(), application.primary()) == (before, "mongo")
    dry = await application.shadow_("flip", COLLECTION, "--to", "dynamo", "--dry-run", code=1)
    assert "primary: dynamo" in dry["diff"]
    assert len(dry["steps"]) == 6
    assert application.operator.config.read_text() == before

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            await things.update_one({"_id": written % 20}, {"$inc": {"n": 1}}, upsert=True)
            written += 1

    writing = asyncio.create_task(write())
    done = await application.shadow_("flip", COLLECTION, "--to", "dynamo", "--force", "--reason", "a rehearsal")
    assert (done["done"], application.primary()) == (True, "dynamo")
    assert "# a comment that stays" in application.operator.config.read_text()
    back = await application.shadow_("flip", COLLECTION, "--to", "mongo", "--force", "--reason", "and back")
    assert (back["done"], application.primary()) == (True, "mongo")
    ended.set()
    await writing
    assert await application.shadow.settled(90)
    found = [each async for each in things.find({})]
    assert sum(each["n"] for each in found) == written, "no write was lost or done twice"


async def test_a_copied_and_verified_collection_opens_its_gates(application: Application) -> None:
    await application.shadow[COLLECTION].insert_many([{"_id": number} for number in range(50)])
    await application.shadow.settled(90)
    await application.shadow_("backfill", COLLECTION)
    await application.shadow_("verify", COLLECTION)
    gates = (await application.shadow.admin.status())["verdict"]["gates"]
    opened = {gate["name"]: gate["ok"] for gate in gates if gate["collection"] == COLLECTION}
    assert (opened["copied"], opened["equal"]) == (True, True), gates


async def test_refusals_change_nothing(application: Application) -> None:
    before = application.operator.config.read_text()
    assert "is its primary already" in await application.shadow_("flip", COLLECTION, "--to", "mongo", code=2)
    assert "not in the configuration" in await application.shadow_("flip", "other", "--to", "dynamo", code=2)
    assert application.operator.config.read_text() == before
