"""The indexes that an application requests at runtime: created on the stores in use, and remembered.

While MongoDB is the primary, the server decides what is created, listed and dropped. What of it has no counterpart on
DynamoDB is reported: in the log, in the status, and as a gate (`IndexReport`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from bson.son import SON
from pymongo.errors import OperationFailure
from pymongo.operations import IndexModel

from shadow.control.index_record import MadeIndexes
from shadow.fleet.made_indexes import SharedIndexes
from shadow.model.events import ComponentFailed
from shadow.model.index_gaps import gaps_of, is_own
from shadow.model.index_listing import ID_INDEX
from shadow.model.phase import Route, StoreName
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.stores.base import Constrained, Indexed, Store
from shadow.surface.calls import hints
from shadow.surface.indexing.index_conflicts import Existing, conflict
from shadow.surface.indexing.index_memory import IndexMemory, constraint_of, meaning
from shadow.surface.indexing.index_report import IndexReport
from shadow.surface.indexing.indexes import (
    IndexRequest,
    as_entry,
    check_droppable,
    check_models,
    check_not_own,
    documents,
    index_keys,
    index_name,
    index_not_found,
    is_not_found,
    listed,
    requested,
    wanted,
)

__all__ = ["IndexUpkeep"]

_SAME_KEYS: Final = 85
"""IndexOptionsConflict: such an index exists under another name."""


class IndexUpkeep:
    """`specs`: the configured collections by name, to which unique indexes are added; `configured`: those of the
    configuration only; `route` of a collection; `stores` of the running event loop."""

    def __init__(
        self,
        specs: MutableMapping[str, CollectionSpec],
        configured: Callable[[], Mapping[str, CollectionSpec]],
        route: Callable[[str], Route],
        stores: Callable[[], Mapping[StoreName, Store]],
        report: IndexReport,
        shared: SharedIndexes,
    ) -> None:
        self._specs = specs
        self._configured = configured
        self._route = route
        self._stores = stores
        self._reporter = shared.reporter
        self._report = report
        self._memory = IndexMemory(shared, lambda name: self._specs[name])

    # --- what the application asks for --------------------------------------------------------------------------

    async def create(self, spec: CollectionSpec, keys: Any, options: Mapping[str, Any]) -> tuple[str, CollectionSpec]:
        """Implements `create_index`: the index's name, and the collection's definition from then on. With MongoDB as
        primary it is the server's index, or its error; with DynamoDB see `add`."""
        server = self._server(spec.name)
        if server is None:
            pairs = index_keys(keys)
            there = await self._there(spec)
            name = await self._remembered(spec, pairs, options, there)
            if name is not None:
                return name, self._specs[spec.name]
            return await self.add(spec, wanted(self._specs[spec.name], pairs, options), there)
        check_not_own(spec, _pairs(keys), options)
        request_or_none = requested(spec, keys, options)
        try:
            name = await server.create_index(spec.name, keys, options)
        except OperationFailure as error:
            if error.code == _SAME_KEYS and request_or_none and self.declares(spec.name, request_or_none):
                return request_or_none.name, spec
            raise
        spec = await self._created(spec, request_or_none)
        await self.look(spec.name)
        return name, spec

    async def create_all(
        self, spec: CollectionSpec, models: Sequence[IndexModel], options: Mapping[str, Any]
    ) -> tuple[list[str], CollectionSpec]:
        """Implements `create_indexes`: all are checked before one is created."""
        check_models(models)
        asked = [(list(each.document["key"].items()), _without_key(each.document)) for each in models]
        server = self._server(spec.name)
        if server is None:
            there = await self._there(spec)
            pairs = [(index_keys(keys), more) for keys, more in asked]
            left = [each for each in pairs if await self._remembered(spec, *each, there) is None]
            conflict(there, [Existing.read(wanted(spec, keys, more).raw) for keys, more in left])
            names = []
            for keys, more in asked:
                name, spec = await self.create(spec, keys, more)
                names.append(name)
            return names, spec
        for keys, more in asked:
            check_not_own(spec, keys, more)
        names = await server.create_indexes(spec.name, models, options)
        for keys, more in asked:
            spec = await self._created(spec, requested(spec, keys, more))
        await self.look(spec.name)
        return names, spec

    async def listed(self, spec: CollectionSpec) -> list[Any]:
        """The entries of `listIndexes`, without shadow's own: the server's while MongoDB is the primary, otherwise what
        applications have made."""
        server = self._server(spec.name)
        if server is None:
            return self._shown(spec.name, await self._known(spec.name))
        found = await server.indexes(spec.name)
        return [each for each in found if not is_own(each["name"], spec.reserved)]

    async def drop(self, spec: CollectionSpec, index_or_name: Any, options: Mapping[str, Any]) -> CollectionSpec:
        """Implements `drop_index`: the collection's definition from then on."""
        server = self._server(spec.name)
        if server is None:
            if index_or_name == "*":
                return await self.drop_all(spec, options)
            return await self._drop_remembered(spec, index_or_name)
        name = check_droppable(self._configured_spec(spec.name), index_or_name)
        await server.drop_index(spec.name, name, options)
        return await self._dropped(spec, name)

    async def drop_all(self, spec: CollectionSpec, options: Mapping[str, Any]) -> CollectionSpec:
        """Implements `drop_indexes`: drops every index that `drop` would drop."""
        server = self._server(spec.name)
        if server is None:
            kept = {"_id_", *(each.name for each in self._configured_spec(spec.name).unique)}
            for each in (await self._known(spec.name)).there:
                if each.name not in kept:
                    spec = await self._drop_remembered(spec, each.name)
            return spec
        kept = {"_id_", *(each.name for each in self._configured_spec(spec.name).unique)}
        for each in await self.listed(spec):
            if each["name"] not in kept:
                await server.drop_index(spec.name, each["name"], options)
                spec = await self._dropped(spec, each["name"])
        return spec

    async def dropped(self, spec: CollectionSpec) -> CollectionSpec:
        """Implements `drop` of a collection: its indexes end with it."""
        return await self.drop_all(spec, {})

    async def check_hint(self, collection: str, verb: str, hint: Any) -> None:
        """Raises what the server raises for a hint that names no index, or several; UnsupportedOperation for one that
        would change the result, and where nobody knows which indexes exist."""
        if hints.is_none(verb, hint):
            return
        hints.check_form(verb, hint)
        with contextlib.suppress(OperationFailure):
            if self._is_hinted(collection, verb, hint, self._memory.last(collection)):
                return  # one that another process has dropped meanwhile changes no result either
        found = await self._known(collection)
        if not self._is_hinted(collection, verb, hint, found):
            raise hints.no_such_index(verb) if found.known else hints.unknown_index(verb)

    def has_seen(self, collection: str, hint: Any) -> bool:
        """Whether a hint names an index that this process knows, and that changes no result."""
        with contextlib.suppress(OperationFailure):
            return hints.checked("find", hint, [each.entry() for each in self._memory.last(collection).there])
        return False

    def _is_hinted(self, collection: str, verb: str, hint: Any, found: MadeIndexes) -> bool:
        """Also one of DynamoDB's own indexes, by its name."""
        shown = self._shown(collection, found)
        own = {each.name for each in self._specs[collection].indexes} - {each["name"] for each in shown}
        return hints.checked(verb, hint, shown) or (isinstance(hint, str) and hint in own)

    # --- with MongoDB as primary --------------------------------------------------------------------------------

    def _server(self, collection: str) -> Indexed | None:
        """The store of MongoDB, if it is the primary of the collection."""
        store = self._stores()[self._route(collection).primary]
        return store if isinstance(store, Indexed) else None

    async def _created(self, spec: CollectionSpec, request: IndexRequest | None) -> CollectionSpec:
        """The other store gets the constraint of a unique index that MongoDB has."""
        made = spec
        if request is not None and request.unique and not request.declared:
            made = dataclasses.replace(spec, unique=(*spec.unique, request.constraint()))
            for store in self._in_use(spec.name)[1:]:
                await self._on_index(spec.name, store, store.prepare([made]))
            self._specs[spec.name] = made
        return made

    async def _dropped(self, spec: CollectionSpec, name: str) -> CollectionSpec:
        """MongoDB has dropped an index. A constraint that this process has requested with it ends on DynamoDB too."""
        spec = await self._released(spec, [each for each in spec.unique if each.name == name])
        await self.look(spec.name)
        return spec

    async def _released(self, spec: CollectionSpec, ended: Sequence[UniqueSpec]) -> CollectionSpec:
        """The stores in use no longer keep these values unique by themselves."""
        for one in ended:
            spec = dataclasses.replace(spec, unique=tuple(each for each in spec.unique if each != one))
            self._specs[spec.name] = spec
            for store in self._in_use(spec.name):
                if isinstance(store, Constrained):
                    await self._on_index(spec.name, store, store.release(spec, one))
        return spec

    # --- with DynamoDB as primary -------------------------------------------------------------------------------

    async def _known(self, collection: str) -> MadeIndexes:
        """What the fleet's record has. The constraints in it are enforced by this process from now on."""
        spec = self._specs[collection]
        found = await self._memory.known(collection, self._mongo(collection))
        if found.known:
            await self._follow(spec, found)
        return found

    async def _follow(self, spec: CollectionSpec, found: MadeIndexes) -> None:
        """Enforces what other processes have made unique, and no longer what they have dropped. `spec` is older than
        `found`, so that it has nothing that was recorded since. A failure is reported."""
        store = self._stores()[StoreName.DYNAMO]
        held = {meaning(each) for each in spec.unique}
        meant = [constraint_of(each.entry()) for each in found.there if each.enforced]
        new = [each for each in meant if each is not None and meaning(each) not in held]
        kept = {*(each.name for each in found.there), *(each.name for each in self._configured_spec(spec.name).unique)}
        ended = [each for each in spec.unique if each.name not in kept]
        try:
            if new:
                made = dataclasses.replace(spec, unique=(*spec.unique, *new))
                await store.prepare([made])
                spec = self._specs[spec.name] = made
            await self._released(spec, ended)
        except Exception as error:
            self._reporter.publish(ComponentFailed("index", error))

    def _shown(self, collection: str, found: MadeIndexes) -> list[Any]:
        """As MongoDB would list them: with that of `_id`, and the unique ones of the configuration."""
        entries = [each.entry() for each in found.there]
        spec = self._specs[collection]
        there = {str(each["name"]) for each in entries}
        meant = [made for each in entries if (made := constraint_of(each)) is not None]
        same = {meaning(each) for each in meant}
        more = [as_entry(each) for each in spec.unique if each.name not in there and meaning(each) not in same]
        first = [] if "_id_" in there else [SON({**ID_INDEX, "key": SON(ID_INDEX["key"])})]
        return [*first, *entries, *more]

    async def _there(self, spec: CollectionSpec) -> list[Existing]:
        """The indexes beside which another one is made, those included that were made on MongoDB past shadow."""
        there = [Existing.read(each) for each in self._shown(spec.name, await self._known(spec.name))]
        mongo = self._mongo(spec.name)
        if mongo is not None:
            try:
                found = [Existing.read(each) for each in await mongo.indexes(spec.name)]
            except Exception as error:
                self._reporter.publish(ComponentFailed("index", error))
                return there
            names = {each.name for each in there}
            there += [each for each in found if each.name not in names and not is_own(each.name, spec.reserved)]
        return there

    async def _remembered(
        self, spec: CollectionSpec, keys: Any, options: Mapping[str, Any], there: Sequence[Existing]
    ) -> str | None:
        """The name of the index, if it exists just so: then nothing is made. Also of a unique one that DynamoDB cannot
        enforce, whose loss was acknowledged before the flip."""
        made = Existing.read(listed(spec, keys, options))
        named = next((each for each in there if each.name == made.name), None)
        if named is None or (named.signature, named.options) != (made.signature, made.options):
            return None
        found = (await self._memory.known(spec.name, None)).named(made.name)
        return made.name if found is not None and found in (await self._known(spec.name)).there else None

    async def add(
        self, spec: CollectionSpec, wanted: IndexRequest, there: Sequence[Existing]
    ) -> tuple[str, CollectionSpec]:
        """The index is recorded for the fleet and created on MongoDB, if that is in use. A unique one is enforced
        first, on the primary and then on MongoDB. A failure of the secondary is counted and not raised. MongoDB gets no
        index by which it would delete documents that DynamoDB keeps. Raises MongoDB's errors for conflicting
        indexes."""
        if wanted.paths == ("_id",):
            return wanted.plain_name, spec
        same = [each for each in there if each.name == wanted.name]
        if self.declares(spec.name, wanted) and same and same[0].signature == wanted.existing().signature:
            return wanted.name, spec
        conflict(there, [wanted.existing()])
        if wanted.plain and not wanted.declared:
            self._report.add(spec.name, gaps_of([wanted.raw], self._configured_spec(spec.name)))
        made = spec
        if wanted.unique and not wanted.declared:
            made = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
            await self._enforce(spec, made, wanted.constraint())
        found = await self._memory.made(spec.name, wanted.raw, enforced=wanted.unique)
        self._specs[spec.name] = made
        await self._settle(spec.name, found)
        return wanted.plain_name, made

    async def _enforce(self, spec: CollectionSpec, made: CollectionSpec, constraint: UniqueSpec) -> None:
        """DynamoDB keeps values unique from now on, or raises. Then it ends what it began to enforce for the check: to
        the application there is no such index."""
        store = self._stores()[StoreName.DYNAMO]
        try:
            await store.prepare([made])
        except Exception:
            if isinstance(store, Constrained):
                try:
                    await store.release(spec, constraint)
                except Exception as error:
                    self._reporter.publish(ComponentFailed("index", error))
            raise

    async def _settle(self, collection: str, found: MadeIndexes) -> None:
        mongo = self._mongo(collection)
        if mongo is not None:
            await self._memory.settle(found, mongo, leads=False)

    async def _drop_remembered(self, spec: CollectionSpec, index_or_name: Any) -> CollectionSpec:
        """Drops an index for every process, on MongoDB first: a value that it still refuses would not follow."""
        name = check_droppable(self._configured_spec(spec.name), index_or_name)
        found = (await self._known(spec.name)).named(name)
        if found is None or found not in (await self._known(spec.name)).there:
            raise index_not_found(name)
        await self._settle(spec.name, await self._memory.dropped(spec.name, name))
        self._report.forget(spec.name, name)
        now = self._specs[spec.name]
        return await self._released(now, [each for each in now.unique if each.name == name])

    # --- in phase off, and for all ------------------------------------------------------------------------------

    def note(self, spec: CollectionSpec, wanted: IndexRequest) -> CollectionSpec:
        """Records an index that the driver created while only MongoDB is written. From then on this process keeps a
        unique one on both stores; what DynamoDB cannot have is reported."""
        if wanted.declared or not (wanted.plain or wanted.unique):
            return spec
        if wanted.plain:
            self._report.add(spec.name, gaps_of([wanted.raw], self._configured_spec(spec.name)))
            return spec
        made = self._specs[spec.name] = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        return made

    def ended(self, spec: CollectionSpec, index_or_name: Any = None) -> CollectionSpec:
        """Records that the driver has dropped an index, or all (None), while only MongoDB is written."""
        kept = self._configured_spec(spec.name).unique
        name = None if index_or_name is None else index_name(index_or_name)
        unique = tuple(each for each in spec.unique if each in kept or (name is not None and each.name != name))
        self._report.forget(spec.name, name)
        if unique == spec.unique:
            return spec
        made = self._specs[spec.name] = dataclasses.replace(spec, unique=unique)
        return made

    async def look(self, collection: str) -> None:
        """Brings the fleet's record and MongoDB into accord, and reports which of MongoDB's indexes have no
        counterpart. Raises nothing: what the server does not answer stays as it was known."""
        mongo, leads = self._mongo(collection), self._server(collection) is not None
        try:
            if mongo is not None:
                found = await self._memory.accord(collection, mongo, leads=leads)
        except Exception as error:
            self._report.failed(collection, error)
            return
        if leads and mongo is not None:
            entries = [each.entry() for each in found.there]
            self._report.looked(collection, gaps_of(entries, self._specs[collection]))
        elif not leads:
            await self._known(collection)

    def _mongo(self, collection: str) -> Indexed | None:
        """The store of MongoDB, if it is in use."""
        return next((store for store in self._in_use(collection) if isinstance(store, Indexed)), None)

    def _declared(self, collection: str) -> Mapping[str, Any]:
        """The indexes of the configuration, and that of `_id`, by name."""
        return documents(self._configured_spec(collection))

    def _configured_spec(self, collection: str) -> CollectionSpec:
        return self._configured().get(collection, CollectionSpec(collection))

    def declares(self, collection: str, wanted: IndexRequest) -> bool:
        """Whether the request is for a unique index of the configuration, which `prepare` has created on MongoDB under
        its own name; indexes that this process has requested do not count."""
        return wanted.unique and wanted.declared and wanted.name in self._declared(collection)

    def _in_use(self, collection: str) -> list[Store]:
        """The stores that an operation on a collection may reach, the primary first."""
        route = self._route(collection)
        names = (route.primary, route.secondary) if route.dual_write else (route.primary,)
        return [self._stores()[name] for name in names]

    async def _on_index(self, collection: str, store: Store, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            if store.name is self._route(collection).primary or is_not_found(error):
                raise
            self._reporter.publish(ComponentFailed("index", error))


def _without_key(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "key"}


def _pairs(keys: Any) -> Any:
    """What a driver takes for the keys of an index, as a string or a list."""
    return list(keys.items()) if isinstance(keys, Mapping) else keys
