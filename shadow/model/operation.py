"""Operations: an application's call as data. Ids, versions' births and the clock are fixed here, above both stores.

A `Query` reads. A `Change` is what a write does to the document under one key: `Insert`, `Update`, `Replace` or
`Delete`. Verbs over many documents become one change per document. A `Write` is a change that the primary has made.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from shadow.errors import UnsupportedOperation
from shadow.model.read_options import ReadOptions
from shadow.model.version import Document, Image, Key, State, Version

__all__ = [
    "ANY",
    "READS",
    "Applied",
    "Change",
    "Delete",
    "Hit",
    "Insert",
    "MongoOnly",
    "Query",
    "Replace",
    "Sort",
    "Update",
    "UpsertGuard",
    "Verb",
    "Write",
    "at_key",
    "mongo_only",
    "version_after",
]

Sort: TypeAlias = tuple[tuple[str, int], ...]
"""Pairs of dotted path and direction (1 or -1), most significant first."""


class Verb(enum.StrEnum):
    """The verbs of the Motor interface, by their names in metrics and logs."""

    INSERT_ONE = "insert_one"
    INSERT_MANY = "insert_many"
    FIND_ONE = "find_one"
    FIND = "find"
    UPDATE_ONE = "update_one"
    UPDATE_MANY = "update_many"
    REPLACE_ONE = "replace_one"
    DELETE_ONE = "delete_one"
    DELETE_MANY = "delete_many"
    FIND_ONE_AND_UPDATE = "find_one_and_update"
    FIND_ONE_AND_REPLACE = "find_one_and_replace"
    FIND_ONE_AND_DELETE = "find_one_and_delete"
    BULK_WRITE = "bulk_write"
    COUNT_DOCUMENTS = "count_documents"
    ESTIMATED_DOCUMENT_COUNT = "estimated_document_count"
    DISTINCT = "distinct"
    AGGREGATE = "aggregate"


READS: Final = (
    Verb.FIND_ONE,
    Verb.FIND,
    Verb.COUNT_DOCUMENTS,
    Verb.ESTIMATED_DOCUMENT_COUNT,
    Verb.DISTINCT,
    Verb.AGGREGATE,
)
"""The verbs that only read."""


@dataclass(frozen=True, slots=True)
class MongoOnly:
    """Why MongoDB alone can do an operation, and what it needs for that.

    `name`: the operator or the option, from a fixed list (`mongoql.portability`). `refusal`: what is raised where
    another store would have to do it. `options`: the driver's options of the call, which no other store has. `after`:
    the caller wants the document after the change. `portable`: DynamoDB as primary can do it too, in its own way.
    """

    name: str
    refusal: UnsupportedOperation
    options: Mapping[str, Any] = field(default_factory=dict)
    after: bool = False
    portable: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A read. `projection` is MongoDB's, as a mapping; 0 for `limit` or `batch_size` means none. `newest`: read what
    the next write would find, whatever read preference the application has; for lookups inside a write. `mongo_only`:
    None if every store can answer. `read_options`: None for those of the client."""

    filter: Document = field(default_factory=dict)
    projection: Document | None = None
    sort: Sort = ()
    skip: int = 0
    limit: int = 0
    batch_size: int = 0
    newest: bool = False
    mongo_only: MongoOnly | None = None
    read_options: ReadOptions | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a read's answer: its key, its version, and its projected content."""

    key: Key
    version: Version
    document: Document


@dataclass(frozen=True, slots=True)
class Insert:
    """Inserts `document` (which has its `_id`) where nothing or a tombstone is. Version afterwards: (born, 1)."""

    key: Key
    document: Document
    born: str


class _Any:
    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
"""The key of a change whose document is not known yet: the first that its filter matches in its sort order."""


@dataclass(frozen=True, slots=True)
class UpsertGuard:
    """The state that an upsert saw before it looked for a document. It inserts only if that has not changed."""

    name: str
    seen: int


@dataclass(frozen=True, slots=True)
class Update:
    """Changes the document under `key` if `filter` matches it; with `upsert`, inserts if there is none.

    `update` is a mapping of operators or a pipeline. Version afterwards: the previous version with rev + 1; (born, 1)
    for a pipeline, which may replace the whole document, and for an upsert that inserted. `born` is "" for an update
    by operators that is not an upsert.

    `key` is `ANY` if the filter selects the document, the first one in the order of `sort`. An upsert that finds none
    then inserts under `new`, unless filter or update name an `_id`. `guard`: what `Store.guard` returned
    before an upsert looked in vain.

    `mongo_only`: no other store can compute it, so it is replicated by its result. `pin`: the version at which the
    document under `key` matched such a filter; only that version is changed.
    """

    key: Key
    filter: Document
    update: Document | list[Document]
    born: str
    upsert: bool = False
    array_filters: tuple[Document, ...] = ()
    sort: Sort = ()
    new: Key = None
    guard: UpsertGuard | None = None
    mongo_only: MongoOnly | None = None
    pin: Version | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """Replaces the document under `key` if `filter` matches it. Version afterwards: (born, 1), because nothing of the
    old document is left and versions are only compared for equality. A `replacement` without an `_id` keeps the stored
    one, which may be an equal number of another type; one with an `_id` stores its own. `key`, `sort`, `new`,
    `guard` and `mongo_only` as in `Update`."""

    key: Key
    filter: Document
    replacement: Document
    born: str
    upsert: bool = False
    sort: Sort = ()
    new: Key = None
    guard: UpsertGuard | None = None
    mongo_only: MongoOnly | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes the document under `key` if `filter` matches it. `tombstone` is the id of the secondary's tombstone.
    `key`, `sort`, `mongo_only` and `pin` as in `Update`."""

    key: Key
    filter: Document
    tombstone: str
    sort: Sort = ()
    mongo_only: MongoOnly | None = None
    pin: Version | None = None


Change: TypeAlias = Insert | Update | Replace | Delete


@dataclass(frozen=True, slots=True)
class Applied:
    """The effect of a change: the image before it (`ABSENT` if it inserted) and after it (`ABSENT` if it deleted).

    `rewritten`: MongoDB reports it as modified even if both are equal, as for a replacement that names no `_id`.
    `counted`: False for a deletion of which it is known that another writer's may be the one that was made.
    `modified`: whether the images differ, where that is known already."""

    pre: Image
    post: Image
    rewritten: bool = False
    counted: bool = True
    modified: bool | None = None

    @property
    def key(self) -> Key:
        """The key of the changed document, as stored in the image before the change if there is one."""
        document = self.pre.document if self.pre.document is not None else self.post.document
        assert document is not None
        return document["_id"]


@dataclass(frozen=True, slots=True)
class Write:
    """One document's change, made by the primary, that the secondary must replicate.

    `verb` is the application's. `op_id` identifies the intent in the journal. `pre` is the primary's state before the
    change, which is the fence of the replay. `post` is the primary's image after it.
    """

    collection: str
    verb: Verb
    op_id: str
    change: Change
    pre: State
    post: Image

    @property
    def key(self) -> Key:
        return self.change.key


def mongo_only(change: Change) -> MongoOnly | None:
    """Why only MongoDB can make the change; None for one that every store can."""
    return None if isinstance(change, Insert) else change.mongo_only


def at_key(change: Change, key: Key) -> Change:
    """The change, addressed to `key`, which the store or a search has found for it."""
    return change if isinstance(change, Insert) else dataclasses.replace(change, key=key, sort=())


def version_after(change: Update | Replace, before: Version) -> Version:
    """The version after a change of a document at version `before`."""
    if isinstance(change, Replace) or isinstance(change.update, list):
        return Version(change.born, 1)
    return before.next()
