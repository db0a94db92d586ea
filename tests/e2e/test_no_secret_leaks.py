"""Secrets go in through every door (values, keys, names of fields, filters, faulty calls, configuration), everything
goes wrong that can, and no log line, metric, status, page, finding or message of ours holds one."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from bson import Binary, Decimal128, ObjectId
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from pymongo.errors import DuplicateKeyError, PyMongoError
from typer.testing import CliRunner

from shadow import Shadow, UnsupportedOperation
from shadow.cli import app
from shadow.config import Settings, parse
from shadow.embedded.audit import Audit
from shadow.embedded.servers import FaultProxy
from shadow.errors import ConfigurationError, ShadowError
from shadow.model.phase import StoreName
from shadow.model.version import Image, Version
from shadow.web import AdminService
from tests.support.shadows import LIMITS

SECRET: Final = "hunter2"
HEX: Final = SECRET.encode().hex()
OBJECT_ID: Final = ObjectId(HEX.ljust(24, "0"))
PASSWORD: Final = "correct-horse-hunter2"

REVEALED: Final = "revealed-on-request"

_TIME: Final = re.compile(r"\d\d:\d\d:\d\d\.\d+")
"""Of a line of the log: one in a hundred ends as the price does."""


class Ears(logging.Handler):
    """Everything that any logger says, with the tracebacks that go with it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "shadow":
            trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self.lines.append(f"{record.getMessage()} {trace}")


@pytest.fixture
def ears() -> Any:
    heard, logger = Ears(), logging.getLogger("shadow")
    before = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.DEBUG)
    yield heard
    logger.removeHandler(heard)
    logger.setLevel(before)


@pytest.fixture
async def told(
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    new_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
) -> AsyncIterator[tuple[Shadow, FaultProxy, Audit]]:
    proxy = new_proxy(dynamodb_local_url)
    settings = Settings(
        mongo={"url": mongo_url, "database": mongo_database, "driver": "pymongo"},
        dynamo={
            "endpoint_url": proxy.url,
            "table_prefix": f"{mongo_database}-",
            "access_key_id": "local",
            "secret_access_key": PASSWORD,
            "read_timeout": 1.0,
            "max_attempts": 1,
        },
        journal={"url": f"sqlite:///{tmp_path / 'shadow.db'}"},
        limits={**LIMITS, "minimum_age": 0.1, "index_age": 0.2},
        observe={"holdout": 0.0, "noise_share": 0.5, "canary_every": 0.5, "hash_secret": PASSWORD},
        collections={
            "people": {
                "indexes": [{"name": "email-index", "hash": "email"}],
                "unique": ["email"],
                "compare": [{"rule": "ignore", "name": "seen", "path": "seen"}],
                "reveal_fields": ["title"],
            },
            "things": {},
        },
    )
    async with Shadow(settings) as shadow:
        await shadow.prepare()
        yield (
            shadow,
            proxy,
            Audit(mongo_url, mongo_database, dynamodb_local_url, f"{mongo_database}-", settings.specs()),
        )


def person(key: Any, number: int) -> dict[str, Any]:
    return {
        "_id": key,
        "email": f"{SECRET}-{number}@example.org",
        "title": REVEALED,
        "tags": [SECRET, {"deep": SECRET}],
        "by": {f"{SECRET}-1@example.org": SECRET},
        "raw": Binary(SECRET.encode()),
        "id": OBJECT_ID,
        "price": Decimal128("19.99"),
        "seen": SECRET,
    }


KEYS: Final[list[Any]] = [SECRET, f"{SECRET}-key", OBJECT_ID, {"tenant": SECRET}, "plain", "gone", "lost", "excused"]


async def everything_goes_wrong(shadow: Shadow, proxy: FaultProxy) -> list[BaseException]:
    """Answers what was raised in the application."""
    people = shadow["people"]
    await people.insert_many([person(key, number) for number, key in enumerate(KEYS)])
    assert await shadow.settled(90)
    await damage(shadow)
    raised = await faulty_calls(shadow)
    for key in KEYS:
        await people.find_one({"_id": key})
    await people.find({"tags": SECRET}).sort("email", 1).to_list(None)
    await people.find({"email": f"{SECRET}-1@example.org"}).to_list(None)
    await people.distinct("tags", {"seen": SECRET})
    await people.count_documents({"email": {"$regex": SECRET}})
    await people.aggregate([{"$match": {"seen": SECRET}}, {"$group": {"_id": "$email"}}]).to_list(None)
    await people.update_one({"_id": "plain"}, {"$set": {"title": SECRET}})
    await until(lambda: kinds(shadow) >= {"value", "type", "version_lost"} and len(shadow.admin.findings) >= 5)
    proxy.mode = "refuse"
    for number in range(8):
        await people.update_one({"_id": KEYS[number % 4]}, {"$set": {"title": f"{SECRET} {number}"}})
        await people.find_one({"_id": KEYS[number % 4]})
    await until(lambda: not shadow._engine.runtime().breakers[StoreName.DYNAMO].closed)
    proxy.clear()
    return raised


def kinds(shadow: Shadow) -> set[str]:
    return {each["kind"] for each in shadow.admin.findings.list()}


async def damage(shadow: Shadow) -> None:
    dynamo = shadow._engine.runtime().stores[StoreName.DYNAMO]
    changes: dict[int, dict[str, Any]] = {
        0: {"tags": [SECRET, SECRET]},
        1: {"by": {f"{SECRET}-2@example.org": SECRET}},
        2: {"email": 5},
        3: {"id": SECRET},
        4: {"smuggled": SECRET},
        7: {"seen": f"{SECRET}!"},
    }
    for place, change in changes.items():
        seen = await dynamo.image("people", KEYS[place])
        assert seen.document is not None
        assert await dynamo.put("people", KEYS[place], Image(seen.state, {**seen.document, **change}), seen.state)
    gone = await dynamo.image("people", "lost")
    assert await dynamo.put("people", "lost", Image(Version(SECRET[:3], 9), {"_id": "lost", "x": SECRET}), gone.state)


async def faulty_calls(shadow: Shadow) -> list[BaseException]:
    """Calls that are refused by us, by MongoDB, or by both stores."""
    people, things = shadow["people"], shadow["things"]
    calls: list[Callable[[], Any]] = [
        lambda: people.insert_one(person(SECRET, 99)),
        lambda: people.insert_one(person("another", 0)),
        lambda: people.insert_many([person("third", 0), person(SECRET, 3)]),
        lambda: people.find_one({"$where": SECRET}),
        lambda: people.find_one({"a": {f"${SECRET}": 1}}),
        lambda: people.find_one({"a": {"$regex": f"({SECRET}"}}),
        lambda: people.update_one({"_id": SECRET}, {"$inc": {"email": 1}}),
        lambda: people.update_one({"_id": SECRET}, {f"${SECRET}": {"a": 1}}),
        lambda: people.update_one({"_id": SECRET}, {"$set": {"_shadow": SECRET}}),
        lambda: people.insert_one({"_shadow": SECRET}),
        lambda: people.insert_one({"a": {SECRET}}),
        lambda: people.aggregate([{"$out": SECRET}]).to_list(None),
        lambda: people.aggregate([{"$project": {"x": {"$divide": ["$email", 0]}}}]).to_list(None),
        lambda: people.find_one({"_id": SECRET}, hint=SECRET),
        lambda: people.find({}, {"a": 1, "b": 0, SECRET: 1}).to_list(None),
        lambda: people.replace_one({"_id": SECRET}, {"_id": f"other-{SECRET}"}),
        lambda: things.count_documents({"a": {"$in": SECRET}}),
        lambda: shadow.admin.heal("people", [SECRET]),
    ]
    raised: list[BaseException] = []
    for call in calls:
        try:
            result = call()
            await result
        except Exception as error:
            raised.append(error)
    assert len(raised) >= 14
    return raised


async def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def everything_that_is_served(shadow: Shadow) -> dict[str, str]:
    """Every page of the admin router, with those of each finding and of some that do not exist."""
    app = FastAPI()
    router = shadow.admin_router()
    app.include_router(router)
    served: dict[str, str] = {}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
        paths = [route.path for route in router.routes if "GET" in route.methods and "{" not in route.path]
        ids = [each["id"] for each in (await client.get("/findings")).json()["findings"]]
        assert len(ids) >= 5
        paths += [*(f"/findings/{each}" for each in ids), "/findings/none", "/console/none"]
        for path in paths:
            answer = await client.get(path)
            served[path] = f"{answer.headers} {answer.text}"
        assert answer.status_code == 404
        openmetrics = {"Accept": "application/openmetrics-text"}
        served["openmetrics"] = (await client.get("/metrics", headers=openmetrics)).text
    assert {"/metrics", "/status", "/readyz", "/findings", "/console"} <= served.keys()
    return served


def leaks(text: str) -> list[str]:
    """The secrets in a text, in any of the forms that they may take."""
    forms = (SECRET, HEX, PASSWORD, REVEALED, "aHVudGVyM", "19.99")
    said = _TIME.sub("", text).lower()
    return [form for form in forms if form.lower() in said]


async def test_no_secret_comes_out_anywhere(told: tuple[Shadow, FaultProxy, Audit], ears: Ears) -> None:
    shadow, proxy, _ = told
    raised = await everything_goes_wrong(shadow, proxy)
    served = await everything_that_is_served(shadow)
    assert {path: found for path, text in served.items() if (found := leaks(text))} == {}
    assert any("mismatch.confirmed" in line for line in ears.lines)
    assert any("secondary.down" in line for line in ears.lines)
    assert [line for line in ears.lines if leaks(line)] == []
    for text in (repr(shadow), repr(shadow.admin.settings), repr(shadow["people"]), str(await shadow.admin.status())):
        assert leaks(text) == []
    for error in raised:
        if is_ours(error):
            assert leaks(str(error)) == [], type(error)


def is_ours(error: BaseException) -> bool:
    """Messages that we make. The drivers' own, which the application would get without us too, quote what they like;
    a refusal names the operator that the application wrote, which here is a secret by design."""
    if isinstance(error, UnsupportedOperation):
        return f"${SECRET}" not in str(error)
    return isinstance(error, ShadowError) and not isinstance(error, PyMongoError | DuplicateKeyError)


async def test_values_come_out_by_the_call_that_is_made_for_it_and_only_those_that_are_allowed(
    told: tuple[Shadow, FaultProxy, Audit], ears: Ears
) -> None:
    shadow, _, audit = told
    await shadow["people"].insert_one(person(SECRET, 1))
    assert await shadow.settled(90)
    await asyncio.to_thread(audit.damage, "people", SECRET, "title", {"S": "another title"})
    await asyncio.to_thread(audit.damage, "people", SECRET, "email", {"S": f"other-{SECRET}"})
    await shadow["people"].find_one({"_id": SECRET})
    await until(lambda: len(shadow.admin.findings))
    (finding,) = shadow.admin.findings.list()
    shown = await AdminService(shadow.admin).reveal(finding["id"], "an operator's reason")
    assert [each["path"] for each in shown["values"]] == ["title"]
    assert REVEALED in str(shown)
    assert leaks(str(shown).replace(REVEALED, "")) == []
    audited = [line for line in ears.lines if "reveal" in line]
    assert len(audited) == 1
    assert "an operator's reason" in audited[0]
    assert leaks(audited[0]) == []


@pytest.mark.parametrize(
    "text",
    [
        f"mongo: {{url: 'mysql://root:{PASSWORD}@h'}}",
        f"mongo: {{url: 'mongodb://root:{PASSWORD}@h', driver: 5}}",
        f"dynamo: {{secret_access_key: [{PASSWORD}]}}",
        f"observe: {{hash_secret: {{a: {PASSWORD}}}}}",
        f"observe: {PASSWORD}",
        f"admin: {{token: {PASSWORD[:10]}}}",
        f"journal: {{url: 'mysql://root:{PASSWORD}@h/x'}}",
    ],
)
def test_a_fault_in_the_configuration_names_no_secret_of_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as fault:
        parse(text, {})
    assert leaks(str(fault.value)) == []
    assert PASSWORD[:10] not in str(fault.value)


COMMANDS: Final = """\
config check
config show
tables plan
tables plan --json
tables export cloudformation
tables export terraform
tables export iam --for application --for jobs
assess --whole
assess --whole --json
verify people
verify people --restart --json
repair plan people {folder}/plan
repair plan people {folder}/plan-2 --json
repair apply {folder}/plan --log {folder}/undo
backfill
backfill --restart --json
jobs list
jobs list --json
journal list
journal list --json
journal heal
findings list --file {folder}/shadow.findings --json
flip people --to dynamo --dry-run
flip people --to dynamo
flip people --to dynamo --json
flip people --to dynamo --rehearse
complete people --on mongo
complete people --on mongo --json
fleet list
fleet list --json
fleet receipts
fleet receipts --json
finalize people --store dynamo
finalize people --store dynamo --json
"""


def run(config: Path, line: str) -> tuple[int, str]:
    """A command in this process: its exit code, and everything that it printed or raised."""
    arguments = line.format(folder=config.parent).split()
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*arguments, "--config", str(config)])
    if result.exception is not None:
        # the program prints the message of the second, and ends
        assert isinstance(result.exception, SystemExit | ShadowError), line
    return result.exit_code, f"{result.stdout}\n{result.stderr}\n{result.exception}"


@pytest.mark.takes_turns
async def test_no_secret_comes_out_of_the_command_line(
    told: tuple[Shadow, FaultProxy, Audit], ears: Ears, tmp_path: Path
) -> None:
    shadow, proxy, _ = told
    people = shadow["people"]
    await people.insert_many([person(key, number) for number, key in enumerate(KEYS)])
    assert await shadow.settled(90)
    await damage(shadow)
    proxy.mode = "refuse"
    await people.update_one({"_id": KEYS[5]}, {"$set": {"title": SECRET}})
    proxy.clear()
    config = tmp_path / "shadow.yaml"
    config.write_text(yaml.safe_dump(written_out(shadow.admin.settings)), encoding="utf-8")
    said: dict[str, tuple[int, str]] = {}
    for line in COMMANDS.splitlines():
        said[line] = await asyncio.to_thread(run, config, line)
    assert {line: found for line, (_, text) in said.items() if (found := leaks(text))} == {}
    assert [line for line in ears.lines if leaks(line)] == []
    codes = {line: code for line, (code, _) in said.items()}
    assert codes["verify people"] == 1, said["verify people"]
    assert codes["repair plan people {folder}/plan"] == 0, said
    assert codes["flip people --to dynamo"] == 1, said["flip people --to dynamo"]


def written_out(settings: Settings) -> dict[str, Any]:
    """Settings as a file would have them, the secrets among them."""

    def plain(value: Any) -> Any:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    chosen: dict[str, Any] = plain(settings.model_dump(exclude_unset=True))
    return chosen
