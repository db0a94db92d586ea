"""A collection without its verbs: its name, its database, its options, and its access to the router."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol, TypeVar

from bson.codec_options import CodecOptions
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.errors import UnsupportedOperation
from shadow.model.collations import is_simple, of_query
from shadow.model.operation import Query
from shadow.model.phase import StoreName
from shadow.model.reads import Aggregate, Count, Distinct, Find
from shadow.model.schema import CollectionSpec
from shadow.model.values import present
from shadow.model.version import Document
from shadow.mongoql.values.failures import UnknownOperator
from shadow.router import Router
from shadow.surface.calls.arguments import Arguments
from shadow.surface.calls.collating import CollatedArguments
from shadow.surface.calls.names import NotIterable, sub_name
from shadow.surface.calls.options import ClientDefaults, RequestedConcerns, check_concern
from shadow.surface.calls.passing import PassingArguments
from shadow.surface.calls.verb_options import check_let, check_options
from shadow.surface.indexing import indexes
from shadow.surface.indexing.index_upkeep import IndexUpkeep
from shadow.traces.spans import UNTRACED, Call, Traces, Untraced

__all__ = ["CollectionBase", "Handle"]

T = TypeVar("T")

NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})
_COMPARED: Final = frozenset({"find", "find_one", "count_documents"})
"""Reads that MongoDB answers by a collation as DynamoDB does, so that they can be compared."""


class Handle(Protocol):
    """What a collection needs of the Shadow that made it."""

    @property
    def database_name(self) -> str: ...

    def current(self) -> Router:
        """The router of the running event loop."""

    def get_collection(self, name: str) -> Any: ...

    def is_on_mongo(self, collection: str) -> bool:
        """Whether MongoDB is the primary of a configured collection, as far as is known now."""

    def refused(self, collection: str, refusal: UnsupportedOperation) -> None:
        """Notes a call that is refused because DynamoDB is the primary of its collection."""

    def kept(self) -> ClientDefaults:
        """The preference and concerns of the MongoDB client for every read and write."""

    @property
    def database(self) -> Any:
        """The object that replaces the driver's database object for the application."""

    @property
    def indexes(self) -> IndexUpkeep:
        """The indexes that the application asks for."""

    @property
    def traces(self) -> Traces:
        """Begins the spans of calls."""


class _NoSuchVerb(UnsupportedOperation, AttributeError):
    """Also what `hasattr` expects."""

    name: str


class CollectionBase(NotIterable):
    """The base of `Collection`'s verbs."""

    def __init__(
        self,
        spec: CollectionSpec,
        handle: Handle,
        *,
        options: CodecOptions[Any] | None = None,
        concerns: RequestedConcerns | None = None,
    ) -> None:
        self._spec = spec
        self._name = spec.name
        self._handle = handle
        self._options = options
        self._concerns = concerns or RequestedConcerns()
        self._reads = self._concerns.of_reads()
        if options is not None and not isinstance(options, CodecOptions):
            raise TypeError("codec_options must be an instance of bson.codec_options.CodecOptions")
        self._reply_options = None if options is None else options.with_options(document_class=dict, type_registry=None)
        self._take = Arguments(spec.reserved, options, self._knows)

    def _knows(self, hint: Any) -> bool:
        """Where DynamoDB answers, `_check_hint` looks when the call is made."""
        return (
            not self._handle.is_on_mongo(self._name)
            or indexes.is_known(self._spec, hint, whole=True)
            or self._handle.indexes.has_seen(self._name, hint)
        )

    async def _check_hint(self, verb: str, hint: Any) -> None:
        """Raises what the server would raise for a hint that DynamoDB is given, because it is not sent."""
        if hint is not None and not self._handle.is_on_mongo(self._name):
            await self._handle.indexes.check_hint(self._name, verb, hint)

    @property
    def name(self) -> str:
        return self._name

    @property
    def full_name(self) -> str:
        return f"{self._handle.database_name}.{self._name}"

    @property
    def database(self) -> Any:
        return self._handle.database

    @property
    def codec_options(self) -> CodecOptions[Any]:
        return self._options if self._options is not None else CodecOptions()

    @property
    def read_preference(self) -> Any:
        return self._concerns.read_preference or self._handle.kept().read_preference

    @property
    def write_concern(self) -> WriteConcern:
        return self._concerns.write_concern or self._handle.kept().write_concern

    @property
    def read_concern(self) -> ReadConcern:
        return self._concerns.read_concern or self._handle.kept().read_concern

    def __repr__(self) -> str:
        return f"Collection({self.full_name!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CollectionBase):
            return NotImplemented
        return (self._handle, self._name) == (other._handle, other._name)

    def __hash__(self) -> int:
        return hash((self.database, self._name))

    def __bool__(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} objects do not implement truth value testing: compare with None instead"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """Motor treats an unknown attribute as the name of a sub-collection; a misspelt or unsupported verb must not
        become one here."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise _NoSuchVerb(
            f"collection.{name}", "there is no such verb here", hint='a collection of that name: db["a.b"]'
        )

    def __getitem__(self, name: str) -> Any:
        return self._handle.get_collection(sub_name(self._name, name))

    # --- what the verbs need ------------------------------------------------------------------------------------

    def _door(self, verb: str, options: Mapping[str, Any]) -> Arguments:
        """The arguments of one call with these options: the strict ones, those of a collation that both stores have, or
        those that are passed on to MongoDB."""
        collation = options.get("collation")
        if collation is not None and is_simple(collation):
            options = {name: value for name, value in options.items() if name != "collation"}
        let, take, rest = options.get("let"), self._take, options
        if "let" in options:
            check_options(verb, options)
            check_let(verb, let)
        if let is not None and (binding := take.binding(let)) is not None:
            take, rest = binding, {name: value for name, value in options.items() if name != "let"}
        try:
            take.refuse(verb, rest)
        except UnsupportedOperation as refusal:
            return self._other_door(verb, options, refusal)
        return take

    def _other_door(self, verb: str, options: Mapping[str, Any], refusal: UnsupportedOperation) -> Arguments:
        collating, by = None, of_query(options.get("collation"))
        if by is not None:
            rest = {name: value for name, value in options.items() if name != "collation"}
            with contextlib.suppress(UnsupportedOperation):
                self._take.refuse(verb, rest)
                collating = CollatedArguments(self._take, by)
        if collating is not None and (verb in _COMPARED or not self._handle.is_on_mongo(self._name)):
            return collating
        passing = self._passing(refusal)
        passing.refuse(verb, options)
        passing.otherwise = collating
        return passing

    def _built(self, take: Arguments, build: Callable[[Arguments], T]) -> T:
        """What `build` makes of a call's arguments: strictly, or, if they refuse it, as MongoDB is asked."""
        if isinstance(take, PassingArguments):
            if take.otherwise is not None:
                with contextlib.suppress(UnsupportedOperation):
                    self._checked(build(take.otherwise))
                    take.mongo_only = dataclasses.replace(take.mongo_only, portable=True)
            return build(take)
        try:
            return self._checked(build(take))
        except UnsupportedOperation as refusal:
            passing = self._passing(refusal)
            if isinstance(take, CollatedArguments):
                passing.take_option("collation", take.collation)
            if take.let is not None:
                passing.take_option("let", take.let)
            return build(passing)
        except UnknownOperator as error:
            newer = UnsupportedOperation(error.operator, "this library does not know it; a newer server may")
            if not self._passes_on():
                self._note_refused(newer)
                raise error.as_of_the_driver() from error
            passing = self._passing(newer)
            if take.let is not None:
                passing.take_option("let", take.let)
            return build(passing)

    def _checked(self, made: T) -> T:
        """What was made of a call, if every store honours its read concern. In a transaction that of the transaction
        is in its place, as in the drivers."""
        if self._reads is not None and not self._in_transaction():
            if isinstance(made, Query):
                check_concern(Find(made))
            elif isinstance(made, Count | Distinct | Aggregate):
                check_concern(made)
        return made

    def _in_transaction(self) -> bool:
        session = getattr(self._handle, "session", None)
        return session is not None and bool(session.in_transaction)

    def _passes_on(self) -> bool:
        """Whether MongoDB alone is asked what DynamoDB cannot answer."""
        return self._spec.passes_on and self._handle.is_on_mongo(self._name)

    def _passing(self, refusal: UnsupportedOperation) -> PassingArguments:
        """Raises `refusal` if the configuration wants that, or MongoDB is not the primary."""
        if not self._passes_on():
            self._note_refused(refusal)
            raise refusal
        return PassingArguments(self._take, refusal)

    def _note_refused(self, refusal: UnsupportedOperation) -> None:
        if self._spec.passes_on:  # else it is refused whichever store is the primary
            self._handle.refused(self._name, refusal)

    def _traced(
        self, verb: str, arguments: Sequence[Any] = (), options: Mapping[str, Any] = NO_OPTIONS
    ) -> Call | Untraced:
        """The span of a call, for a `with` block."""
        handle = self._handle
        if not handle.traces.active:
            return UNTRACED
        store = StoreName.MONGO if handle.is_on_mongo(self._name) else StoreName.DYNAMO
        return handle.traces.call(verb, handle.database_name, self._name, store, (arguments, options))

    @property
    def _router(self) -> Router:
        return self._handle.current()

    def _present(self, document: Document) -> Any:
        return present(document, self._options)

    def _present_reply(self, document: Document) -> Any:
        """Values in the server's reply to a command, and not in its documents: the driver decodes them to plain
        dictionaries, without the application's own types."""
        return present(document, self._reply_options)
