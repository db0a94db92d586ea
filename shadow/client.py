"""`Shadow`: what an application holds in place of the driver's database object."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shadow.config import Settings, load, parse
from shadow.errors import UnsupportedOperation
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.surface.driver_database import NOT_COLLECTIONS, DriverDatabase

if TYPE_CHECKING:
    from shadow.admin import Admin
    from shadow.engine import Engine
    from shadow.web import APIRouter

__all__ = ["Shadow", "get_collection"]


class Shadow(DriverDatabase):
    """Takes the place of the Motor database object: `shadow["users"]`, `shadow.users`.

    Every attribute that the driver's database object does not have is a collection, but for these: `admin` (what an
    operator asks), `admin_router`, `lifespan`, `prepare`, `settled`, `close` and `from_...`. A collection of such a
    name is `shadow["admin"]`.

    Making one does no I/O and needs no event loop; it connects on first use. Use it under one event loop after the
    other as you like; `async with` (or `lifespan`) ends what it started in the loop at hand.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: Path | None = None,
        mongo_client: Any = None,
        dynamo_client: Any = None,
        reach: Failpoints = no_failpoint,
        resting: bool = False,
        tool: bool = False,
    ) -> None:
        """`tool`: it is beside an application, and its word on the routing does not count; `resting`: a tool that does
        nothing by itself, no recovery and no watching."""
        # The drivers come with these: whoever imports the package and makes no Shadow does without.
        from shadow.admin import Admin

        self._path = path
        self._engine = self._owner = self._built(
            settings,
            path=path,
            mongo_client=mongo_client,
            dynamo_client=dynamo_client,
            reach=reach,
            resting=resting,
            tool=tool,
        )
        self._admin = Admin(self._engine)

    def _built(self, settings: Settings, **options: Any) -> Engine:
        from shadow.engine import Engine

        return Engine(settings, self, **options)

    @property
    def admin(self) -> Admin:
        """What an operator asks: status, journal, findings, heals and flips."""
        return self._admin

    # --- making -------------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: str | Path, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From a YAML file and the environment; the file is watched. Raises `ConfigurationError` with every fault.

        `mongo_client`: a Motor or a PyMongo async client to use and never to close, or a database object of one, whose
        options then go before the client's (`TypeError` for anything else); `dynamo_client`: a low-level DynamoDB
        client of aioboto3 or aiobotocore, likewise.
        """
        return cls(load(path), path=Path(path), mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_settings(cls, settings: Settings, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From settings made in code; no file, no environment."""
        return cls(settings, mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_environment(cls) -> Self:
        """From the file that `SHADOW_CONFIG` names, or from the environment's variables alone, with the three
        collections of the sample configuration."""
        path = os.environ.get("SHADOW_CONFIG")
        return cls.from_file(path) if path else cls(parse(_NOTES, source="(environment)"))

    # --- the driver's database ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._engine.name

    database_name = name

    def get_collection(self, name: str, *arguments: Any, **options: Any) -> Any:
        """The collection; may be called at import time. What follows the name is for its `with_options`.

        A configured name gives a `Collection`; any other name gives the driver's own collection, as it is.
        """
        return self._engine.get_collection(name, *arguments, **options)

    def __getitem__(self, name: str) -> Any:
        return self.get_collection(name)

    def __getattr__(self, name: str) -> Any:
        """Motor's `db.users`. Names that begin with an underscore are no collections, as in Motor. Raises
        UnsupportedOperation for what the driver's database object has and is not supported here."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in NOT_COLLECTIONS:
            raise UnsupportedOperation(f"db.{name}", "it is the driver's own", hint=f'a collection of it: db["{name}"]')
        return self.get_collection(name)

    def __repr__(self) -> str:
        return f"Shadow({self.name!r}, {len(self._engine.specs)} collections)"

    def __bool__(self) -> bool:
        raise NotImplementedError("Shadow objects do not implement truth value testing: compare with None instead")

    # --- life ---------------------------------------------------------------------------------------------------

    async def prepare(self, *, journal: bool = True) -> None:
        """Makes the tables and indexes of the configured collections that are missing, on both stores, and what a
        journal on a server is kept in (unless told not to). What the server does not have of what the configuration
        wants of a table is logged. Raises `StoreUnavailable` naming the store that could not, `JournalError`, and
        `UnsupportedOperation` for a collection that is to be written to both stores and cannot be."""
        await self._engine.prepare(journal=journal)

    async def settled(self, timeout: float) -> bool:
        """Waits until lanes and journal are empty. False: they were not within `timeout` seconds."""
        return await self._engine.settled(timeout)

    async def close(self) -> None:
        """Drains within `limits.drain` and ends everything that was started in the running loop; what was not done
        stays in the journal. Where it is still being learnt which store is primary, that has as long once more. Clients
        that were handed in stay open."""
        await self._engine.close()

    async def __aenter__(self) -> Self:
        await self._engine.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=shadow.lifespan)`."""
        async with self:
            yield

    def admin_router(self, prefix: str = "") -> APIRouter:
        """/metrics, /healthz, /readyz, /status, /findings and /console for a FastAPI application;
        `shadow docs metrics` says who may read them and who may act."""
        # FastAPI takes a quarter of what importing the library takes; commands and workers do without.
        from shadow.web import AdminService, admin_router

        return admin_router(AdminService(self._admin, self._path), prefix=prefix)


_NOTES = """
collections:
  users: {indexes: [{name: email-index, hash: email}]}
  documents: {indexes: [{name: user_id-index, hash: user_id}]}
  generated_content: {indexes: [{name: document_id-index, hash: document_id}]}
"""

_shared: Shadow | None = None


def get_collection(name: str) -> Any:
    """A collection of the Shadow that the environment describes (`SHADOW_CONFIG`, or `USE_DYNAMODB` and the `AWS_...`
    variables alone). The same Shadow for the whole process, made at the first call."""
    global _shared
    if _shared is None:
        _shared = Shadow.from_environment()
    return _shared.get_collection(name)
