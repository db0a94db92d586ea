"""The indexes that an application requests at runtime: created on the stores in use, and remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from shadow.model.events import ComponentFailed, Reporter, noted
from shadow.model.phase import Route, StoreName
from shadow.model.schema import CollectionSpec
from shadow.observe.log import Event
from shadow.stores.base import Indexed, Store
from shadow.surface.indexes import Existing, IndexRequest, conflict, documents, index_not_found, is_not_found

__all__ = ["IndexUpkeep"]


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
    ) -> None:
        self._specs = specs
        self._configured = configured
        self._route = route
        self._stores = stores
        self._reporter = reporter
        self._asked_for: dict[str, dict[str, Existing]] = {}
        """By collection and name: the indexes that this process has requested."""

    def note(self, spec: CollectionSpec, wanted: IndexRequest) -> CollectionSpec:
        """Records an index that the driver created while only MongoDB is written. From then on this process keeps a
        unique one on both stores; for a plain one a log line explains how to create it on DynamoDB."""
        if wanted.declared or not (wanted.plain or wanted.unique):
            return spec
        if wanted.plain:
            advice = wanted.advice()
            self._reporter.publish(
                noted(Event.INDEX_UNDECLARED, collection=spec.name, index=wanted.name, advice=advice)
            )
            return spec
        made = self._specs[spec.name] = dataclasses.replace(spec, unique=(*spec.unique, wanted.constraint()))
        return made

    async def add(self, spec: CollectionSpec, wanted: IndexRequest) -> CollectionSpec:
        """Implements `create_index`: a unique index that the configuration does not declare is created on both stores,
        the primary first, and enforced from then on by this process; a plain one is created on MongoDB. A store that is
        not in use gets no request, and a failure of the secondary is counted and not raised."""
        await self.check(spec, [wanted])
        stores = self._in_use(spec.name)
        if wanted.plain:
            if not wanted.declared:
                advice = wanted.advice()
                self._reporter.publish(
                    noted(Event.INDEX_UNDECLARED, collection=spec.name, index=wanted.name, advice=advice)
                )
            for store in stores:
                await self._on_index(
                    spec.name,
                    store,
                    store.ensure_index(spec.name, wanted.keys, wanted.plain_name, sparse=wanted.sparse),
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

    def _declared(self, collection: str) -> Mapping[str, Any]:
        """The indexes of the configuration, and that of `_id`, by name."""
        return documents(self._configured().get(collection, CollectionSpec(collection)))

    def declares(self, collection: str, wanted: IndexRequest) -> bool:
        """Whether the configuration has an index that serves the request; indexes that this process has requested do
        not count."""
        return wanted.declared and wanted.name in self._declared(collection)

    async def drop(self, collection: str, name: str) -> None:
        """Implements `drop_index` for an index that the configuration does not declare: it can only be on MongoDB."""
        stores = [store for store in self._in_use(collection) if isinstance(store, Indexed)]
        asked = self._asked_for.get(collection, {}).pop(name, None)
        if not stores and asked is None:
            raise index_not_found(name)
        for store in stores:
            await self._on_index(collection, store, store.drop_index(collection, name))

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
