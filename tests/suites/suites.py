"""The suites that are run, and the one line of each that is changed."""

from __future__ import annotations

import dataclasses
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
    wipe: bool = False
    """It drops its database by another client."""
    a_client_for_each_test: bool = True
    own_clients: tuple[str, ...] = ()
    """Parts of the names of tests whose own clients are replaced too, besides the one that all tests share."""


_STAND_IN: Final = "__import__('shadow_stand_in')"
_CLIENT: Final = _STAND_IN + ".client({})"
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

SUITES: Final[dict[str, Suite]] = {
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
        options=("asyncio_default_fixture_loop_scope=session", "asyncio_default_test_loop_scope=session"),
        parts=6,
        own_clients=("test_session.py", "test_transactions.py"),
        left_out={
            "test_transaction_starts_with_batched_write": "48 MB in one transaction: more than the small cache of the "
            "tests' server takes while it is busy",
        },
        a_client_for_each_test=False,
    ),
}
"""By the name of the package whose suite it is."""
