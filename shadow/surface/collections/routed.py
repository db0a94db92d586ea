"""A configured collection: the driver's own where only MongoDB is written, otherwise `Collection`.

Collections are created at import time and live as long as the process; phases change. So the path of a call is chosen
when the call is made, and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from typing import Any, Final, NoReturn, Protocol, cast

from bson.codec_options import CodecOptions
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Verb
from shadow.model.schema import CollectionSpec
from shadow.model.values import CANONICAL, normalise, normalise_value
from shadow.mongoql.pipeline.outputs import check_place, check_stages, output_of
from shadow.routes.forwarder import Forwarder, Passage
from shadow.stores.mongo.drivers import COLLECTION_VERBS
from shadow.surface.calls.arguments import Arguments
from shadow.surface.calls.futures import at_once, is_motor
from shadow.surface.calls.names import not_callable, sub_name
from shadow.surface.calls.options import RequestedConcerns
from shadow.surface.calls.sessions import in_session, until_refused, without_session
from shadow.surface.collections.collection import Collection, Handle
from shadow.surface.collections.outputs import Writer, check_no_transaction, sent_to_mongo
from shadow.surface.collections.server_reads import ServerReads
from shadow.surface.collections.unacknowledged import without_answer
from shadow.surface.cursors.cursor import DocumentCursor
from shadow.surface.cursors.routed_cursor import RoutedAnswer, RoutedCursor
from shadow.surface.direct.forwarded import INSTANCE_ATTRIBUTES
from shadow.surface.direct.stamping import READS, WRITES, Stamping, hidden_in, is_stamp
from shadow.surface.direct.ways_around import CollectionOwner, checked_pipeline, joins_of, refuse_past, target_of
from shadow.surface.indexing import indexes

__all__ = ["RoutedCollection", "RoutedHandle"]

_OPTIONS: Final = ("codec_options", "read_preference", "write_concern", "read_concern")


class RoutedHandle(Handle, CollectionOwner, Protocol):
    """What a routed collection needs of the Shadow that made it."""

    def forwarder(self) -> Forwarder:
        """The forwarder of the running event loop. Raises RuntimeError if there is none, `ShadowClosed`."""

    def in_session(self, session: Any) -> Any:
        """The router for calls with the driver's session."""

    def expected(self, collection: str) -> Passage:
        """The path that a call would take by what is known now. Needs no event loop."""


class RoutedCollection(ServerReads):
    """One configured collection of the application."""

    _handle: RoutedHandle

    def __init__(
        self,
        spec: CollectionSpec,
        handle: RoutedHandle,
        *,
        options: CodecOptions[Any] | None = None,
        concerns: RequestedConcerns | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """`asked`: the options of `with_options`, for the driver's own collection."""
        super().__init__(spec, handle, options=options, concerns=concerns)
        self._asked = dict(asked or {})
        self._made: tuple[Any, Any] | None = None

    def with_options(
        self,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: Any = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
    ) -> RoutedCollection:
        """The same collection with other options. While only MongoDB is written they are the driver's, without limits.
        Otherwise see `Collection.with_options`: an unsupported option is rejected immediately, or, if the phase changes
        later, by the first call after that."""
        given = dict(zip(_OPTIONS, (codec_options, read_preference, write_concern, read_concern), strict=True))
        asked = {**self._asked, **{name: value for name, value in given.items() if value is not None}}
        concerns = RequestedConcerns(read_preference, write_concern, read_concern)
        if self._handle.expected(self._name) is Passage.VERSIONED and concerns != RequestedConcerns():
            self._handle.kept().check(concerns)
        merged = RequestedConcerns(**{name: asked.get(name) for name in RequestedConcerns.__slots__})
        options = codec_options or self._options
        return RoutedCollection(self._spec, self._handle, options=options, concerns=merged, asked=asked)

    @property
    def __class__(self) -> type[Any]:
        """The driver's: `isinstance` returns the same as for the driver's own collection."""
        return self._handle.driver_kind()

    @__class__.setter
    def __class__(self, kind: Any) -> NoReturn:
        raise TypeError("__class__ cannot be assigned")

    def __getitem__(self, name: str) -> Any:
        """A sub-collection, with the options of this one, as in the driver."""
        return self._handle.get_collection(sub_name(self._name, name), **self._asked)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.full_name!r} of a Shadow)"

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        raise not_callable(self._name)

    # --- the path of a call -------------------------------------------------------------------------------------

    def _begin(self, call: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return self._handle.begin(call)

    def _own(self) -> Any:
        """The driver's own collection."""
        forwarder = self._handle.forwarder()
        client = forwarder.client
        if self._made is None or self._made[0] is not client:
            self._made = (client, forwarder.collection(self._name, self._asked))
        return self._made[1]

    def _stamping(self) -> Stamping:
        return Stamping(self._spec.reserved, self._handle.forwarder().era(self._name), self._take)

    def _check_concerns(self) -> None:
        """A write concern that was requested while only the driver was used may be more than both stores can
        support."""
        if self._concerns != RequestedConcerns():
            self._handle.kept().check(self._concerns)

    def _versioned(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """The verb of `Collection`, which a session may belong to."""
        session, arguments, options = without_session(verb, arguments, options)
        if session is None:
            return getattr(super(), verb)(*arguments, **options)
        handle = in_session(self._name, self._handle, verb, session)
        made = self if handle is self._handle else self._with(handle)
        return until_refused(handle, session, getattr(super(RoutedCollection, made), verb)(*arguments, **options))

    def _with(self, handle: Any) -> RoutedCollection:
        """The same collection, for the calls of one session."""
        return RoutedCollection(self._spec, handle, options=self._options, concerns=self._concerns, asked=self._asked)

    async def _passage(self) -> Passage:
        forwarder = self._handle.forwarder()
        return forwarder.known(self._name) or await forwarder.asked(self._name)

    async def _forward_read(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        passage = await self._passage()
        if passage is Passage.VERSIONED:
            self._check_concerns()
            return await self._versioned(verb, arguments, options)
        asked, forwarder = verb, self._handle.forwarder()
        if passage is Passage.STAMPED:
            asked, options = self._stamping().read(verb, arguments, options)
            arguments = ()
        call = getattr(self._own(), asked)(*arguments, **options)
        return self._unstamped(await forwarder.read(self._name, Verb(verb), call))

    def _unstamped(self, document: Any) -> Any:
        """The driver's document without a version. Some have one although no process has two stores for it: while the
        control store does not respond, writes move versions, and a document may have been in flight when the first
        process began to write to both."""
        if type(document) is dict and self._spec.reserved not in document:
            return document
        if isinstance(document, MutableMapping) and is_stamp(document.get(self._spec.reserved)):
            del document[self._spec.reserved]
        return document

    def _all_unstamped(self, found: list[Any]) -> list[Any]:
        reserved = self._spec.reserved
        for each in found:
            if type(each) is not dict or reserved in each:
                self._unstamped(each)
        return found

    async def _forward_write(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        def call(passage: Passage) -> Awaitable[Any]:
            if passage is Passage.STAMPED:
                return self._stamping().write(self._own(), verb, arguments, options)
            made: Awaitable[Any] = getattr(self._own(), verb)(*arguments, **options)
            return made

        forwarder = self._handle.forwarder()
        session = without_session(verb, arguments, options)[0]
        passage, answer = await forwarder.write(self._name, Verb(verb), call, session)
        if passage is Passage.VERSIONED:
            self._check_concerns()
            asked = self._concerns.write_concern
            if asked is None or asked.acknowledged:
                return await self._versioned(verb, arguments, options)
            made = functools.partial(self._versioned, verb)
            return await without_answer(verb, made, session, arguments, options)
        return self._unstamped(answer)

    async def _forward_look(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Forwards a request about the collection and not about its documents."""
        if await self._passage() is Passage.VERSIONED:
            return await self._versioned(verb, arguments, options)
        found = await getattr(self._own(), verb)(*arguments, **options)
        if verb == "index_information":
            return {name: index for name, index in found.items() if not self._is_ours(name)}
        return found

    def _is_ours(self, index: Any) -> bool:
        """Whether it is an index on the version, which does not belong to the application."""
        return str(index).startswith(f"{self._spec.reserved}_")

    async def _forward_other(self, verb: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Forwards a change of the collection and not of its documents; meanwhile the phase does not change."""
        session = without_session(verb, arguments, options)[0]
        passage, answer = await self._handle.forwarder().write(
            self._name, None, lambda passage: self._other(verb)(*arguments, **options), session
        )
        if passage is Passage.VERSIONED:
            return await self._versioned(verb, arguments, options)
        if verb in ("drop", "drop_index", "drop_indexes"):
            given = arguments[0] if arguments else options.get("index_or_name")
            self._spec = self._handle.indexes.ended(self._spec, given if verb == "drop_index" else None)
        return answer

    def _other(self, verb: str) -> Callable[..., Any]:
        """The driver's own method; for `drop` that of its database, which has an answer."""
        own = self._own()
        if verb != "drop":
            return cast("Callable[..., Any]", getattr(own, verb))
        options = {name: getattr(own, name) for name in _OPTIONS}
        return functools.partial(own.database.with_options(**options).drop_collection, own.name)

    # --- cursors ------------------------------------------------------------------------------------------------

    def find(self, *arguments: Any, **options: Any) -> Any:
        """A cursor over the documents that match; it sends no request yet."""
        if self._handle.expected(self._name) is not Passage.VERSIONED:
            return RoutedCursor(self, arguments, options)
        self._check_concerns()
        return self._versioned("find", arguments, options)

    def _found(self, passage: Passage, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """The cursor of one path."""
        if passage is Passage.VERSIONED:
            self._check_concerns()
            return self._versioned("find", arguments, options)
        if passage is Passage.STAMPED:
            return self._own().find(**self._stamping().read("find", arguments, options)[1])
        return self._own().find(*arguments, **options)

    def aggregate(self, pipeline: Any, *arguments: Any, **options: Any) -> Any:
        """A cursor over the result of a pipeline. May be awaited first, as with PyMongo's own client, or not."""
        target = target_of(pipeline, self._handle.name)
        if target is not None:
            return DocumentCursor(self, lambda: self._put_out(pipeline, target, arguments, options), _as_is)
        if self._handle.expected(self._name) is Passage.VERSIONED:
            self._check_concerns()
            return self._versioned("aggregate", (pipeline, *arguments), options)
        checked = checked_pipeline(self._handle, pipeline)

        def make(passage: Passage) -> Any:
            if passage is Passage.VERSIONED:
                self._check_concerns()
                return self._versioned("aggregate", (pipeline, *arguments), options)
            if passage is Passage.STAMPED:
                return self._own().aggregate(**self._stamping().read("aggregate", (pipeline, *arguments), options)[1])
            return self._own().aggregate(checked, *arguments, **options)

        return RoutedAnswer(self, Verb.AGGREGATE, make)

    def _hidden(self, take: Arguments, pipeline: Any) -> list[Any]:
        if take.mongo_only is not None:
            checked_pipeline(self._handle, pipeline)
        else:
            self._check_joined(pipeline)
        return super()._hidden(take, pipeline)

    def _check_joined(self, pipeline: Any) -> None:
        """Raises UnsupportedOperation if a pipeline reads a collection that DynamoDB does not have."""
        for stage, name in joins_of(pipeline):
            if name not in self._handle.configured() or self._handle.expected(name) is not Passage.VERSIONED:
                raise UnsupportedOperation(
                    f"{stage} from {name!r}",
                    "it is on MongoDB alone",
                    hint=f"configure {name!r} like {self._name!r}: `collections`, and the same phase",
                )

    def _reserved_of(self, name: str) -> str | None:
        return None if self._handle.is_forwarded(name) else self._handle.reserved_of(name)

    async def _put_out(
        self, pipeline: Any, target: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> list[Any]:
        """A pipeline that ends in `$out` or `$merge`, as a write to `target`, a collection of this database; "" for one
        of another."""
        passage, handle = await self._passage(), self._handle
        routed = target in handle.configured() and not handle.is_forwarded(target)
        if passage is not Passage.VERSIONED and not routed:
            return await self._written_elsewhere(passage, pipeline, target, arguments, options)
        session, arguments, options = without_session("aggregate", (pipeline, *arguments), options)
        stages = normalise_value(list(pipeline), self._options)
        check_stages(stages)
        check_place(stages)
        stage = stages[-1]
        check_no_transaction(session, next(iter(stage)))
        output, given = output_of(stage, handle.name), {} if session is None else {"session": session}
        rest = (list(pipeline[:-1]), *arguments[1:])
        if routed:
            writer = Writer(handle.get_collection(target).with_options(codec_options=CANONICAL), given)
            await writer.check(output)
            await writer.write(output, await self._computed(rest, {**options, **given}))
        elif handle.is_on_mongo(self._name):
            await self._ended_by_mongo(pipeline, target, arguments, {**options, **given})
        else:
            if not handle.needs_mongo():
                raise UnsupportedOperation(
                    output.name, f"{output.collection!r} is on MongoDB, which no configured collection needs any more"
                )
            found = await self._computed(rest, {**options, **given})
            send = functools.partial(sent_to_mongo, handle.driver(), stage, output, found)
            await handle.gated(target, f"aggregate into {target!r}", send)
        return []

    async def _computed(self, arguments: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        """The primary's result, with its values as they are stored."""
        plain = self.with_options(codec_options=CANONICAL)
        return list(await plain.aggregate(*arguments, **options).to_list(None))

    async def _ended_by_mongo(
        self, pipeline: Any, target: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        """MongoDB computes the result and writes it, without versions."""
        checked_pipeline(self._handle, pipeline)
        self._take.unreserved("pipeline", normalise({"": list(pipeline)}, self._options))
        shown = self._router.shown(self._name, pipeline)
        hidden = hidden_in(shown, self._spec.reserved, self._reserved_of)

        async def call() -> None:
            made = self._own().aggregate(hidden, *arguments[1:], **options)
            made = await made if inspect.isawaitable(made) else made
            await made.to_list(None)

        await self._handle.gated(target, f"aggregate into {target!r}", call)

    async def _written_elsewhere(
        self, passage: Passage, pipeline: Any, target: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> list[Any]:
        """The driver's own write to a collection that is on MongoDB alone, as this one is."""
        given: Mapping[str, Any] = {"pipeline": checked_pipeline(self._handle, pipeline), **options}
        if passage is Passage.STAMPED:
            given, arguments = self._stamping().read("aggregate", (pipeline, *arguments), options)[1], ()

        async def call() -> list[Any]:
            rest = dict(given)
            made = self._own().aggregate(rest.pop("pipeline"), *arguments, **rest)
            made = await made if inspect.isawaitable(made) else made
            return list(await made.to_list(None))

        return list(await self._handle.gated(target, f"aggregate into {target!r}", call))

    def list_indexes(self, *arguments: Any, **options: Any) -> Any:
        """A cursor over the indexes: while only MongoDB is written, MongoDB's indexes."""
        if self._handle.expected(self._name) is Passage.VERSIONED:
            return self._versioned("list_indexes", arguments, options)

        def make(passage: Passage) -> Any:
            if passage is Passage.VERSIONED:
                return self._versioned("list_indexes", arguments, options)
            return self._own().list_indexes(*arguments, **options)

        return RoutedAnswer(self, None, make, hidden=lambda index: self._is_ours(index.get("name")))

    # --- indexes and the collection itself ----------------------------------------------------------------------

    @at_once
    async def create_index(self, keys: Any, *arguments: Any, **options: Any) -> str:
        """While only MongoDB is written, the driver's own, whatever the index. If the configuration has created an
        index that serves it under another name, that name is returned, as in other phases; see `Collection`."""
        with self._traced("create_index"):
            session = without_session("create_index", (keys, *arguments), options)[0]
            passage, answer = await self._handle.forwarder().write(
                self._name, None, lambda passage: self._indexed(keys, arguments, options), session
            )
            if passage is Passage.VERSIONED:
                answer = await self._versioned("create_index", (keys, *arguments), options)
            return str(answer)

    async def _indexed(self, keys: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
        wanted = indexes.requested(self._spec, keys, options)
        try:
            name = str(await self._own().create_index(keys, *arguments, **options))
        except OperationFailure as error:
            if error.code == _SAME_KEYS and wanted is not None and self._handle.indexes.declares(self._name, wanted):
                return wanted.name
            raise
        if wanted is not None:
            self._spec = self._handle.indexes.note(self._spec, wanted)
        return name

    @at_once
    async def create_indexes(self, indexes: Sequence[Any], *arguments: Any, **options: Any) -> list[str]:
        """See `create_index`."""
        with self._traced("create_indexes"):
            if self._handle.expected(self._name) is Passage.VERSIONED:
                return list(await self._versioned("create_indexes", (indexes, *arguments), options))
            return list(await self._forward_other("create_indexes", (indexes, *arguments), options))

    @at_once
    async def drop(self, *arguments: Any, **options: Any) -> None:
        """While only MongoDB is written the driver's own, which drops the indexes too; see `Collection`."""
        await self._dropped(*arguments, **options)

    async def _dropped(self, *arguments: Any, **options: Any) -> Any:
        """What `drop_collection` of the database does and answers."""
        with self._traced("drop"):
            return await self._forward_other("drop", arguments, options)

    @at_once
    async def rename(self, new_name: str, *arguments: Any, **options: Any) -> Any:
        """The driver's own while only MongoDB is, and always was, written. Otherwise raises UnsupportedOperation."""
        if self._handle.expected(self._name) is Passage.STAMPED:
            raise UnsupportedOperation("rename", "documents carry versions", hint="`shadow finalize` removes them")
        refuse_past(self._handle, [new_name], "rename to")

        async def call() -> Any:
            return await self._forward_other("rename", (new_name, *arguments), options)

        with self._traced("rename"):
            return await self._handle.gated(new_name, f"rename to {new_name!r}", call)

    def watch(self, *arguments: Any, **options: Any) -> Any:
        """The driver's own while only MongoDB is, and always was, written. Otherwise raises UnsupportedOperation."""
        if self._handle.expected(self._name) is Passage.OWN:
            return self._own().watch(*arguments, **options)
        return super().watch(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """A sub-collection, as in the driver; or, while only MongoDB is, and always was, written, the driver's
        attributes besides the verbs of `Collection`. Raises UnsupportedOperation for those otherwise."""
        if name.startswith("_"):
            return super().__getattr__(name)
        is_own = self._handle.expected(self._name) is Passage.OWN
        if name == "get_io_loop" and is_motor(self):
            return asyncio.get_running_loop
        if name in _SEARCH and (is_own or self._handle.is_on_mongo(self._name)):
            return getattr(self._own(), name)
        has_it = hasattr(self._handle.driver_kind(), name) or name in INSTANCE_ATTRIBUTES
        if not has_it and (is_own or name not in _OF_A_DRIVER):
            return self[name]
        if not is_own:
            return super().__getattr__(name)
        return getattr(self._own(), name)


_SEARCH: Final = frozenset({
    "create_search_index", "create_search_indexes", "drop_search_index", "list_search_indexes", "update_search_index",
})  # fmt: skip
"""Verbs of Atlas's own indexes, which neither hold documents nor change any."""
_OF_A_DRIVER: Final = COLLECTION_VERBS | {"get_io_loop", "wrap"}
"""Attributes of one of the drivers' collections: over two stores none becomes a sub-collection, whichever it is."""
_SAME_KEYS: Final = 85
"""IndexOptionsConflict: such an index exists under another name. 86, that another index has its name, is raised to
the application."""


def _as_is(document: Any) -> Any:
    return document


def _forwarding(verb: str, forward: str) -> Any:
    """The verb of `Collection`, on the path that is chosen when it is called."""

    @at_once
    @functools.wraps(getattr(Collection, verb))
    async def forwarded(self: RoutedCollection, *arguments: Any, **options: Any) -> Any:
        with self._traced(verb, arguments, options):
            return await getattr(self, forward)(verb, arguments, options)

    return forwarded


for _verb in READS - {"find", "aggregate"}:
    setattr(RoutedCollection, _verb, _forwarding(_verb, "_forward_read"))
for _verb in WRITES:
    setattr(RoutedCollection, _verb, _forwarding(_verb, "_forward_write"))
for _verb in ("drop_index", "drop_indexes"):
    setattr(RoutedCollection, _verb, _forwarding(_verb, "_forward_other"))
for _verb in ("options", "index_information"):
    setattr(RoutedCollection, _verb, _forwarding(_verb, "_forward_look"))
