"""Where a control store is, and how to open it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from shadow.control.dynamo import DynamoRecords
from shadow.control.mongo import MongoRecords
from shadow.control.records import Records
from shadow.control.sqlite import SqliteRecords
from shadow.journal.server.dynamo_table import Access

__all__ = ["PATIENCE", "ControlPlace", "DynamoPlace", "MongoPlace", "SqlitePlace"]

PATIENCE: Final = 5.0
"""Seconds for one request to a server."""


@dataclass(frozen=True)
class SqlitePlace:
    """For the processes of one host."""

    path: Path

    def open(self, patience: float = PATIENCE) -> Records:
        """Does no I/O."""
        return SqliteRecords(self.path)


@dataclass(frozen=True)
class MongoPlace:
    """`url` may hold a password."""

    url: str
    database: str
    collection: str

    def open(self, patience: float = PATIENCE) -> Records:
        """Does no I/O. `patience`: seconds for one request, about."""
        return MongoRecords(self.url, self.database, self.collection, patience=patience)


@dataclass(frozen=True)
class DynamoPlace:
    """The table may be that of a journal: the records have a partition of their own."""

    access: Access
    table: str
    of_journal: bool = False

    def open(self, patience: float = PATIENCE) -> Records:
        """Does no I/O. `patience`: seconds for one request, about."""
        return DynamoRecords(self.access, self.table, patience=patience, of_journal=self.of_journal)


ControlPlace: TypeAlias = SqlitePlace | MongoPlace | DynamoPlace
