"""What all tests share: real servers, started once and on demand, and real documents.

A server that cannot be had fails the test in CI and skips it elsewhere (`support.services`). Nothing here starts
unless a test asks for it by name.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pymongo
import pytest

from shadow.embedded.servers import DynamoDBLocal, FaultProxy, Ministack, Mongod
from shadow.errors import ShadowError
from tests.support import documents, dynamodb_local, services
from tests.support.topologies import DEPLOYMENTS, ReplicaSet, SecuredMongod, admit, root_url

_ORDER: Final = ("unit", "contract", "compat", "faults", "races", "e2e", "bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: whoever waits for a failure waits less."""

    def place(item: pytest.Item) -> int:
        folders = [_ORDER.index(part) for part in item.path.parts if part in _ORDER]
        return folders[-1] if folders else len(_ORDER)

    items.sort(key=place)


class _LostTasks(logging.Handler):
    """What asyncio says of tasks and errors that nobody looks after any more. It says so when memory is collected: the
    test that hears of it may be a later one than the test that lost it."""

    _LOST = ("was never retrieved", "was destroyed but it is pending", "was never awaited")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if any(each in said for each in self._LOST):
            error = record.exc_info[1] if record.exc_info else None
            self.heard.append(f"{said} {error!r}")

    def take(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard


_lost_tasks: Final = _LostTasks()


def pytest_configure(config: pytest.Config) -> None:
    logging.getLogger("asyncio").addHandler(_lost_tasks)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    if heard := _lost_tasks.take():
        pytest.fail("in this test or one before it:\n" + "\n".join(heard), pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What the last test has lost is found by no later one."""
    gc.collect()
    if heard := _lost_tasks.take():
        print("\n".join(["", "lost at the end of the run:", *heard]), file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _dynamodb_local_home() -> Any:
    try:
        return dynamodb_local.home()
    except ShadowError as error:
        services.missing("DynamoDB Local", error)


@pytest.fixture(scope="session")
def mongo_url(request: pytest.FixtureRequest) -> str:
    """A MongoDB that all tests share; don't stop it, and use `mongo_database`. One server, or the deployment of
    `topologies.DEPLOYMENTS` that a test names by indirect parametrization."""
    url: str = request.getfixturevalue(DEPLOYMENTS[getattr(request, "param", "one")])
    return url


@pytest.fixture(scope="session")
def one_mongod_url() -> Iterator[str]:
    """One server (SHADOW_MONGO_URL, else one of our own)."""
    given = os.environ.get("SHADOW_MONGO_URL")
    if given:
        yield given
        return
    with services.start(Mongod) as server:
        yield server.url


@pytest.fixture(scope="session")
def replica_set() -> Iterator[ReplicaSet]:
    """A replica set of three members that all tests share; what a test does to it has to end with the test."""
    with services.start(ReplicaSet) as server:
        yield server


@pytest.fixture(scope="session")
def replica_set_url(replica_set: ReplicaSet) -> str:
    return replica_set.url


@pytest.fixture(scope="session")
def least_role_url() -> Iterator[str]:
    """A server with authorization, and a user who has `readWrite` on the databases that it was admitted to."""
    with services.start(SecuredMongod) as server:
        yield server.url


@pytest.fixture(scope="session")
def dynamodb_local_url() -> Iterator[str]:
    """A DynamoDB that all tests share (SHADOW_DYNAMO_URL, else a DynamoDB Local of our own). Prefix your tables."""
    given = os.environ.get("SHADOW_DYNAMO_URL")
    if given:
        yield given
        return
    home = _dynamodb_local_home()
    with services.start(lambda: DynamoDBLocal(home)) as server:
        yield server.url


@pytest.fixture(scope="session")
def ministack_url() -> Iterator[str]:
    """A ministack that all tests share. Prefix your tables."""
    with services.start(Ministack) as server:
        yield server.url


@pytest.fixture
def fresh_name() -> str:
    """A name that no other test has: a prefix of tables, a database."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def mongo_database(mongo_url: str, fresh_name: str) -> Iterator[str]:
    """The name of an empty database at `mongo_url`, dropped after the test."""
    admit(mongo_url, fresh_name)
    yield fresh_name
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        client.drop_database(fresh_name)


@pytest.fixture
def least_role_database(least_role_url: str, fresh_name: str) -> Iterator[str]:
    """The name of an empty database at `least_role_url`, the only one where its user may do anything."""
    admit(least_role_url, fresh_name)
    yield fresh_name
    with pymongo.MongoClient[dict[str, Any]](root_url(least_role_url)) as client:
        client.drop_database(fresh_name)


@pytest.fixture
def new_mongod() -> Iterator[Callable[..., Mongod]]:
    """Starts a `Mongod` (with its arguments) that the test may kill, pause and restart; it is gone after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(services.start(lambda: Mongod(**options)))


@pytest.fixture
def new_replica_set() -> Iterator[Callable[[], ReplicaSet]]:
    """Starts a `ReplicaSet` for one test, which may do to its members what it likes."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(services.start(ReplicaSet))


@pytest.fixture
def new_dynamodb_local() -> Iterator[Callable[..., DynamoDBLocal]]:
    """Starts a `DynamoDBLocal` for one test; `persistent=True` keeps its data over a restart."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            services.start(lambda: DynamoDBLocal(_dynamodb_local_home(), **options))
        )


@pytest.fixture
def new_ministack() -> Iterator[Callable[..., Ministack]]:
    """Starts a `Ministack` for one test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(services.start(lambda: Ministack(**options)))


@pytest.fixture
def new_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Starts a `FaultProxy` before the server at a url; `proxy.url` is the same url with the proxy's port."""
    with ExitStack() as stack:

        def make(url: str) -> FaultProxy:
            return stack.enter_context(FaultProxy.before(url))

        yield make


@pytest.fixture(scope="session")
def real_documents() -> dict[str, list[dict[str, Any]]]:
    """Collection name to real documents. All tests share them: copy before changing."""
    try:
        return documents.load()
    except FileNotFoundError as error:
        services.missing("the real documents", error)
