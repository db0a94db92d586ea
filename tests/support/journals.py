"""The journals that the contract suite holds to one contract, and a clock that a test may set."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shadow.journal.base import Journal
from shadow.journal.server.driver import Driver
from shadow.journal.server.dynamo import DynamoDriver
from shadow.journal.server.dynamo_table import Access
from shadow.journal.server.mongo import MongoDriver
from shadow.journal.server.remote import RemoteJournal, patience
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from tests.support.topologies import DEPLOYMENTS, admit

__all__ = ["JOURNALS", "LIMIT", "Place", "SetClock", "dynamo_journal", "mongo_journal"]

JOURNALS: Final = (
    "sqlite",
    "mongo-one",
    "mongo-replicas",
    "mongo-auth",
    "dynamo-local",
    *(["dynamo-ministack"] if os.environ.get("SHADOW_LONG") else []),
)
LIMIT: Final = 30.0


class SetClock:
    """Both a `time.time` and a server's clock without doubt, which stand until they are set."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    earliest = latest = __call__

    def observe(self, stamp: float, resolution: float, sent: float, received: float) -> None:
        """The server's own time counts for nothing here."""


def mongo_journal(
    url: str, database: str, *, limit: float = LIMIT, late: float = 0.0, clock: SetClock | None = None
) -> RemoteJournal:
    def connect() -> Driver:
        return MongoDriver(url, database, "journal", patience=patience(limit), clock=clock)

    return RemoteJournal(connect, place=f"mongodb {database}", limit=limit, late=late)


def dynamo_journal(
    url: str, table: str, *, limit: float = LIMIT, late: float = 0.0, clock: SetClock | None = None
) -> RemoteJournal:
    def connect() -> Driver:
        access = Access("us-east-1", url, "local", "local")
        return DynamoDriver(access, table, patience=patience(limit), clock=clock)

    return RemoteJournal(connect, place=f"dynamodb {table}", limit=limit, late=late)


class Place:
    """Where one journal is kept; `journal()` opens it as one more process would."""

    def __init__(self, kind: str, folder: Path, fixture: Callable[[str], Any]) -> None:
        self.kind = kind
        self.name = f"j{uuid.uuid4().hex[:12]}"
        self._folder = folder
        self._fixture = fixture
        self._open: list[SqliteJournal | RemoteJournal] = []

    def journal(self, clock: SetClock | None = None, limit: float = LIMIT, late: float = 0.0) -> Journal:
        made = self._make(clock, limit, late)
        self._open.append(made)
        return made

    def _make(self, clock: SetClock | None, limit: float, late: float) -> SqliteJournal | RemoteJournal:
        match self.kind.split("-"):
            case ["sqlite"]:
                path = self._folder / "shadow.db"
                return (
                    SqliteJournal(FileSettings(path, limit=limit, late=late))
                    if clock is None
                    else SqliteJournal(FileSettings(path, limit=limit, late=late, now=clock))
                )
            case ["mongo", deployment]:
                url: str = self._fixture(DEPLOYMENTS[deployment])
                admit(url, self.name)
                return mongo_journal(url, self.name, limit=limit, late=late, clock=clock)
            case ["dynamo", "local"]:
                return dynamo_journal(
                    self._fixture("dynamodb_local_url"), self.name, limit=limit, late=late, clock=clock
                )
            case _:
                return dynamo_journal(self._fixture("ministack_url"), self.name, limit=limit, late=late, clock=clock)

    def close(self) -> None:
        for journal in self._open:
            journal.shut()
