"""Commands that the server itself fails (`failCommand`), alone and in transactions: with a code and labels, by a
connection that ends, by a wait, by a write concern that is not met. The application hears what the bare driver hears,
nothing is lost or made twice, and both stores are equal afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo.errors import PyMongoError

from shadow import Shadow
from shadow.embedded.servers import Mongod
from tests.contract.test_sessions import session_of, shown, start
from tests.support import services
from tests.support.shadows import COLLECTION, Site

_LABELS: Final = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")

STEPS: Final[dict[str, Callable[..., Any]]] = {
    "start": lambda c, k, session: start(session),
    "insert": lambda c, k, session: c.insert_one({"_id": f"{k}new"}, session=session),
    "insert-many": lambda c, k, session: c.insert_many([{"_id": f"{k}a"}, {"_id": f"{k}b"}], session=session),
    "update": lambda c, k, session: c.update_one({"_id": f"{k}1"}, {"$inc": {"n": 10}}, session=session),
    "by-filter": lambda c, k, session: c.update_one({"name": f"{k}2"}, {"$inc": {"n": 1}}, session=session),
    "replace": lambda c, k, session: c.replace_one({"_id": f"{k}3"}, {"r": 1}, session=session),
    "delete": lambda c, k, session: c.delete_one({"_id": f"{k}4"}, session=session),
    "modify": lambda c, k, session: c.find_one_and_update({"_id": f"{k}1"}, {"$inc": {"n": 5}}, session=session),
    "bulk": lambda c, k, session: c.bulk_write([pymongo.InsertOne({"_id": f"{k}bulk"})], session=session),
    "commit": lambda c, k, session: session.commit_transaction(),
    "abort": lambda c, k, session: session.abort_transaction(),
}
_CLOSED: Final = {"closeConnection": True}
_SLOW: Final = {"blockConnection": True, "blockTimeMS": 20}
_NOT_REPLICATED: Final = {"code": 64, "errmsg": "waiting for replication timed out", "errInfo": {"wtimeout": True}}
_UNSATISFIABLE: Final = {"code": 100, "errmsg": "not enough data-bearing nodes"}
_AGAIN: Final = {"errorCode": 262, "errorLabels": ["RetryableWriteError"]}
_STEPPED_DOWN: Final = {"errorCode": 10107, "errorLabels": ["RetryableWriteError"]}
_COMMITS: Final = {"failCommands": ["commitTransaction"]}
_ABORTS: Final = {"failCommands": ["abortTransaction"]}
_NAMES: Final = ["insert", "update", "delete", "findAndModify"]
_WRITES: Final = {"failCommands": _NAMES}
_END: Final = "start insert update delete | commit commit"

PLAYS: Final[list[tuple[dict[str, Any], str]]] = [
    *(
        ({**_COMMITS, **fault}, _END)
        for fault in (
            _CLOSED,
            _SLOW,
            _STEPPED_DOWN,
            {"errorCode": 50},
            {"errorCode": 251, "errorLabels": ["TransientTransactionError"]},
            {"errorCode": 8},
            {"writeConcernError": _NOT_REPLICATED},
            {"writeConcernError": _UNSATISFIABLE},
        )
    ),
    *(({**_ABORTS, **fault}, "start update delete | abort") for fault in (_CLOSED, _SLOW, {"errorCode": 251})),
    *(
        ({**_WRITES, **fault}, f"start update delete | {verb} abort")
        for fault, verbs in (
            (_CLOSED, ("insert", "modify")),
            (_SLOW, ("insert",)),
            ({"errorCode": 112}, ("insert", "insert-many", "by-filter", "replace", "modify", "bulk")),
            ({"errorCode": 8}, ("insert", "by-filter", "bulk")),
        )
        for verb in verbs
    ),
    *(
        ({**_WRITES, **fault}, f"| {verb}")
        for fault, verbs in (
            (_CLOSED, ("insert", "modify")),
            (_SLOW, ("insert", "replace")),
            (_AGAIN, ("insert", "insert-many", "by-filter", "bulk")),
            ({"errorCode": 8}, ("insert", "insert-many", "update", "by-filter", "replace", "delete", "modify", "bulk")),
        )
        for verb in verbs
    ),
]
"""A fault, and the steps before it (`|`) and under it. One command fails, and the driver's own second try succeeds. Of
two that fail the driver repeats both where its call has a time limit, as shadow's have, and else one."""


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    """A server that takes orders on how to fail."""
    with services.start(lambda: Mongod(extra=("--setParameter", "enableTestCommands=1"))) as made:
        yield made


@contextmanager
def failing(admin: Any, fault: dict[str, Any], whose: dict[str, Any]) -> Iterator[None]:
    point = {"configureFailPoint": "failCommand"}
    admin.command({**point, "mode": {"times": 1}, "data": {**whose, **fault}})
    try:
        yield
    finally:
        admin.command({**point, "mode": "off"})


async def heard(call: Callable[[], Any]) -> Any:
    """What a call answers, or its error: class, code and labels."""
    try:
        answer = call()
        return shown(await answer if inspect.isawaitable(answer) else answer)
    except PyMongoError as error:
        labels = [each for each in _LABELS if error.has_error_label(each)]
        return type(error).__name__, getattr(error, "code", None), labels


class Stage:
    """Plays on one collection of one client, each on documents of its own."""

    def __init__(self, admin: Any, app: str, shadow: Shadow, target: Any) -> None:
        self._admin, self._app, self._shadow, self._target = admin, app, shadow, target

    async def played(self, number: int) -> list[Any]:
        fault, steps = PLAYS[number]
        before, _, under = steps.partition("|")
        key = f"{number}."
        await self._target.insert_many([{"_id": f"{key}{n}", "name": f"{key}{n}", "n": n} for n in range(5)])
        async with session_of(self._shadow) as session:
            answers = [await heard(lambda: STEPS[each](self._target, key, session)) for each in before.split()]  # noqa: B023
            with failing(self._admin, fault, self._whose(fault)):
                answers += [await heard(lambda: STEPS[each](self._target, key, session)) for each in under.split()]  # noqa: B023
            # An abort that did not arrive would hold its documents for a minute.
            self._admin.command("killSessions", [{"id": session.session_id["id"]}])
        return answers

    def _whose(self, fault: dict[str, Any]) -> dict[str, Any]:
        """What shadow writes beside (its own records) must not take a failure that is meant for a write of the
        application; the end of a transaction names no collection."""
        of_writes = {"namespace": f"{self._app}.{self._target.name}"} if fault["failCommands"] == _NAMES else {}
        return {"appName": self._app, **of_writes}

    async def documents(self) -> list[Any]:
        return sorted(await self._target.find({}).to_list(None), key=lambda each: str(each["_id"]))


@pytest.mark.takes_turns
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_what_fails_is_heard_as_from_the_driver_and_nothing_is_lost_or_doubled(
    driver: str,
    server: Mongod,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A driver that lost a connection looks for its server again half a second later.
    monkeypatch.setattr("pymongo.common.MIN_HEARTBEAT_INTERVAL", 0.02)
    url = f"{server.url}&appName={fresh_name}"
    limits = {"operation": 5.0, "write_deadline": 5.0}
    site = Site(url, fresh_name, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"), limits=limits)
    different = {}
    with pymongo.MongoClient[dict[str, Any]](server.url) as operator:
        async with site.but(driver=driver).shadow() as shadow:
            await shadow.prepare()
            admin = operator.admin
            bare = Stage(admin, fresh_name, shadow, shadow._engine.driver()["bare"])
            ours = Stage(admin, fresh_name, shadow, shadow[COLLECTION])
            for number, play in enumerate(PLAYS):
                expected, found = await bare.played(number), await ours.played(number)
                if found != expected:
                    different[str(play)] = (expected, found)
            assert different == {}
            assert await ours.documents() == await bare.documents()
            await site.level(shadow)
