"""`Shadow`: takes the place of the driver's database object in an application."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shadow.config import Settings, load, parse
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.surface.database.driver_database import DriverDatabase

if TYPE_CHECKING:
    from shadow.admin import Admin
    from shadow.engine import Engine
    from shadow.web import APIRouter

__all__ = ["Shadow", "get_collection"]


class Shadow(DriverDatabase):
    """Takes the place of the Motor database object: `shadow["users"]`, `shadow.users`.

    Attribute access returns a collection for every name that the driver's database object does not have, except
    `admin` (the interface for operators), `admin_router`, `lifespan`, `prepare`, `settled`, `close` and `from_...`.
    For a collection with such a name, write `shadow["admin"]`.

    The constructor does no I/O and needs no event loop; connections are made on first use. One object can be used
    under several event loops in turn. `async with` (or `lifespan`) ends everything that was started in the current
    loop.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: Path | None = None,
        mongo_client: Any = None,
        dynamo_client: Any = None,
        reach: Failpoints = no_failpoint,
        passive: bool = False,
        tool: bool = False,
    ) -> None:
        """`tool`: runs beside an application and has no say in the routing. `passive`: a tool that does only what it is
        asked, without recovery and background watches."""
        # Imported here, so that `import shadow` does not load the drivers.
        from shadow.admin import Admin

        self._path = path
        self._engine = self._owner = self._built(
            settings,
            path=path,
            mongo_client=mongo_client,
            dynamo_client=dynamo_client,
            reach=reach,
            passive=passive,
            tool=tool,
        )
        self._admin = Admin(self._engine)

    def _built(self, settings: Settings, **options: Any) -> Engine:
        from shadow.building import EngineOptions
        from shadow.engine import Engine

        return Engine(settings, self, EngineOptions(**options))

    @property
    def admin(self) -> Admin:
        """The interface for operators: status, journal, findings, repairs and flips."""
        return self._admin

    # --- constructors -------------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: str | Path, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From a YAML file and the environment. The file is watched. Raises `ConfigurationError` with every fault.

        `mongo_client`: a Motor or PyMongo async client, or a database object of one, whose options then override the
        client's. shadow uses it and never closes it. Raises `TypeError` for anything else. `dynamo_client`: a low-level
        DynamoDB client of aioboto3 or aiobotocore, likewise.
        """
        return cls(load(path), path=Path(path), mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_settings(cls, settings: Settings, *, mongo_client: Any = None, dynamo_client: Any = None) -> Self:
        """From settings made in code, without a file or the environment."""
        return cls(settings, mongo_client=mongo_client, dynamo_client=dynamo_client)

    @classmethod
    def from_environment(cls) -> Self:
        """From the file that `SHADOW_CONFIG` names, or from environment variables alone with the three collections of
        the sample configuration."""
        path = os.environ.get("SHADOW_CONFIG")
        return cls.from_file(path) if path else cls(parse(_NOTES, source="(environment)"))

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r} of a Shadow with {len(self._engine.specs)} collections)"

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    async def prepare(self, *, journal: bool = True) -> None:
        """Creates missing tables and indexes of the configured collections on both stores and, with `journal`, those of
        a journal on a server. Configured table options that the server does not support are logged. Raises
        `StoreUnavailable` with the name of the store that failed, `JournalError`, and `UnsupportedOperation` for a
        collection that cannot be kept equal on both stores."""
        await self._engine.prepare(journal=journal)

    async def settled(self, timeout: float) -> bool:
        """Waits until work queues and journal are empty. Returns False if they are not within `timeout` seconds."""
        return await self._engine.settled(timeout)

    async def close(self) -> None:
        """Drains within `limits.drain` and stops everything that was started in the running loop. Unfinished work stays
        in the journal. If the primaries are not known yet, waits for them for the same time again. Clients that you
        passed in stay open."""
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
        """/metrics, /healthz, /readyz, /status, /findings and /console for a FastAPI application. `shadow docs metrics`
        says who may read them and who may act."""
        # Imported here: FastAPI is a quarter of the import time, and commands and workers do not need it.
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
    """A collection of the Shadow that the environment describes: `SHADOW_CONFIG`, or `USE_DYNAMODB` and the `AWS_...`
    variables. The first call creates this Shadow, one for the whole process."""
    global _shared
    if _shared is None:
        _shared = Shadow.from_environment()
    return _shared.get_collection(name)
