"""`shadow.admin`: the interface for operators."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import Any

from shadow.compare.rules import Excuses
from shadow.config import Settings, where
from shadow.engine import Engine
from shadow.fleet.fleet import Fleet
from shadow.fleet.health_gates import Readiness
from shadow.fleet.status import ProcessStatus, as_json
from shadow.host.supervisor import Supervisor
from shadow.jobs.target import JobRefused, JobTarget
from shadow.journal.base import JournalStats, Pending
from shadow.model.phase import Route, StoreName
from shadow.model.verdict import Healing
from shadow.model.version import Image
from shadow.observe.findings import Findings
from shadow.observe.findings_file import SharedFindings
from shadow.observe.metrics import Metrics
from shadow.observe.pulse import PeriodicTasks
from shadow.observe.report import Report
from shadow.rights import RightsWatch
from shadow.status import check, own_status
from shadow.stores.ranges import Ranged
from shadow.writes.inspect import Explanation, Inspector
from shadow.writes.intents import OnFailure

__all__ = ["Admin"]


class Admin:
    """Status, journal, findings, repairs and flips of one Shadow. Only `images` returns document content."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- components -------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force. A reload replaces them."""
        return self._engine.settings

    @property
    def report(self) -> Report:
        return self._engine.report

    @property
    def fleet(self) -> Fleet:
        return self._engine.fleet

    @property
    def findings(self) -> Findings:
        """The findings of this process."""
        return self._engine.findings

    @property
    def shared_findings(self) -> SharedFindings:
        """The findings of all processes of the host."""
        return self._engine.shared_findings

    @property
    def metrics_registry(self) -> Metrics:
        return self._engine.metrics_registry

    @property
    def excuses(self) -> Excuses:
        return self._engine.excuses

    @property
    def pulse(self) -> PeriodicTasks:
        return self._engine.pulse

    @property
    def supervisor(self) -> Supervisor:
        return self._engine.supervisor

    @property
    def rights(self) -> RightsWatch:
        return self._engine.rights

    # --- operations -------------------------------------------------------------------------------------------

    def routes(self) -> dict[str, Route]:
        """The route in force of each configured collection."""
        return self._engine.routes()

    async def reload(self, text: str) -> bool:
        """See `Reloading.reload`."""
        return await self._engine.reloading.reload(text)

    def metrics(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and the content type."""
        return self.metrics_registry.render()

    async def lagging(self, collection: str, key: Any) -> bool:
        """Whether the journal holds an open intent or a deferred write for the key, from any process."""
        self._engine.runtime()
        return await self._engine.parts.journal.has_open(collection, key)

    async def heal(self, collection: str, key: Any) -> Healing:
        """Copies the primary's state of `key` to the secondary and returns what was done. Raises `NotFollowed` in phase
        `off`, and the stores' own errors."""
        return await self._engine.runtime().replicator.repair(collection, key)

    async def flip(self, collection: str, to: StoreName, reason: str) -> dict[str, Any]:
        """Makes the other store the primary in every process of the fleet, without regard to the gates. Keeps a
        receipt. Shape: {"done": bool, "said": the reason if not done, "held": seconds for which writes were paused}.
        Raises `JobRefused`, `ControlError`."""
        self._engine.runtime()
        return await self.fleet.order(collection, to, reason)

    def inspector(self) -> Inspector:
        """Lists journal entries, explains a key, and repairs what the journal holds."""
        runtime = self._engine.runtime()
        return Inspector(runtime.context, runtime.replicator.repair, runtime.replicator.repair_many)

    async def journal_entries(self, collection: str | None = None, *, limit: int = 100) -> list[Pending]:
        """The journal's entries, oldest first: open intents and deferred keys. Raises `JournalError`."""
        return await self.inspector().entries(limit, collection)

    async def journal_stats(self) -> JournalStats:
        """The number of entries by collection, and the age of the oldest. Raises `JournalError`."""
        return await self._engine.runtime().refresh()

    async def explain(self, collection: str, key: Any) -> Explanation:
        """Everything known about one key: its intents and deferral, the versions on both sides, the paths and types
        that differ, and what a repair would do. No values. Raises `JournalError` and the stores' own errors."""
        return await self.inspector().explain(collection, key)

    async def images(self, collection: str, key: Any) -> tuple[Image, Image]:
        """The current state of `key` in the primary and in the secondary. Raises the stores' own errors."""
        stores, route = self._engine.runtime().stores, self._engine.parts.routes[collection]
        primary, secondary = await asyncio.gather(
            stores[route.primary].image(collection, key), stores[route.secondary].image(collection, key)
        )
        return primary, secondary

    async def trust(self, collection: str) -> None:
        """Marks a collection verified: removes it from `verify_since` in `/status`. Verify the whole collection
        first."""
        self._engine.runtime()
        journal = self._engine.parts.journal
        await journal.trust(collection, await journal.doubts(collection))

    def driver(self) -> Any:
        """The driver's own database object for the running event loop, for example for GridFS. Calls on it bypass
        shadow. Raises `ShadowClosed`, and `StoreUnavailable` if the settings name no MongoDB."""
        return self._engine.driver()

    async def learn(self) -> None:
        """Waits until the primary of each collection is known from the control store, whatever the file says. Raises
        `JournalError`, `ControlError`."""
        self._engine.runtime()
        await self._engine.parts.routes.learnt(writing=True)

    def sides(self, collection: str) -> JobTarget:
        """Both stores of a configured collection, for a job. Raises `JobRefused` for any other collection."""
        if collection not in self._engine.specs:
            raise JobRefused(f"{collection}: not in the configuration", hint="name it under `collections` first")
        runtime = self._engine.runtime()

        async def repair(key: Any) -> Healing:
            return await self.heal(collection, key)

        return JobTarget(
            collection=collection,
            identity=f"{where(self.settings)}|{self._engine.specs[collection]}",
            start=self._engine.parts.routes[collection],
            stores=runtime.stores,
            ranges={name: store.ranges for name, store in runtime.stores.items() if isinstance(store, Ranged)},
            routes=self._engine.parts.routes,
            journal=self._engine.parts.journal,
            limits=self._engine.parts.limits,
            reporter=self.report,
            hasher=self._engine.parts.hasher,
            repair=repair,
            repair_many=functools.partial(runtime.replicator.repair_many, collection),
            findings=self.shared_findings,
            expiry=self._engine.specs[collection].expiry,
            traces=self._engine.traces,
            check_kind=functools.partial(self._engine.check_kind, collection),
        )

    async def status(self) -> dict[str, Any]:
        """The full status as JSON-able data, without document content."""
        return as_json(await self.health())

    async def health(self) -> ProcessStatus:
        """What this process knows of itself, the fleet's status, and the gates."""
        status = await own_status(self._engine)
        gates = await self.fleet.gates(status.health())
        return dataclasses.replace(status, fleet=await self.fleet.status(), readiness=Readiness(tuple(gates)))

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether the application can serve requests, and the result of each check. Ready means that the primaries
        answer and the journal can be written. A secondary that is down, a comparison that does not work, or a failed
        background task is reported, but does not make the application unready."""
        runtime = self._engine.runtime()
        checks = {
            f"primary_{name}": await check(runtime.stores[name].ping())
            for name in {route.primary for route in self.routes().values()}
        }
        checks["journal"] = await check(self._engine.parts.journal.probe())
        needed = dict(checks)
        if self.settings.journal.on_failure is OnFailure.SYNC:
            del needed["journal"]
        ready = all(text == "ok" for text in needed.values())
        down = self.supervisor.down
        checks["background"] = "ok"
        if down:
            checks["background"] = "down: " + ", ".join(f"{task} ({error})" for task, error in sorted(down.items()))
        for name, why in runtime.admission.unfit().items():
            checks[f"collection_{name}"] = f"refused: {why}"
        if self.rights.found:
            checks["rights"] = "; ".join(map(str, self.rights.found))
        for name, each in runtime.reader.canaries.status().items():
            checks[f"comparison_{name}"] = "ok" if each["working"] else f"not working: {each['why_not']}"
        return ready, checks
