"""Shadows over real servers: settings for a test, and the proof at its end."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final

from shadow import Shadow
from shadow.config import Settings
from shadow.embedded.audit import Audit, Disagreement
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.model.order import key_digest
from shadow.model.version import Document, Key
from tests.support.drawn import driver_of

__all__ = ["COLLECTION", "LIMITS", "Site"]

COLLECTION: Final = "things"

LIMITS: Final[dict[str, Any]] = {
    "operation": 10.0,
    "write_deadline": 0.5,
    "read_deadline": 0.5,
    "loop_lag": 0.0,
    "settle": 0.05,
    "recover_every": 0.05,
    "drain": 5.0,
}


@dataclasses.dataclass(frozen=True)
class Site:
    """Where the stores and the journal of a test are, and what is asked of them; serialisable, for child processes."""

    mongo_url: str
    database: str
    dynamo_url: str
    prefix: str
    journal: str
    primary: str = "mongo"
    phase: str = "dual_write"
    writes: str = "background"
    driver: str = ""
    """None: what was drawn with the url, else PyMongo's."""
    collection: str = COLLECTION
    limits: dict[str, Any] = dataclasses.field(default_factory=dict)
    journal_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    control: str | None = None
    """The url of the control store; none: where the journal is."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the collection."""
    patience: float = 10.0
    """Seconds that DynamoDB's client waits for an answer."""

    def settings(self) -> Settings:
        dynamo = {
            "endpoint_url": self.dynamo_url,
            "table_prefix": self.prefix,
            "access_key_id": "local",
            "secret_access_key": "local",
            "connect_timeout": self.patience,
            "read_timeout": self.patience,
            "max_attempts": 1,
        }
        return Settings(
            mongo={
                "url": self.mongo_url,
                "database": self.database,
                "driver": self.driver or driver_of(self.mongo_url, "pymongo"),
            },
            dynamo=dynamo,
            journal={
                "url": self.journal if "://" in self.journal else f"sqlite:///{self.journal}",
                **self.journal_options,
            },
            control={"url": self.control, "heartbeat": 0.1},
            limits={**LIMITS, **self.limits},
            observe={"holdout": 0.0, "noise_share": 0.0},
            defaults={"primary": self.primary, "phase": self.phase, "writes": self.writes, "forced": "a test"},
            collections={self.collection: self.options},
        )

    def shadow(self, reach: Failpoints = no_failpoint) -> Shadow:
        return Shadow(self.settings(), reach=reach)

    async def prepared(self, shadow: Shadow, timeout: float = 90.0) -> None:
        """Creates what is missing, and returns when the process writes to both stores. It begins with one, unless the
        control store answers at once."""
        await shadow.prepare()
        async with asyncio.timeout(timeout):
            while not shadow._engine.routes()[self.collection].dual_write:  # noqa: ASYNC110 - routes wake nobody
                await asyncio.sleep(0.01)

    def but(self, **changes: Any) -> Site:
        return dataclasses.replace(self, **changes)

    @property
    def audit(self) -> Audit:
        specs = self.settings().specs()
        return Audit(self.mongo_url, self.database, self.dynamo_url, self.prefix, specs)

    async def disagreements(self) -> list[Disagreement]:
        return await asyncio.to_thread(self.audit.disagreements)

    async def documents(self) -> dict[str, Document]:
        """The primary's documents by digest of their key, read with the bare driver."""
        mongo, dynamo = await asyncio.to_thread(self.audit.documents, self.collection)
        return mongo if self.primary == "mongo" else dynamo

    async def level(self, shadow: Shadow, timeout: float = 90.0) -> None:
        """Everything has been followed and healed, the journal is empty, and both stores are equal."""
        assert await shadow.settled(timeout), (await shadow.admin.status())["journal"]
        apart = await self.disagreements()
        assert apart == [], (apart, (await shadow.admin.status())["journal"])

    @staticmethod
    def digest(key: Key) -> str:
        return key_digest(key)
