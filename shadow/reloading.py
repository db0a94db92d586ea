"""Reloads the configuration file while it is in use: applies what may change, and reports what may not as a fault."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Protocol

from pymongo.errors import NetworkTimeout, PyMongoError

from shadow.compare.rules import Excuses
from shadow.config import Settings, parse
from shadow.errors import ConfigurationError, Fault, UnsupportedOperation
from shadow.fleet.fleet import Fleet
from shadow.hooks.hooks import Hooks
from shadow.host.supervisor import Turn
from shadow.model.events import ConfigReloaded
from shadow.model.phase import Phase, Route, neighbours
from shadow.model.schema import CollectionSpec
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report
from shadow.runtime import Runtime, RuntimeContext

__all__ = ["Reloaded", "Reloading", "read"]


class Reloaded(Protocol):
    """What a configuration is applied to."""

    settings: Settings
    specs: dict[str, CollectionSpec]
    parts: RuntimeContext
    fleet: Fleet
    report: Report
    hooks: Hooks
    excuses: Excuses
    metrics_registry: Metrics

    def runtime(self) -> Runtime: ...


class Reloading:
    """`path`: of the file; None: there is none, and nothing changes."""

    def __init__(self, engine: Reloaded, path: Path | None) -> None:
        self._engine = engine
        self._path = path
        self._text = read(path)
        self._pending = False

    def changed(self) -> str | None:
        """The text of the file, if it differs from the text in force. Reads the file. Raises OSError."""
        text = read(self._path)
        return None if text == self._text else text

    async def watch(self, turn: Turn) -> None:
        """Reads the file every `watch_every` seconds and compares its text: times of mounted files are unreliable."""
        while True:
            turn()
            await asyncio.sleep(self._engine.settings.watch_every)
            text = await asyncio.to_thread(read, self._path)
            if text is not None and (text != self._text or self._pending):
                # A failure in between is retried, too.
                self._pending = True
                self._pending = not await self.reload(text)

    async def reload(self, text: str) -> bool:
        """Applies the routes that `text` (YAML) asks for. A fault changes nothing, and is logged and counted. False:
        a change of primary, or the start of dual writes, is still pending."""
        first_look = text != self._text
        self._text = text
        try:
            wanted = parse(text, source=str(self._path))
            self._check_reload(wanted)
            await self._check_kinds(wanted)
        except ConfigurationError as error:
            self._engine.report.publish(ConfigReloaded(False, str(error)))
            return True
        except PyMongoError as error:
            if first_look:
                self._engine.report.publish(
                    ConfigReloaded(False, f"what the collections are is not known yet ({type(error).__name__})")
                )
            return False
        # A newer file replaces what an older one still had pending.
        self._engine.fleet.wishes(wanted.routes(), wanted.forced(), wanted.ramps(), wanted.flip.plan())
        done = [await self._engine.fleet.change(name, wanted.route(name)) for name in wanted.collections]
        if all(done):
            self._put_in_force(wanted)
        elif first_look:
            self._engine.report.publish(ConfigReloaded(False, "a change of primary waits: see event flip.refused"))
        return all(done)

    def _put_in_force(self, wanted: Settings) -> None:
        self._engine.settings = wanted
        self._engine.excuses.replace(wanted.rules())
        self._engine.hooks.replace(wanted.hook_list())
        self._engine.metrics_registry.excuses(self._engine.excuses.names())
        self._engine.report.publish(ConfigReloaded(True))

    def _check_reload(self, wanted: Settings) -> None:
        """Raises `ConfigurationError` for what cannot change while it runs, and for a leap between phases."""
        self._check_unchanged(wanted)
        faults = [fault for name in wanted.collections if (fault := self._leap(name, wanted.route(name)))]
        if faults:
            raise ConfigurationError(str(self._path), faults)

    def _check_unchanged(self, wanted: Settings) -> None:
        faults = [
            Fault(section, "changed", "a restart: only routing can change while it runs")
            for section in ("mongo", "dynamo", "journal", "control", "limits", "observe", "admin", "watch_every")
            if getattr(wanted, section) != getattr(self._engine.settings, section)
        ]
        if wanted.specs() != self._engine.specs:
            faults.append(Fault("collections", "indexes, names or constraints changed", "a restart"))
        if faults:
            raise ConfigurationError(str(self._path), faults)

    async def _check_kinds(self, wanted: Settings) -> None:
        """Dual writes do not begin for a collection that would have to refuse them: the application continues as it
        is. Raises what the driver raises where that cannot be checked."""
        faults = []
        for name in wanted.collections:
            if wanted.route(name).dual_write and not self._engine.parts.routes[name].dual_write:
                try:
                    await self._engine.runtime().admission.look(name)
                except UnsupportedOperation as error:
                    faults.append(Fault(f"collections.{name}.phase", error.message, error.hint))
                except TimeoutError as error:
                    raise NetworkTimeout("no answer") from error
        if faults:
            raise ConfigurationError(str(self._path), faults)

    def _leap(self, name: str, wanted: Route) -> Fault | None:
        now = self._engine.parts.routes[name]
        if self._engine.fleet.decides(name, wanted):
            return None
        # Pending dual writes count as begun.
        now = dataclasses.replace(now, phase=self._engine.fleet.wants_both().get(name, now.phase))
        if wanted.phase not in (now.phase, *neighbours(now.phase)):
            return Fault(f"collections.{name}.phase", str(wanted.phase), f"one step at a time from {now.phase}")
        if wanted.primary is not now.primary and not (now.phase is wanted.phase is Phase.SHADOW):
            return Fault(f"collections.{name}.primary", str(wanted.primary), "phase shadow before and after a flip")
        return None

    def begin_with(self, text: str) -> None:
        self._text = text
        try:
            wanted = parse(text, source=str(self._path))
            self._check_unchanged(wanted)
        except ConfigurationError as error:
            self._engine.report.publish(ConfigReloaded(False, str(error)))
            return
        self._engine.fleet.wishes(wanted.routes(), wanted.forced(), wanted.ramps(), wanted.flip.plan())
        self._put_in_force(wanted)


def read(path: Path | None) -> str | None:
    """The text of the file. Raises OSError."""
    return None if path is None else path.read_text(encoding="utf-8")
