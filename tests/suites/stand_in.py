"""What is put into a foreign suite: the object that stands in for its client, and a record of how its tests end.

It is copied beside the suite (`runs.py`) and imports nothing of these tests: a suite may have a package `tests` of its
own. One line of the suite is changed, so that its client or database goes through `client` or `database` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.errors import CollectionInvalid, OperationFailure

from shadow import Shadow
from shadow.config import Settings
from shadow.embedded.audit import dynamo_client

__all__ = ["begun", "client", "close", "created", "database"]

SITE: Final[dict[str, Any]] = json.loads(os.environ["SHADOW_SUITE"])
"""`settings` of the Shadow ({}: none stands in), `outcomes`: the file to write, `wipe`: empty tables for each test,
`parts` and `part`: which of how many parts of the tests are run, `left_out`: ends of names of those that never are,
`other_drivers`: fixtures of tests that never are, `own_clients`: parts of the names of tests whose own clients are
replaced too, `of_more_clients`: the collections of all clients but the first, `counts_nothing`: on two stores as
well."""

_outcomes: Final[dict[str, tuple[str, str]]] = {}
_made: Final[list[tuple[Any, Shadow]]] = []
"""Each client of the suite, and the Shadow that stands in for it. The clients are kept, so that ids stay their own."""


def _shadow(of: Any) -> Shadow:
    for known, shadow in _made:
        if known is of:
            return shadow
    settings = SITE["settings"]
    if _made and SITE["of_more_clients"]:
        settings = {**settings, "collections": {name: {} for name in SITE["of_more_clients"]}}
    shadow = Shadow.from_settings(Settings(**settings), mongo_client=of)
    _made.append((of, shadow))
    return shadow


def client(of: Any) -> Any:
    """What stands in for a driver's client."""
    return _shadow(of).client


def database(of: Any) -> Any:
    """What stands in for a driver's database."""
    return client(of.client)[of.name]


async def begun(of: Any) -> Any:
    """What stands in for a client that a test makes for itself, after its first requests of its own: such tests count
    what their client sends. On two stores the library sends other requests, so there the client stays the driver's, but
    for a suite that counts nothing there."""
    replaced = any(name in os.environ.get("PYTEST_CURRENT_TEST", "") for name in SITE["own_clients"])
    if not replaced or (not SITE["counts_nothing"] and SITE["settings"]["defaults"]["phase"] != "off"):
        return of
    made = client(of)
    for name in SITE["settings"]["collections"]:
        with contextlib.suppress(OperationFailure):  # a test before it may have made a view of that name
            await made[SITE["settings"]["mongo"]["database"]][name].delete_one({"_id": "nobody"})
    return made


async def created(database: Any, name: str, **options: Any) -> None:
    """Makes a collection that was dropped before; over two stores it is still there then (difference 510)."""
    with contextlib.suppress(CollectionInvalid):
        await database.create_collection(name, **options)


async def close(of: Any) -> None:
    """Ends what stands in for a client, in the event loop in which it was used."""
    for place, (known, shadow) in enumerate(_made):
        if known is of:
            del _made[place]
            await shadow.close()
            return


def _tables() -> list[str]:
    dynamo = SITE["settings"]["dynamo"]
    return [f"{dynamo['table_prefix']}{name}" for name in SITE["settings"]["collections"]]


def _wipe() -> None:
    server = dynamo_client(SITE["settings"]["dynamo"]["endpoint_url"])
    for table in _tables():
        key = [each["AttributeName"] for each in server.describe_table(TableName=table)["Table"]["KeySchema"]]
        for page in server.get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                server.delete_item(TableName=table, Key={name: item[name] for name in key})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    async def prepare() -> None:
        async with Shadow.from_settings(Settings(**SITE["settings"])) as shadow:
            await shadow.prepare()

    if SITE["settings"] and SITE["settings"]["defaults"]["phase"] != "off":
        asyncio.run(prepare())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    parts, part, never, others = SITE["parts"], SITE["part"], tuple(SITE["left_out"]), set(SITE["other_drivers"])
    left = [
        item
        for item in items
        if zlib.crc32(item.nodeid.encode()) % parts != part % parts
        or item.nodeid.endswith(never)
        or others & set(getattr(item, "fixturenames", ()))
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    if SITE["wipe"]:
        _wipe()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: Any) -> None:
    """A suite with a client for each test closes it, and its event loop, without a word to the Shadow."""
    if SITE["a_client_for_each_test"]:
        while _made:
            with contextlib.suppress(Exception):
                asyncio.run(_made.pop()[1].close())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    known = _outcomes.get(report.nodeid, ("", ""))
    if report.outcome == "passed":
        outcome = known if known[0] in ("failed", "skipped") else ("passed", "")
    elif known[0] == "failed":
        outcome = known
    else:
        outcome = report.outcome, _said(report)
    _outcomes[report.nodeid] = outcome


def _said(report: pytest.TestReport) -> str:
    """The last error in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])[:200]
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:200]


def pytest_sessionfinish() -> None:
    Path(SITE["outcomes"]).write_text(json.dumps(_outcomes))
