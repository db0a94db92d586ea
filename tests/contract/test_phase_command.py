"""`shadow config phase` and `config check --connect` look at MongoDB's collections before anything is changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from typer.testing import CliRunner

from shadow.cli import app
from shadow.jobs.target import JobRefused
from shadow.stores.mongo.kinds import REASONS, Special
from tests.support.kinds import PLAIN, REFUSED

NAMES = ("plain", "things", "others")


@pytest.fixture
def made(mongo_url: str, mongo_database: str) -> Callable[..., None]:
    def make(name: str, options: Any) -> None:
        with MongoClient[dict[str, Any]](mongo_url) as client:
            client[mongo_database].command({"create": name, **options})

    return make


@pytest.fixture
def file(mongo_url: str, mongo_database: str, tmp_path: Path) -> Callable[..., Path]:
    def make(url: str = mongo_url, phase: str = "off", primary: str = "mongo") -> Path:
        path = tmp_path / "shadow.yaml"
        path.write_text(
            f"# a comment\nmongo: {{url: '{url}', database: {mongo_database}}}\n"
            f"journal: {{url: 'sqlite:///{tmp_path}/j.db'}}\n"
            f"defaults: {{primary: {primary}, phase: '{phase}'}}\n"
            f"collections:\n{''.join(f'  {name}: {{}}' + chr(10) for name in NAMES)}"
        )
        return path

    return make


async def call(path: Path, *words: str) -> Any:
    """In a thread; errors that end the program are raised."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["config", *words, "-c", str(path)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("special", REFUSED)
@pytest.mark.parametrize(("phase", "now"), [("dual_write", "off"), ("shadow", "dual_write")])
async def test_a_collection_that_is_refused_at_start_keeps_its_phase(
    file: Any, made: Any, special: Special, phase: str, now: str
) -> None:
    made("things", REFUSED[special])
    path = file(phase=now)
    before = path.read_text()
    with pytest.raises(JobRefused) as caught:
        await call(path, "phase", phase, "plain", "things")
    assert f"things ({special})" in caught.value.message
    assert REASONS[special].why in caught.value.message
    assert "plain (" not in caught.value.message
    assert caught.value.hint.startswith("things: ")
    assert path.read_text() == before
    assert (await call(path, "phase", phase, "plain")).exit_code == 0


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_all_that_are_refused_are_named_whichever_store_is_primary(file: Any, made: Any, primary: str) -> None:
    made("things", REFUSED[Special.CAPPED])
    made("others", REFUSED[Special.COLLATION])
    with pytest.raises(JobRefused) as caught:
        await call(file(primary=primary), "phase", "dual_write", *NAMES)
    assert "things (capped" in caught.value.message
    assert "others (default collation" in caught.value.message


@pytest.mark.parametrize("kind", PLAIN)
async def test_what_is_supported_moves_on(file: Any, made: Any, kind: str) -> None:
    made("things", PLAIN[kind])
    path = file()
    said = await call(path, "phase", "dual_write", "things")
    assert said.exit_code == 0
    assert "note" not in said.output
    assert "phase: dual_write" in path.read_text()


async def test_the_way_back_to_off_asks_nobody(file: Any, made: Any) -> None:
    made("things", REFUSED[Special.CAPPED])
    path = file(phase="dual_write")
    assert (await call(path, "phase", "off", "things")).exit_code == 0
    path = file("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100", phase="dual_write")
    assert "note" not in (await call(path, "phase", "off", "things")).output


async def test_where_nobody_answers_it_says_that_it_did_not_look(file: Any) -> None:
    path = file("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100")
    said = await call(path, "phase", "dual_write", "things")
    assert said.exit_code == 0
    assert "phase: dual_write" in path.read_text()
    assert "MongoDB was not checked (ServerSelectionTimeoutError)" in said.output


async def test_config_check_names_them_on_request(file: Any, made: Any) -> None:
    made("things", REFUSED[Special.VIEW])
    path = file(phase="dual_write")
    assert (await call(path, "check")).exit_code == 0
    said = await call(path, "check", "--connect")
    assert said.exit_code == 1
    assert "error: things (view)" in said.output
    as_json = json.loads((await call(path, "check", "--connect", "--json")).stdout)
    assert [(each["collection"], each["kind"]) for each in as_json["refused"]] == [("things", "view")]
    assert as_json["ok"] is False
    assert (await call(file(), "check", "--connect")).exit_code == 0
