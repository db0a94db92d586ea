"""The least rights that an identity needs on DynamoDB, by its use. Pure.

A right is listed here only because a request of the code needs it: a test records every request and compares both
lists. A transaction needs the rights of its actions, a batch of PartiQL inserts `PartiQLInsert`, one of replayed
changes `PartiQLUpdate`; a read through an index needs `Query` on the index only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shadow.model.schema import CollectionSpec
from shadow.stores.dynamo.tables.spec import TableDefinition

__all__ = ["Use", "iam_policy"]


class Use(enum.StrEnum):
    """What an identity is used for."""

    APPLICATION = "application"
    """The running application, whatever its collections' phases and primaries."""
    UNIQUE = "unique"
    """In addition: `create_index(unique=True)` with an index that the configuration does not declare."""
    JOBS = "jobs"
    """Backfill, verify, repair, finalize, and `shadow tables sweep | check-unique`."""
    TABLES = "tables"
    """`shadow tables create | plan | wait`."""


@dataclass(frozen=True, slots=True)
class TableRights:
    """One table, and what determines the rights on it."""

    wanted: TableDefinition
    unique: bool = False
    expiring: bool = False
    followed: bool = False

    @property
    def indexed(self) -> bool:
        return bool(self.wanted.indexes)

    @property
    def changed(self) -> bool:
        """Whether UpdateTable may be called."""
        table = self.wanted.table
        return self.indexed or table.stream or table.billing is not None or table.deletion_protection is not None


@dataclass(frozen=True, slots=True)
class Right:
    """Actions on every table that `of` names; on their indexes or streams instead, if `indexes` or `streams`."""

    name: str
    actions: tuple[str, ...]
    of: Callable[[TableRights], bool] = lambda _: True
    indexes: bool = False
    streams: bool = False


_DOCUMENTS: Final = ("BatchGetItem", "DeleteItem", "GetItem", "PutItem", "Scan", "UpdateItem")
_RECORDS: Final = (
    "BatchGetItem", "BatchWriteItem", "DeleteItem", "DescribeTable", "GetItem", "Query", "UpdateItem",
)  # fmt: skip
_CONTROL: Final = ("DeleteItem", "DescribeTable", "GetItem", "PutItem", "Query")

_MADE: Final = (
    Right("Made", ("CreateTable", "DescribeTable")),
    Right("Changed", ("UpdateTable",), lambda place: place.changed),
    Right(
        "Recovered",
        ("DescribeContinuousBackups", "UpdateContinuousBackups"),
        lambda place: place.wanted.table.point_in_time_recovery is not None,
    ),
    Right("Tagged", ("ListTagsOfResource", "TagResource"), lambda place: bool(place.wanted.table.tags)),
)
_INDEXES: Final = Right("Indexes", ("Query",), lambda place: place.indexed, indexes=True)
_STREAMS: Final = Right(
    "Streams",
    ("DescribeStream", "GetRecords", "GetShardIterator"),
    lambda place: place.followed or place.wanted.table.stream,
    streams=True,
)
_BATCHED: Final = Right("Batches", ("PartiQLInsert",), lambda place: not place.unique)
_REPLAYED: Final = Right("Batches", ("PartiQLInsert", "PartiQLUpdate"), lambda place: not place.unique)
_CHECKED: Final = Right("Unique", ("ConditionCheckItem",), lambda place: place.unique)

_COLLECTIONS: Final[Mapping[Use, tuple[Right, ...]]] = {
    # The application reads each table's id: a table that was restored from a backup has another one.
    Use.APPLICATION: (Right("Documents", (*_DOCUMENTS, "DescribeTable")), _REPLAYED, _INDEXES, _STREAMS),
    Use.UNIQUE: (Right("Declared", ("ConditionCheckItem",)),),
    Use.JOBS: (Right("Documents", (*_DOCUMENTS, "DescribeTable")), _BATCHED, _CHECKED),
    Use.TABLES: (
        *_MADE,
        Right("Expiring", ("DescribeTimeToLive", "UpdateTimeToLive")),
        Right("Rewritten", _DOCUMENTS, lambda place: place.indexed or place.expiring),
        Right("Claimed", ("BatchGetItem", "ConditionCheckItem", "GetItem", "PutItem", "Scan"), lambda p: p.unique),
    ),
}
"""A new index needs the existing documents rewritten; a new constraint, their values claimed."""

_JOURNAL: Final[Mapping[Use, tuple[Right, ...]]] = {
    Use.APPLICATION: (Right("Journal", _RECORDS), Right("JournalIndexes", ("Query",), indexes=True)),
    Use.JOBS: (Right("Journal", _RECORDS), Right("JournalIndexes", ("Query",), indexes=True)),
    Use.TABLES: _MADE,
}
_CONTROLLED: Final[Mapping[Use, tuple[Right, ...]]] = {
    Use.APPLICATION: (Right("Control", _CONTROL),),
    Use.JOBS: (Right("Control", ("BatchWriteItem", *_CONTROL)),),
    Use.TABLES: _MADE,
}
_REACHED: Final[Mapping[Use, tuple[str, ...]]] = {
    Use.APPLICATION: ("ListTables",),
    Use.JOBS: ("ListTables",),
}
"""Needed for no particular table: whether DynamoDB responds."""


def iam_policy(
    collections: Mapping[str, tuple[TableDefinition, CollectionSpec]],
    uses: Collection[Use],
    *,
    region: str,
    journal: TableDefinition | None = None,
    control: TableDefinition | None = None,
    followed: bool = False,
) -> dict[str, Any]:
    """A policy with a statement for each set of rights. `collections` by the name of the table; `journal` and
    `control` if they are kept in tables; `followed`: whether out-of-band writes are relayed from streams, whoever
    switches these on."""
    places = [
        TableRights(wanted, bool(spec.unique), spec.expiry is not None, followed)
        for wanted, spec in collections.values()
    ]
    statements: dict[str, dict[str, Any]] = {}
    for use in [use for use in Use if use in uses]:
        for rights, of in (
            (_COLLECTIONS, places),
            (_JOURNAL, [] if journal is None else [TableRights(journal)]),
            (_CONTROLLED, [] if control is None else [TableRights(control)]),
        ):
            for name, actions, resources in _granted(rights.get(use, ()), of, region):
                title = f"{use.capitalize()}{name}{'' if of is places else _suffix(rights, name)}"
                statements[title] = _statement(title, actions, resources)
        if use in _REACHED:
            statements["Reachable"] = _statement("Reachable", _REACHED[use], "*")
    return {"Version": "2012-10-17", "Statement": list(statements.values())}


def _suffix(rights: Mapping[Use, tuple[Right, ...]], name: str) -> str:
    """Keeps the names of statements unique."""
    if name.startswith(("Journal", "Control")):
        return ""
    return "Journal" if rights is _JOURNAL else "Control"


def _granted(
    rights: Iterable[Right], places: Iterable[TableRights], region: str
) -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    places = list(places)
    for right in rights:
        resources = [arn for place in places if right.of(place) for arn in _arns(right, place, region)]
        if resources:
            yield right.name, right.actions, resources


def _arns(right: Right, place: TableRights, region: str) -> list[str]:
    table = f"arn:{_partition(region)}:dynamodb:{region}:*:table/{place.wanted.name}"
    if right.streams:
        return [f"{table}/stream/*"]
    return [f"{table}/index/{each['IndexName']}" for each in place.wanted.indexes] if right.indexes else [table]


def _partition(region: str) -> str:
    """The AWS partition of a region."""
    begins = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for start, name in begins.items() if region.startswith(start)), "aws")


def _statement(sid: str, actions: Iterable[str], resources: list[str] | str) -> dict[str, Any]:
    named = [f"dynamodb:{each}" for each in sorted(actions)]
    return {"Sid": sid, "Effect": "Allow", "Action": named, "Resource": resources}
