"""Reads as data: what the application asks, frozen, as `model.operation` has it of writes.

A read is made once, at the door, and goes unchanged to the primary, to the secondary, and to whatever compares the two
answers. How a store is asked is `reads.asking`, how two answers are compared `compare`: both are functions of the read.
The filters and pipelines are those that the door has compiled; `mongoql.caching` finds the compiled form by them. Those
of a read that only MongoDB can answer (`mongo_only`) are as the application gave them.

`read_options` go to MongoDB with the read where it answers the application, and where it is asked at first for a
comparison; what decides a comparison is asked for the newest committed data (`model.newest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from shadow.model.operation import MongoOnly, Query, Verb
from shadow.model.read_options import ReadOptions
from shadow.model.version import Document

__all__ = ["Aggregate", "Count", "Distinct", "DocumentRead", "Find", "FindOne", "Read", "ValueRead", "by_client"]


@dataclass(frozen=True, slots=True)
class FindOne:
    """The first document that `query` finds. Answer: a `Hit`, or None."""

    query: Query
    verb: ClassVar[Verb] = Verb.FIND_ONE

    @property
    def filter(self) -> Document:
        return self.query.filter

    @property
    def mongo_only(self) -> MongoOnly | None:
        return self.query.mongo_only

    @property
    def read_options(self) -> ReadOptions | None:
        return self.query.read_options


@dataclass(frozen=True, slots=True)
class Find:
    """All documents that `query` finds, in its order. Answer: a list of `Hit`."""

    query: Query
    verb: ClassVar[Verb] = Verb.FIND

    @property
    def filter(self) -> Document:
        return self.query.filter

    @property
    def mongo_only(self) -> MongoOnly | None:
        return self.query.mongo_only

    @property
    def read_options(self) -> ReadOptions | None:
        return self.query.read_options


@dataclass(frozen=True, slots=True)
class Count:
    """How many documents match; `limit` 0 is none. Answer: a number, which need not be exact if it is `estimated`."""

    filter: Document
    skip: int = 0
    limit: int = 0
    estimated: bool = False
    mongo_only: MongoOnly | None = None
    read_options: ReadOptions | None = None

    @property
    def verb(self) -> Verb:
        return Verb.ESTIMATED_DOCUMENT_COUNT if self.estimated else Verb.COUNT_DOCUMENTS


@dataclass(frozen=True, slots=True)
class Distinct:
    """The different values at a dotted path of the documents that match. Answer: a list in any order."""

    path: str
    filter: Document
    mongo_only: MongoOnly | None = None
    read_options: ReadOptions | None = None
    verb: ClassVar[Verb] = Verb.DISTINCT


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What a pipeline makes of the collection. Answer: a list of documents."""

    pipeline: Sequence[Document]
    mongo_only: MongoOnly | None = None
    read_options: ReadOptions | None = None
    verb: ClassVar[Verb] = Verb.AGGREGATE

    @property
    def filter(self) -> Document:
        """That of a `$match` which comes first: by what the documents are found. {} if there is none."""
        first: Document = self.pipeline[0].get("$match", {}) if self.pipeline else {}
        return first


DocumentRead: TypeAlias = FindOne | Find
"""A read whose answer names documents: each has a key, by which both stores can be asked for it again."""
ValueRead: TypeAlias = Count | Distinct | Aggregate
"""A read whose answer names none."""
Read: TypeAlias = DocumentRead | ValueRead


def by_client(read: Read) -> Read:
    """The read with the preference and the concern of the client."""
    if read.read_options is None:
        return read
    if isinstance(read, FindOne | Find):
        return replace(read, query=replace(read.query, read_options=None))
    return replace(read, read_options=None)
