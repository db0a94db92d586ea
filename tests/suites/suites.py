"""The suites that are run, and the one line of each that is changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["MODES", "SUITES", "Line", "Suite"]

MODES: Final = {
    "off": {"primary": "mongo", "phase": "off"},
    "shadow": {"primary": "mongo", "phase": "shadow"},
    "dynamo": {"primary": "dynamo", "phase": "shadow"},
}
"""What a suite is run with besides the bare driver."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line of a file of the suite, and what stands there instead."""

    file: str
    old: str
    new: str

    def put_in(self, folder: Path) -> None:
        """Raises `LookupError` if the line is not there: the suite is another one then."""
        path = folder / self.file
        text = path.read_text("utf-8")
        if self.old not in text:
            raise LookupError(f"{self.file} has no line {self.old!r} any more: change tests/suites/suites.py")
        path.write_text(text.replace(self.old, self.new), "utf-8")


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """One suite: what of the archive is run, and how the library gets into it."""

    archive: str
    """The folder of the unpacked archive begins with it."""
    root: str
    """Of the archive: what is copied."""
    files: tuple[str, ...]
    database: str
    collections: tuple[str, ...]
    """Those that the library keeps on two stores; all others stay the driver's."""
    driver: str
    objects: tuple[Line, ...]
    """The one line that makes the client or the database, in each file that has one of its own."""
    address: tuple[Line, ...] = ()
    """Where the suite looks for the server, if it has no setting for that. `{url}`: of the server."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """`{host}`, `{port}`: of the server."""
    options: tuple[str, ...] = ()
    parts: int = 1
    """A run has one of so many parts of its tests, drawn; a long one has all."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The end of a test's name to the reason why it is not run at all, bare neither."""
    other_drivers: tuple[str, ...] = ()
    """Fixtures of other clients than the library stands in for: no test that asks for one is run."""
    wipe: bool = False
    """It drops its database by another client."""
    a_client_for_each_test: bool = True
    of_more_clients: tuple[str, ...] = ()
    """Of `collections`, those of the clients that a test makes besides the one that all share: each client starts what
    it names. Empty: all."""
    own_clients: tuple[str, ...] = ()
    """Parts of the names of tests whose own clients are replaced too, besides the one that all tests share."""
    specifications: tuple[str, ...] = ()
    """Folders of the archive with specifications as JSON: see `specifications.py`."""


_STAND_IN: Final = "__import__('shadow_stand_in')"
_CLIENT: Final = _STAND_IN + ".client({})"
_COLLECTIONS: Final[dict[str, list[str]]] = json.loads(Path(__file__).with_name("collections.json").read_text("utf-8"))
_OF_BEANIE: Final = "AsyncMongoClient(settings.mongodb_dsn)"
_MIGRATIONS: Final = (
    "import beanie.migrations.database as _of; _driver = _of.AsyncMongoClient; "
    f"_of.AsyncMongoClient = lambda url: {_CLIENT.format('_driver(url)')}"
)
_CLEANS_WHAT_IT_USED: Final = (
    (
        "\nTESTING_MODELS = [",
        "\nfrom beanie.odm.interfaces.getters import OtherGettersInterface as _of\n"
        "_used, _get = set(), _of.get_pymongo_collection.__func__\n"
        "_of.get_pymongo_collection = classmethod(lambda cls: (_used.add(_get(cls).name), _get(cls))[1])\n"
        "TESTING_MODELS = [",
    ),
    (
        "            collection = model.get_pymongo_collection()\n",
        "            collection = model.get_settings().pymongo_collection\n"
        "            if collection.name not in _used:\n"
        "                continue\n",
    ),
    ("    await _cleanup()\n    yield\n    await _cleanup()\n", "    yield\n    await _cleanup()\n    _used.clear()\n"),
)
"""Each test of Beanie's empties ninety collections, before and after; here those that it has asked for."""
_ON_A_SET_CLOCK: Final = (
    *(f"test_cache.py::test_{name}" for name in ("find_one", "find_many", "aggregation")),
    *(f"test_update.py::test_update_many_upsert_{name}_insert" for name in ("with", "without")),
)
_ONE_LOOP: Final = ("asyncio_default_fixture_loop_scope=session", "asyncio_default_test_loop_scope=session")
_USERS: Final = ("test_access_token.py", "test_fastapi_users_db_beanie.py")
_OF_PYMONGO: Final = (
    Line(
        "test/asynchronous/__init__.py",
        "        self.client = async_client_context.client\n        self.db",
        f"        self.client = {_CLIENT.format('async_client_context.client')}\n        self.db",
    ),
    Line(
        "test/asynchronous/__init__.py",
        "            await client.aconnect()\n        self.addAsyncCleanup(client.close)\n        return client\n",
        "            await client.aconnect()\n        self.addAsyncCleanup(client.close)\n"
        f"        self.addAsyncCleanup({_STAND_IN}.close, client)\n        return await {_STAND_IN}.begun(client)\n",
    ),
)
"""The client that all tests share, and those that a test makes for itself."""
_UNIFIED: Final = "test/asynchronous/unified_format.py"

SUITES: Final[dict[str, Suite]] = {
    "beanie": Suite(
        archive="beanie",
        root="tests",
        files=("tests/odm", "tests/fastapi", "tests/migrations"),
        database="beanie_db",
        collections=tuple(_COLLECTIONS["beanie"]),
        driver="pymongo",
        objects=(
            Line("tests/conftest.py", "        yield client\n", f"        yield {_CLIENT.format('client')}\n"),
            *(
                Line(f"tests/{name}", _OF_BEANIE, _CLIENT.format(_OF_BEANIE))
                for name in ("odm/documents/test_init.py", "odm/test_concurrency.py")
            ),
            Line(
                "tests/fastapi/app.py",
                "AsyncMongoClient(Settings().mongodb_dsn)",
                _CLIENT.format("AsyncMongoClient(Settings().mongodb_dsn)"),
            ),
            Line(
                "tests/migrations/conftest.py",
                "\n\n@pytest.fixture(autouse=True)\nasync def init(",
                f"\n{_MIGRATIONS}\n\n@pytest.fixture(autouse=True)\nasync def init(",
            ),
        ),
        address=(
            Line(
                "tests/fastapi/conftest.py",
                "from asgi_lifespan import LifespanManager\n",
                "LifespanManager = lambda app, **_: app.router.lifespan_context(app)\n",
            ),
            *(Line("tests/odm/conftest.py", old, new) for old, new in _CLEANS_WHAT_IT_USED),
        ),
        of_more_clients=(
            *("SampleModel2", "NewDocument"),
            *("House", "HouseAPI", "Person", "WindowAPI", "DoorAPI", "RoofAPI", "migrations_log", "notes"),
        ),
        environment={"MONGODB_DSN": "mongodb://{host}:{port}/beanie_db"},
        options=_ONE_LOOP,
        parts=8,
        left_out=dict.fromkeys(_ON_A_SET_CLOCK, "it needs time-machine, which is not installed for these tests"),
        a_client_for_each_test=False,
    ),
    "odmantic": Suite(
        archive="odmantic",
        root="tests",
        files=tuple(
            f"tests/integration/test_{name}.py"
            for name in ("embedded_model", "engine", "engine_reference", "index", "query", "session", "types", "zoo")
        ),
        database="odmantic_test",
        collections=tuple(_COLLECTIONS["odmantic"]),
        driver="motor",
        objects=(
            Line(
                "tests/integration/conftest.py",
                '    yield client\n    client.close()\n\n\n@pytest.fixture(scope="session")\ndef pymongo',
                f"    yield {_CLIENT.format('client')}\n    client.close()\n\n\n"
                '@pytest.fixture(scope="session")\ndef pymongo',
            ),
        ),
        address=(
            Line(
                "tests/integration/conftest.py",
                "AsyncIOMotorClient(mongo_uri, io_loop=event_loop)",
                "AsyncIOMotorClient(mongo_uri)",
            ),
            Line("tests/integration/conftest.py", "@pytest.mark.asyncio\n@pytest.fixture", "@pytest.fixture"),
            Line("tests/integration/conftest.py", 'f"odmantic-test-{uuid4()}"', '"odmantic_test"'),
            *(
                Line(
                    f"tests/integration/test_{name}.py",
                    "from inline_snapshot import snapshot",
                    "snapshot = lambda value: value",
                )
                for name in ("engine", "engine_reference")
            ),
        ),
        environment={"TEST_MONGO_URI": "mongodb://{host}:{port}", "TEST_MONGO_MODE": "replicaSet"},
        options=_ONE_LOOP,
        parts=2,
        a_client_for_each_test=False,
        other_drivers=("sync_engine", "pymongo_client"),
    ),
    "fastapi-users-db-beanie": Suite(
        archive="fastapi_users_db_beanie",
        root="tests",
        files=tuple(f"tests/{name}" for name in _USERS),
        database="test_database",
        collections=("User", "UserOAuth", "AccessToken"),
        driver="pymongo",
        objects=tuple(
            Line(
                f"tests/{name}",
                "        yield client\n",
                f"        yield {_CLIENT.format('client')}\n",
            )
            for name in _USERS
        ),
        address=tuple(Line(f"tests/{name}", "mongodb://localhost:27017", "{url}") for name in _USERS),
    ),
    "umongo": Suite(
        archive="umongo",
        root="tests",
        files=("tests/frameworks/test_motor_asyncio.py",),
        database="umongo_test",
        collections=("student", "teacher", "course", "simple_index_doc", "unique_index_doc", "book"),
        driver="motor",
        objects=(
            Line(
                "tests/frameworks/test_motor_asyncio.py",
                "return AsyncIOMotorClient()[TEST_DB]",
                f"return {_STAND_IN}.database(AsyncIOMotorClient()[TEST_DB])",
            ),
        ),
        address=(
            Line("tests/common.py", "pymongo.MongoClient()", 'pymongo.MongoClient("{url}")'),
            Line("tests/frameworks/test_motor_asyncio.py", "AsyncIOMotorClient()", 'AsyncIOMotorClient("{url}")'),
        ),
        wipe=True,
    ),
    "motor": Suite(
        archive="motor",
        root="test",
        files=tuple(
            f"test/asyncio_tests/test_asyncio_{name}.py"
            for name in ("await", "basic", "collection", "cursor", "database", "session")
        ),
        database="motor_test",
        collections=("test_collection", "test", "foo"),
        driver="motor",
        objects=(
            Line(
                "test/asyncio_tests/__init__.py",
                "self.cx = self.asyncio_client()",
                f"self.cx = {_CLIENT.format('self.asyncio_client()')}",
            ),
        ),
        environment={"DB_IP": "{host}", "DB_PORT": "{port}", "ASYNC_TEST_TIMEOUT": "60"},
        parts=3,
    ),
    "pymongo": Suite(
        archive="pymongo",
        root="test",
        files=tuple(
            f"test/asynchronous/test_{name}.py"
            for name in ("collection", "cursor", "bulk", "database", "session", "transactions")
        ),
        database="pymongo_test",
        collections=("test", "test2", "drop", "bulk"),
        driver="pymongo",
        objects=_OF_PYMONGO,
        environment={"DB_IP": "{host}", "DB_PORT": "{port}"},
        options=_ONE_LOOP,
        parts=6,
        own_clients=("test_session.py", "test_transactions.py"),
        left_out={
            "test_transaction_starts_with_batched_write": "48 MB in one transaction: more than the small cache of the "
            "tests' server takes while it is busy",
        },
        a_client_for_each_test=False,
    ),
    "pymongo-specifications": Suite(
        archive="pymongo",
        root="test",
        files=tuple(f"test/asynchronous/test_{name}_unified.py" for name in ("crud", "sessions")),
        database="pymongo_specified",
        collections=("test", "coll0", "coll1"),
        driver="pymongo",
        objects=(
            *_OF_PYMONGO,
            Line(
                _UNIFIED,
                '            self[spec["id"]] = client\n',
                '            self[spec["id"]] = client\n            listener.reset()\n',
            ),
            Line(
                _UNIFIED,
                "                await db.create_collection(coll_name, write_concern=wc, **opts)\n",
                f"                await {_STAND_IN}.created(db, coll_name, write_concern=wc, **opts)\n",
            ),
            Line(_UNIFIED, 'type(client).__name__ != "AsyncMongoClient"', "not isinstance(client, AsyncMongoClient)"),
        ),
        environment={"DB_IP": "{host}", "DB_PORT": "{port}"},
        options=("asyncio_default_fixture_loop_scope=session", "asyncio_default_test_loop_scope=session"),
        parts=16,
        own_clients=("_unified.py",),
        a_client_for_each_test=False,
        specifications=("test/crud/unified", "test/sessions"),
    ),
}
"""By the name of the package whose suite it is, or of what it is of that package."""
