"""What a crash left of large documents is found and deleted: by one process in a period, beside the application."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bson import ObjectId
from typer.testing import CliRunner

from shadow import Shadow
from shadow.cli import app
from shadow.embedded.servers import CREDENTIALS
from shadow.model.operation import Insert, Query
from shadow.model.phase import StoreName
from shadow.model.version import Document, fresh_id
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.write.sweeping import sweep_forever
from shadow.stores.dynamo.write.writes import SWEEP_MARK
from tests.contract.test_dynamo_specifics import SPECS, opened, raw_items, settings_for, verbs_of
from tests.support import shims

LARGE: Document = {"_id": "large", "b": random.Random(1).randbytes(900_000)}
DAY = 86_400.0


@pytest.fixture
async def store(dynamodb_local_url: str, fresh_name: str) -> AsyncIterator[DynamoStore]:
    async with opened(dynamodb_local_url, fresh_name) as made:
        await made.prepare(SPECS.values())
        yield made
        await asyncio.gather(*(made.drop(name) for name in SPECS))


async def orphan(store: DynamoStore, collection: str = "docs", *, days: int = 2) -> str:
    """A part that nothing names, as old as that; its key."""
    generation = str(ObjectId.from_datetime(dt.datetime.now(dt.UTC) - dt.timedelta(days=days)))
    key = keys.part_key("k", generation, 0)
    stamp = {"M": {"k": {"S": "part"}, "w": {"S": "k"}, "g": {"S": generation}}}
    table = store._table(collection).name
    await store._gateway.call("put_item", table, TableName=table, Item={"_id": {"S": key}, "_shadow": stamp})
    return key


async def parts(store: DynamoStore, collection: str = "docs") -> set[str]:
    return {text for each in await raw_items(store, collection) if (text := each["_id"]["S"]).startswith("~part:")}


async def insert(store: DynamoStore, document: Document) -> None:
    await store.apply("docs", Insert(document["_id"], document, fresh_id()), fresh_id())


async def backdate(store: DynamoStore, seconds: float, collection: str = "docs") -> None:
    """The last sweep was that long ago."""
    table = store._table(collection).name
    await store._gateway.call(
        "update_item",
        table,
        TableName=table,
        Key={"_id": {"S": SWEEP_MARK}},
        UpdateExpression="SET #s.#a = #s.#a - :n",
        ExpressionAttributeNames={"#s": "_shadow", "#a": "at"},
        ExpressionAttributeValues={":n": {"N": str(seconds)}},
    )


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_old_parts_that_nothing_names_go_and_all_others_stay(store: DynamoStore) -> None:
    await insert(store, LARGE)
    named = await parts(store)
    young, old = await orphan(store, days=0), await orphan(store)
    assert await store.sweep("docs", dry_run=True) == 1
    assert await parts(store) == {*named, young, old}
    assert await store.sweep("docs") == 1
    assert await parts(store) == {*named, young}
    assert (await store.image("docs", "large")).document == LARGE


async def test_a_table_that_never_had_a_large_document_is_never_scanned(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(store, {"_id": 1})
    verbs = verbs_of(store, monkeypatch)
    assert await store.sweep_if_due("docs", 0.0) == 0
    assert await store.sweep_if_due("nowhere", 0.0) == 0
    assert verbs == ["update_item"] * 2


async def test_the_mark_is_there_before_the_first_part_and_is_made_once_by_a_process(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = verbs_of(store, monkeypatch)
    await insert(store, LARGE)
    assert verbs[0] == "update_item"
    assert verbs.count("update_item") == 1
    await insert(store, {**LARGE, "_id": "other"})
    assert verbs.count("update_item") == 1
    assert {each.document["_id"] async for page in store.find("docs", Query()) for each in page} == {
        "large",
        "other",
    }
    assert await store.count("docs", {}) == 2


async def test_of_many_processes_one_sweeps_in_a_period(
    store: DynamoStore, dynamodb_local_url: str, fresh_name: str
) -> None:
    await insert(store, LARGE)
    await orphan(store)
    assert await store.sweep_if_due("docs", DAY) == 0, "the period begins with the first large document"
    await backdate(store, 2 * DAY)
    async with opened(dynamodb_local_url, fresh_name) as other:
        deleted = await asyncio.gather(*(each.sweep_if_due("docs", DAY) for each in [store, other] * 10))
    assert sorted(deleted)[-2:] == [0, 1]
    await orphan(store)
    assert await store.sweep_if_due("docs", DAY) == 0


async def test_it_goes_on_after_a_failure_and_says_what_failed() -> None:
    asked: list[str] = []
    errors: list[Exception] = []
    swept: list[tuple[str, int]] = []
    done = asyncio.Event()

    class Failing:
        async def sweep_if_due(self, collection: str, every: float) -> int:
            asked.append(collection)
            if len(asked) < 3:
                raise OSError("no way there")
            return 2

    def on_swept(collection: str, deleted: int) -> None:
        swept.append((collection, deleted))
        done.set()

    task = asyncio.create_task(sweep_forever(Failing(), lambda: ["a"], 0.01, errors.append, on_swept))
    async with asyncio.timeout(30):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [type(each) for each in errors] == [OSError, OSError]
    assert swept[0] == ("a", 2)


async def test_a_running_application_sweeps_by_itself_and_ends_with_it(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    settings = shims.settings_for(
        tmp_path, mongo_url, dynamodb_local_url, mongo_database, ["things"], primary=StoreName.DYNAMO
    )
    raw = settings.model_copy(update={"dynamo": settings.dynamo.model_copy(update={"sweep_every": 0.2})})
    async with Shadow.from_settings(raw) as shadow:
        await shadow.prepare()
        await shadow["things"].insert_one(dict(LARGE))
        store = shadow._engine.runtime().stores[StoreName.DYNAMO]
        assert isinstance(store, DynamoStore)
        named = await parts(store, "things")
        await orphan(store, "things")

        async def only_named() -> bool:
            return await parts(store, "things") == named

        await until(only_named)
        assert await shadow["things"].find_one({"_id": "large"}) == LARGE
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "shadow-sweep"]


async def test_zero_means_never(tmp_path: Path) -> None:
    settings = shims.settings_for(tmp_path, "mongodb://127.0.0.1:1/", "http://127.0.0.1:1", "n", ["things"])
    off = settings.model_copy(update={"dynamo": DynamoSettings(sweep_every=0)})
    async with Shadow.from_settings(off):
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "shadow-sweep"]


# ---- the command line ----


def configuration(folder: Path, url: str, prefix: str) -> Path:
    path = folder / "shadow.yaml"
    content = {
        "dynamo": {
            "endpoint_url": url,
            "region": CREDENTIALS["region_name"],
            "access_key_id": CREDENTIALS["aws_access_key_id"],
            "secret_access_key": CREDENTIALS["aws_secret_access_key"],
            "table_prefix": settings_for(url, prefix).table_prefix,
        },
        "journal": {"url": f"sqlite:///{folder / 'journal.db'}"},
        "collections": {"docs": {}, "users": {"unique": ["email"]}},
    }
    path.write_text(yaml.safe_dump(content))
    return path


async def test_tables_sweep_counts_first_and_deletes_when_told(
    store: DynamoStore, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    await orphan(store)
    config = str(configuration(tmp_path, dynamodb_local_url, fresh_name))
    for arguments, deleted in (([], False), (["--apply"], True)):
        command = ["tables", "sweep", "--config", config, "--json", *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"left_behind": {"docs": 1, "users": 0}, "deleted": deleted}
    assert await parts(store) == set()


async def test_tables_check_unique_says_where_documents_share_a_value_and_no_value(
    store: DynamoStore, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    config = str(configuration(tmp_path, dynamodb_local_url, fresh_name))
    table = store._table("users").name
    command = ["tables", "check-unique", "--config", config, "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"checked": ["users"], "duplicates": {}})
    for key in ("one", "two"):
        item = {"_id": {"S": key}, "email": {"S": "same@secret"}}
        await store._gateway.call("put_item", table, TableName=table, Item=item)
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 1
    assert "2 documents share 1 values" in json.loads(result.stdout)["duplicates"]["users"]
    assert "secret" not in result.stdout
