"""The contract that every store keeps: memory, MongoDB (either driver), DynamoDB. `tests/contract` holds each to it.

Documents cross this border as plain Python and BSON values (`model.values.CANONICAL`), whole, without the reserved
field. Where these values do not say all that is stored, they are those of `model.stored`: what an image holds is known
to the byte, or known not to be known. Errors cross it as PyMongo's exceptions. A store hides tombstones from every read
but `image`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from shadow.model.batches import Result
from shadow.model.operation import Applied, Change, Hit, Insert, Query, Replace, Update, UpsertGuard, Write
from shadow.model.phase import StoreName
from shadow.model.reads import ValueRead
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document, Image, Key, State

__all__ = [
    "Admitting",
    "AnswersReads",
    "ApplicationStore",
    "Batching",
    "Buffering",
    "Constrained",
    "CopyingMany",
    "Expiring",
    "InSessions",
    "InTransaction",
    "Indexed",
    "Judging",
    "OnDriver",
    "ReplayingMany",
    "Scanning",
    "Store",
    "Unfit",
]


class ApplicationStore(Protocol):
    """What the application's calls ask of a store. The router implements it over two stores, as one store more."""

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        """The first document of `find`."""

    def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        """The answer in pages, in order. Closing the iterator early ends the read."""

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        """How many documents match; `limit` 0 is none."""

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        """The different values at a dotted path of the documents that match, arrays opened, in any order."""

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        """The answer of an aggregation pipeline (the supported stages of `mongoql`)."""

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        """Makes the change as the store that answers, with the version moved in the same atomic step.

        None: the filter matched nothing (and it was no upsert). Raises `DuplicateKeyError` and the other refusals of
        the driver; whatever is not a refusal by `model.outcome.classify` leaves the outcome unknown. `op_id` is
        unique to this attempt of the application: a store whose client retries by itself keeps it in the stamp and
        recognises its own write by it.

        A change whose key is `ANY` is only given to a store that `chooses` it.
        """

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        """Many `Insert`s, one result each, in order: made, refused or unknown (the exception), or not attempted
        (None, only when `ordered` and an earlier one failed)."""


class Store(ApplicationStore, Protocol):
    """One database: beside the application's calls, what replication, repair and the jobs need of it.

    The router has none of this. It holds no documents of its own, so an image, a put or a replay through it would be
    that of one of its stores: whoever copies between the stores asks them themselves.
    """

    name: StoreName

    async def close(self) -> None:
        """Ends what the store opened; a client that was passed in stays open. Idempotent."""

    async def ping(self) -> None:
        """One cheap round trip. Raises what the driver raises if the store cannot be reached."""

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        """Makes the tables and indexes that are missing and waits until they can be used. Changes no existing one."""

    def may_lag(self, collection: str, filter: Document) -> bool:
        """Whether a read with this filter may be answered from an index that is behind what was acknowledged."""

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        """The error with which this store would refuse to hold `document` as the outcome of `change`, as far as that
        is known without asking it; None: it can hold it. `existed`: it changes a document that is there."""

    def chooses(self, change: Change) -> bool:
        """Whether `apply` takes this change with `ANY` for its key: finds the document and changes it in one atomic
        step, and leaves the operation's id with it, by which `chosen` finds it again. The ways of a store may depend
        on the change; where the answer is no, the document is looked for first and changed by its key."""

    async def chosen(self, collection: str, op_id: str) -> Key:
        """The key of the document that this operation, given with `ANY` for its key, has changed. `ANY`: none, or
        another operation has changed the document since, in which case that one's own intent stands for the key."""

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        """Asked before an upsert that this store does not choose looks for its document: what makes `apply` refuse to
        insert, with code 112 (WriteConflict), where another upsert of the same filter has inserted since; and the key
        of a document that matches, though a look might not show it yet, or `ANY`. Guard None: nothing is refused."""

    async def replay(self, collection: str, write: Write) -> Image | None:
        """The same change, made as the store that follows, fenced by an equality; answers its own image after it.

        Update, Replace: this store is exactly at `write.pre`. Insert (and an upsert that inserted): nothing at all
        under the key, no tombstone either. Delete: exactly at `write.pre`, or nothing at all; it leaves the
        tombstone `change.tombstone`. None: the fence did not hold, or the filter did not match, and nothing changed.
        """

    async def image(self, collection: str, key: Key) -> Image:
        """What the key holds now, read consistently: document, tombstone or nothing."""

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        """`image` of many keys in as few round trips as the store allows; in the order of `keys`."""

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        """Copies `image` (a document at its version, or a tombstone) to the key if the store is exactly at
        `expected`; that may be `Unknown`, for what is there need not be readable. False: it was not, and nothing
        changed. Raises `UnreadableDocument` for an image that cannot be read whole."""

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        """`put` for several (key, image, expected) in one atomic step, in which unique values may change hands. False:
        one was not at its state, and nothing changed. None: this store cannot do that with these. Raises
        `DuplicateKeyError` if that leaves a value with two documents."""

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        """The keys, other than `key`, whose documents or tombstones conflict with `document` by a unique value.
        It may name some that do not."""

    async def ensure_index(self, collection: str, keys: Any, name: str, **options: Any) -> bool:
        """Makes an index, with the driver's options, unless one of these keys is there. False: this store has only
        those of its description."""

    async def drop(self, collection: str) -> None:
        """Removes the collection with everything in it."""

    def describe(self) -> dict[str, Any]:
        """What this store is, for `/status`: kind, driver, endpoint without credentials."""


@runtime_checkable
class InSessions(Protocol):
    """A store whose driver has sessions."""

    def in_session(self, session: Any) -> Store:
        """This store for calls of the application that belong to the driver's session; within its transaction, if it
        has one."""

    async def make_lasting(self, session: Any) -> None:
        """Before the commit of the session's transaction: it must not be acknowledged by fewer servers than a write.
        Raises what the driver raises if no server can be reached."""


@runtime_checkable
class Buffering(Protocol):
    """A store that keeps the writes of a transaction back until its commit."""

    def buffer(self) -> Any:
        """A new transaction."""

    def in_transaction(self, buffer: Any) -> InTransaction:
        """This store as the transaction sees it."""

    async def commit(self, buffer: Any) -> None:
        """Writes everything that the transaction has written, or nothing. Raises a transient error if a document has
        changed since it was read. With any other error it may be called again."""


class InTransaction(ApplicationStore, Protocol):
    """A store within a transaction of the application."""

    name: StoreName

    def chooses(self, change: Change) -> bool:
        """See `Store.chooses`."""


@runtime_checkable
class AnswersReads(Protocol):
    """A store that takes a read whole: MongoDB. It answers reads that no other store can (`mongo_only`; of a `Query`
    that has it, every other store raises the refusal), and from the members that the read wants (`read_options`, which
    every other store satisfies)."""

    async def answer_read(self, collection: str, read: ValueRead) -> Any:
        """The answer to a read, in the form that its class names. Raises what the driver raises."""


@runtime_checkable
class Admitting(Protocol):
    """A store that may refuse all writes of the application, as things are. `refuses`: whether it ever does."""

    refuses: bool

    async def admit(self) -> None:
        """Returns if the application may write. Raises `UnsupportedOperation` if it may not, and what the driver raises
        if it reaches nobody."""


@runtime_checkable
class Batching(Protocol):
    """A store that changes many documents in one command."""

    async def keys(self, collection: str, filter: Document) -> list[Key]:
        """The keys of all documents that a write with this filter is about."""

    async def change_many(self, collection: str, changes: Sequence[Change], op_ids: Sequence[str]) -> Sequence[Result]:
        """Many `Update`s or `Delete`s as the store that answers, each at its own key and otherwise equal; one
        result each, as `apply` would give it, but that the image before a deletion may have the key alone. Nothing is
        attempted after the first error (None). See `stores.many`."""


@runtime_checkable
class ReplayingMany(Protocol):
    """A store that makes many replays in few requests."""

    def replays_at_once(self, collection: str) -> int:
        """How many replays one call may have; 0: this collection has only those that are made alone."""

    async def replay_many(self, collection: str, writes: Sequence[Write]) -> list[Image | None]:
        """What `replay` would return for each, made on the same condition; or None, which here only says that this
        write has to be replayed alone. Raises the error of a request whose outcome is unknown. See `stores.replays`."""


@runtime_checkable
class CopyingMany(Protocol):
    """A store of which many keys are repaired in few requests, whether it answers or follows."""

    name: StoreName

    async def lasting_images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        """What `image` would return for each, in order: of durable data, in as few requests as the store allows."""

    def copies_at_once(self, collection: str) -> int:
        """How many keys one call of `copy_many` may have; 0: this collection has only those that are put alone."""

    async def copy_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool]:
        """`put` for many (key, image, expected), each on its own condition. True: it was put. False: it was not, for
        whatever reason, or nobody knows, and has to be put alone. Raises the error of a request whose outcome is
        unknown. See `stores.replays`."""


class Unfit(Protocol):
    """Why a collection cannot be written to both stores, in words, and what to do."""

    @property
    def reason(self) -> str: ...

    @property
    def advice(self) -> str: ...

    def error(self) -> Exception:
        """What a write raises that would go to both stores: an `UnsupportedOperation`, a fresh one each time."""


@runtime_checkable
class Judging(Protocol):
    """A store of which a collection may be of a kind that the other store cannot be kept equal with."""

    name: StoreName

    @property
    def unfit(self) -> Mapping[str, Unfit | None]:
        """Of the collections that were checked; None: both stores can hold it."""

    async def look(self, collection: str) -> Unfit | None:
        """Checks what the collection is now. Raises what the driver raises if it reaches nobody."""


@runtime_checkable
class Indexed(Protocol):
    """A store that has indexes of every kind, and makes, lists and drops them as its driver does. Each raises what the
    driver raises; `options` are those of the driver's verb."""

    name: StoreName

    async def create_index(self, collection: str, keys: Any, options: Mapping[str, Any]) -> str:
        """The name of the index."""

    async def create_indexes(self, collection: str, models: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
        """The names of the indexes, given as the driver's `IndexModel`."""

    async def indexes(self, collection: str) -> list[Any]:
        """What the server lists, as it lists it."""

    async def drop_index(self, collection: str, name: str, options: Mapping[str, Any]) -> None:
        """Raises also for an index that is not there."""


@runtime_checkable
class Constrained(Protocol):
    """A store that keeps unique values by itself, and can stop."""

    async def release(self, spec: CollectionSpec, ended: UniqueSpec) -> None:
        """No longer enforces a constraint; `spec` is the collection's definition without it."""


@runtime_checkable
class Scanning(Protocol):
    """A store that reads whole collections for want of an index, and remembers for which queries."""

    def scans(self) -> list[dict[str, Any]]:
        """The shapes of such queries, the costliest first, each with the index that would serve it."""


@runtime_checkable
class OnDriver(Protocol):
    """A store that is reached by a driver whose objects the application may have as they are."""

    link: Any
    """The connection: `link.database(name, own=True)` is the driver's database object of another name."""

    @property
    def client(self) -> Any:
        """The driver's client in use now."""

    @property
    def driver(self) -> Any:
        """The driver's database object, with the client's own options."""


@runtime_checkable
class Expiring(Protocol):
    """A store whose server deletes documents of the application by itself."""

    async def expiring(self, collection: str) -> list[str]:
        """The fields by which it does; `_id` for the collection as a whole. Raises what the driver raises."""
