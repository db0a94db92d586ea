"""Work beside the calls of the application: makes tables and indexes, checks kinds of collections and rights,
watches for out-of-band writes or relays them, and sweeps what a crash left on DynamoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from pymongo.errors import DuplicateKeyError, PyMongoError

from shadow.errors import (
    ShadowError,
    StoreUnavailable,
    UnsupportedOperation,
)
from shadow.fleet.relay import Relay, RelayContext
from shadow.handle import DatabaseHandle
from shadow.jobs.target import JobRefused
from shadow.journal.server.remote import RemoteJournal
from shadow.model.background import Background
from shadow.model.events import ComponentFailed
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.reads.bypass_watch import WriterWatch
from shadow.rights import LackedRights, ask
from shadow.runtime import Runtime
from shadow.stores.base import Expiring, Judging, OnDriver, Store
from shadow.stores.dynamo.write.sweeping import Sweeps, sweep_forever
from shadow.stores.past import Streaming, TellingBareWrites

__all__ = ["Upkeep"]


class Upkeep(DatabaseHandle):
    writer_watch: WriterWatch | None = None
    relays: Mapping[StoreName, Relay] = MappingProxyType({})
    """Those of the event loop that was used last."""

    async def prepare(self, *, journal: bool = True) -> None:
        """Makes the missing tables and indexes of the configured collections on both stores, and the tables of a
        journal on a server (unless `journal` is False). Wanted options of a table that the server does not support
        are logged. Raises `StoreUnavailable` naming the store that failed, `JournalError`, and
        `UnsupportedOperation` for a collection that is to be written to both stores and cannot be, and for a primary
        that reports no changes where its writers are to be relayed."""
        if journal and isinstance(self.parts.journal, RemoteJournal):
            await self.parts.journal.prepare(self.settings.dynamo.prepare_timeout)
        await asyncio.to_thread(self.fleet.prepare)
        stores = self.runtime().stores
        await self._check_stream(stores, StoreName.MONGO)
        fit = await self._fit(stores[StoreName.MONGO])
        for name, store in stores.items():
            try:
                await store.prepare(fit if name is StoreName.MONGO else self.specs.values())
            except ShadowError:
                raise
            except DuplicateKeyError as error:
                raise StoreUnavailable(
                    f"{name}: a unique index cannot be made, for there are duplicates",
                    hint="settle them first: group over the fields of `unique`",
                ) from error
            except Exception as error:
                raise _not_prepared(name, error) from error
        # Only now: the tables have just got their streams.
        await self._check_stream(stores, StoreName.DYNAMO)

    async def _check_stream(self, stores: Mapping[StoreName, Store], name: StoreName) -> None:
        """Checks that a store reports the changes of the collections whose primary it is, where out-of-band writes are
        to be relayed."""
        routes = self.settings.routes().items()
        store, of = stores[name], [each for each, route in routes if route.dual_write and route.primary is name]
        if self.settings.observe.follow_writers and of and isinstance(store, Streaming):
            try:
                await store.check_stream(of)
            except PyMongoError as error:
                raise error if isinstance(error, ShadowError) else _not_prepared(name, error) from error

    async def _fit(self, store: Store) -> list[CollectionSpec]:
        """The collections that can be prepared on a store. A collection in phase off that cannot be written to both
        stores is left as it is."""
        routes, fit = self.settings.routes(), []
        for name, spec in self.specs.items():
            unfit = None
            if isinstance(store, Judging):
                try:
                    unfit = await store.look(name)
                except PyMongoError as error:
                    raise _not_prepared(store.name, error) from error
            if unfit is None:
                fit.append(spec)
            elif routes[name].dual_write:
                raise unfit.error()
            else:
                self.notices.unfit(name, unfit.reason, unfit.advice)
        return fit

    async def check_kind(self, collection: str) -> None:
        """Checks what a collection is on each store now. Raises `JobRefused` if both stores cannot hold it alike,
        and what the driver raises."""
        try:
            await self.runtime().admission.look(collection)
        except UnsupportedOperation as error:
            raise JobRefused(error.message, hint=error.hint) from error

    def _keep_writers_watched(self, runtime: Runtime) -> None:
        """Watches for out-of-band writes, where the configuration asks for it."""
        store, observe = runtime.stores[StoreName.MONGO], self.settings.observe
        if not observe.watch_writers or observe.follow_writers or not isinstance(store, TellingBareWrites):
            return  # the relay sees what the watch would
        watch = self.writer_watch = WriterWatch(store.bare_writes, runtime.context)
        runtime.keep(Background.WRITERS, watch.run)

    def _keep_writers_relayed(self, runtime: Runtime) -> None:
        """Repairs what is written out of band, where the configuration asks for it."""
        if not self.settings.observe.follow_writers:
            return
        records, beat = self.fleet.records, self.settings.control.heartbeat
        parts = RelayContext(runtime.context, runtime.replicator, records, lambda: tuple(self.specs), beat)
        self.relays = {
            name: Relay(store, name, parts) for name, store in runtime.stores.items() if isinstance(store, Streaming)
        }
        for each in self.relays.values():
            runtime.keep(Background.RELAY, each.run)

    def _keep_swept(self, runtime: Runtime) -> None:
        """Deletes parts of large documents that a crash left on DynamoDB, as long as the runtime lives."""
        store, every = runtime.stores[StoreName.DYNAMO], self.settings.dynamo.sweep_every
        if not every or not isinstance(store, Sweeps):
            return

        def in_use() -> list[str]:
            routes = self.routes().items()
            return [name for name, each in routes if each.dual_write or each.primary is StoreName.DYNAMO]

        def failed(error: Exception) -> None:
            self.report.publish(ComponentFailed("sweep", error))

        swept = self.notices.swept
        runtime.keep(Background.SWEEP, lambda turn: sweep_forever(store, in_use, every, failed, swept, turn))

    async def _lacking_rights(self) -> list[LackedRights]:
        """The rights that the users of MongoDB lack. Also checks for documents that expire."""
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, OnDriver)
        link, handed = store.link, self.clients.mongo is not None
        found = await ask(self.settings, self.routes(), lambda name: link.database(name, own=True), handed_in=handed)
        await self._look_for_expiry()
        return found

    async def _look_for_expiry(self) -> None:
        """Reports once for each collection in two stores whether MongoDB deletes its documents by itself. What the
        server does not answer now is asked again with the next check of rights."""
        store = self.runtime().stores[StoreName.MONGO]
        assert isinstance(store, Expiring)
        for name, route in self.routes().items():
            if not route.dual_write or self.notices.knows_expiry(name):
                continue
            with suppress(PyMongoError, TimeoutError):
                own = self.specs[name].expiry
                fields = [each for each in await store.expiring(name) if own is None or each != own.field]
                self.notices.expiry(name, fields, on_mongo=route.primary is StoreName.MONGO)


def _not_prepared(store: StoreName, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{store}: tables and indexes could not be made ({type(error).__name__})",
        hint="check that the store runs and that the credentials may create tables",
    )
