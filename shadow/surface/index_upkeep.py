"""The indexes that an application requests at runtime: created on the stores in use, and remembered.

While MongoDB is the primary, the server decides what is created, listed and dropped. What of it has no counterpart on
DynamoDB is reported: in the log, in the status, and as a gate (`IndexReport`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

from pymongo.errors import OperationFailure
from pymongo.operations import IndexModel

from shadow.model.events import ComponentFailed, Reporter
from shadow.model.index_gaps import gaps_of, is_own
from shadow.model.phase import Route, StoreName
from shadow.model.schema import CollectionSpec
from shadow.stores.base import Constrained, Indexed, Store
from shadow.surface.index_report import IndexReport
from shadow.surface.indexes import (
    Existing,
    IndexRequest,
    check_droppable,
    check_not_own,
    conflict,
    documents,
    index_keys,
    index_name,
    index_not_found,
    is_not_found,
    requested,
    to_drop,
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
        reporter: Reporter,
        report: IndexReport,
    ) -> None:
        self._specs = specs
        self._configured = configured
        self._route = route
        self._stores = stores
        self._reporter = reporter
        self._report = report
        self._asked_for: dict[str, dict[str, Existing]] = {}
        """By collection and name: the indexes that this process has requested."""

    # --- what the application asks for --------------------------------------------------------------------------

    async def create(self, spec: CollectionSpec, keys: Any, options: Mapping[str, Any]) -> tuple[str, CollectionSpec]:
        """Implements `create_index`: the index's name, and the collection's definition from then on. With MongoDB as
        primary it is the server's index, or its error; with DynamoDB see `add`."""
        server = self._server(spec.name)
        if server is None:
            request = wanted(spec, index_keys(keys), options)
            return request.name, await self.add(spec, request)
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
        asked = [(list(each.document["key"].items()), _without_key(each.document)) for each in models]
        server = self._server(spec.name)
        if server is None:
            await self.check(spec, [wanted(spec, index_keys(keys), more) for keys, more in asked])
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

    async def listed(self, spec: CollectionSpec) -> list[Any] | None:
        """The entries of `listIndexes`, without shadow's own; None where MongoDB is not the primary."""
        server = self._server(spec.name)
        if server is None:
            return None
        found = await server.indexes(spec.name)
        return [each for each in found if not is_own(each["name"], spec.reserved)]

    async def drop(self, spec: CollectionSpec, index_or_name: Any, options: Mapping[str, Any]) -> CollectionSpec:
        """Implements `drop_index`: the collection's definition from then on."""
        server = self._server(spec.name)
        if server is None:
            await self._drop_elsewhere(spec.name, to_drop(spec, index_or_name))
            return spec
        name = check_droppable(self._configured_spec(spec.name), index_or_name)
        await server.drop_index(spec.name, name, options)
        return await self._dropped(spec, name)

    async def drop_all(self, spec: CollectionSpec, options: Mapping[str, Any]) -> CollectionSpec:
        """Implements `drop_indexes`: drops every index that `drop` would drop."""
        server = self._server(spec.name)
        if server is None:
            for name in list(self._asked_for.get(spec.name, {})):
                if name not in documents(spec):
                    await self._drop_elsewhere(spec.name, name)
            return spec
        kept = {"_id_", *(each.name for each in self._configured_spec(spec.name).unique)}
        for each in await self.listed(spec) or ():
            if each["name"] not in kept:
                await server.drop_index(spec.name, each["name"], options)
                spec = await self._dropped(spec, each["name"])
        return spec

    async def dropped(self, spec: CollectionSpec) -> CollectionSpec:
        """Implements `drop` of a collection: the server's indexes end with it where MongoDB is the primary."""
        return spec if self._server(spec.name) is None else await self.drop_all(spec, {})

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
        if request is not None:
            self._asked_for.setdefault(spec.name, {})[request.plain_name] = request.existing()
        return made

    async def _dropped(self, spec: CollectionSpec, name: str) -> CollectionSpec:
        """MongoDB has dropped an index. A constraint that this process has requested with it ends on DynamoDB too."""
        self._asked_for.get(spec.name, {}).pop(name, None)
        ended = next((each for each in spec.unique if each.name == name), None)
        if ended is not None:
            spec = dataclasses.replace(spec, unique=tuple(each for each in spec.unique if each != ended))
            self._specs[spec.name] = spec
            for store in self._in_use(spec.name)[1:]:
                if isinstance(store, Constrained):
                    await self._on_index(spec.name, store, store.release(spec, ended))
        await self.look(spec.name)
        return spec

    # --- with DynamoDB as primary -------------------------------------------------------------------------------

    async def add(self, spec: CollectionSpec, wanted: IndexRequest) -> CollectionSpec:
        """A unique index that the configuration does not declare is created on both stores, the primary first, and
        enforced from then on by this process; another one is created on MongoDB. A store that is not in use gets no
        request, and a failure of the secondary is counted and not raised. MongoDB gets no index by which it would
        delete documents that DynamoDB keeps."""
        await self.check(spec, [wanted])
        stores = self._in_use(spec.name)
        expires = "expireAfterSeconds" in wanted.options
        if wanted.plain:
            if not wanted.declared:
                self._report.add(spec.name, gaps_of([wanted.listed()], self._configured_spec(spec.name)))
            for store in stores if not expires else ():
                await self._on_index(
                    spec.name,
                    store,
                    store.ensure_index(spec.name, wanted.keys, wanted.plain_name, **_creation(wanted)),
                )
        self._asked_for.setdefault(spec.name, {})[wanted.plain_name] = wanted.existing()
        if wanted.plain or wanted.declared:
            return spec
        made = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        for store in stores:
            await self._on_index(spec.name, store, store.prepare([made]))
        self._specs[spec.name] = made
        return made

    async def check(self, spec: CollectionSpec, wanted: Sequence[IndexRequest]) -> None:
        """Raises MongoDB's errors for conflicting indexes: compared with the indexes of MongoDB, if it is in use and
        responds, otherwise with those that this process has requested."""
        there = list(self._asked_for.get(spec.name, {}).values())
        for store in self._in_use(spec.name):
            if isinstance(store, Indexed):
                try:
                    there = [Existing.read(raw) for raw in await store.indexes(spec.name)]
                except Exception as error:
                    # Without the right to list them, the server reports conflicts when an index is created.
                    is_primary = store.name is self._route(spec.name).primary
                    if is_primary and getattr(error, "code", None) not in (13, 8000):
                        raise
        conflict(there, wanted, self._declared(spec.name))

    async def _drop_elsewhere(self, collection: str, name: str) -> None:
        """Drops an index that the configuration does not declare: it can only be on MongoDB."""
        stores = [store for store in self._in_use(collection) if isinstance(store, Indexed)]
        asked = self._asked_for.get(collection, {}).pop(name, None)
        self._report.forget(collection, name)
        if not stores and asked is None:
            raise index_not_found(name)
        for store in stores:
            try:
                await store.drop_index(collection, name, {})
            except Exception as error:
                if is_not_found(error) and asked is not None:
                    continue  # one that only DynamoDB's application has asked for
                if is_not_found(error):
                    raise
                self._reporter.publish(ComponentFailed("index", error))

    # --- in phase off, and for all ------------------------------------------------------------------------------

    def note(self, spec: CollectionSpec, wanted: IndexRequest) -> CollectionSpec:
        """Records an index that the driver created while only MongoDB is written. From then on this process keeps a
        unique one on both stores; what DynamoDB cannot have is reported."""
        if wanted.declared or not (wanted.plain or wanted.unique):
            return spec
        if wanted.plain:
            self._report.add(spec.name, gaps_of([wanted.listed()], self._configured_spec(spec.name)))
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
        """Reports which of MongoDB's indexes have no counterpart. Raises nothing: what the server does not answer stays
        as it was known."""
        server = self._server(collection)
        if server is None:
            return
        try:
            found = await server.indexes(collection)
        except Exception as error:
            self._report.failed(collection, error)
            return
        self._report.looked(collection, gaps_of(found, self._specs[collection]))

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


def _creation(request: IndexRequest) -> dict[str, Any]:
    return {name: value for name, value in request.creation().items() if name != "name"}


def _pairs(keys: Any) -> Any:
    """What a driver takes for the keys of an index, as a string or a list."""
    return list(keys.items()) if isinstance(keys, Mapping) else keys
