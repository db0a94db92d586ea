"""A whole Shadow, with its settings, metrics and status, over stores in memory that fail when they are told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from shadow import Shadow
from shadow.building import EngineOptions
from shadow.config import Settings, load
from shadow.engine import Engine
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.model.phase import StoreName
from shadow.stores.memory import MemoryStore
from tests.support.faulty import FaultyStore
from tests.support.shadows import COLLECTION

__all__ = ["LIMITS", "Place", "counted"]

LIMITS: Final[dict[str, Any]] = {
    "operation": 40.0,
    "write_deadline": 10.0,
    "read_deadline": 10.0,
    "loop_lag": 0.0,
    "settle": 0.02,
    "recover_every": 0.02,
    "drain": 10.0,
}
"""Generous, so that a loaded machine changes no outcome; a test of a time that runs out makes that one short."""


class Place:
    """Two stores and a journal's file. Each `shadow()` is a process that uses them; MongoDB's part is primary."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal" / "shadow.db"
        self.control = folder / "journal" / "control.db"
        self.inner = {name: MemoryStore(name) for name in StoreName}
        self.stores = {name: FaultyStore(store) for name, store in self.inner.items()}
        self.primary, self.secondary = self.stores[StoreName.MONGO], self.stores[StoreName.DYNAMO]

    def settings(
        self,
        *,
        writes: str = "background",
        phase: str = "shadow",
        primary: str = "mongo",
        on_failure: str = "refuse",
        reads: Mapping[str, Any] | None = None,
        collections: Sequence[str] = (COLLECTION,),
        control: str = "",
        journal: str = "",
        **limits: Any,
    ) -> Settings:
        """`control` and `journal`: other files than those of the place."""
        return Settings.model_validate(
            {
                "mongo": {"url": "mongodb://127.0.0.1:1", "database": "memory"},
                "dynamo": {"endpoint_url": "http://127.0.0.1:1"},
                "journal": {"url": f"sqlite:///{journal or self.journal}", "on_failure": on_failure},
                "limits": {**LIMITS, **limits},
                "control": {"heartbeat": 0.1, "url": f"sqlite:///{control or self.control}"},
                "defaults": {
                    "primary": primary,
                    "phase": phase,
                    "writes": writes,
                    "reads": reads or {},
                    "forced": "a test",
                },
                "collections": {name: {} for name in collections},
            }
        )

    def shadow(self, *, reach: Failpoints = no_failpoint, **changes: Any) -> Shadow:
        """`changes`: those of `settings`, and what `limits` has."""
        return _InMemory(self.settings(**changes), self.stores, reach)

    def file(self, path: Path, *, watch_every: float = 3600.0, heartbeat: float = 0.1, **defaults: Any) -> None:
        """Writes a configuration file, which by default nobody looks at while an event loop runs."""
        content = {
            "mongo": {"url": "mongodb://127.0.0.1:1", "database": "memory"},
            "dynamo": {"endpoint_url": "http://127.0.0.1:1"},
            "journal": {"url": f"sqlite:///{self.journal}"},
            "limits": LIMITS,
            "control": {"heartbeat": heartbeat, "url": f"sqlite:///{self.control}"},
            "watch_every": watch_every,
            "defaults": {"forced": "a test", **defaults},
            "collections": {COLLECTION: {}},
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")

    def from_file(self, path: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Shadow:
        """A process with a configuration file."""
        return _InMemory(load(path, environment), self.stores, no_failpoint, path)

    def held(self, name: StoreName) -> dict[Any, tuple[Any, Any]]:
        """What a store holds, past every fault: key to version and document."""
        images = self.inner[name]._images.get(COLLECTION, {}).values()
        return {key: (image.state, image.document) for key, image in images if image.document is not None}

    async def level(self, shadow: Shadow) -> None:
        """The journal is empty and both stores are equal."""
        assert await shadow.settled(90), (await shadow.admin.status())["journal"]
        assert self.held(StoreName.MONGO) == self.held(StoreName.DYNAMO)


class _InMemory(Shadow):
    def __init__(
        self, settings: Settings, stores: Mapping[StoreName, FaultyStore], reach: Failpoints, path: Path | None = None
    ) -> None:
        self._stores = dict(stores)
        super().__init__(settings, reach=reach, path=path)

    def _built(self, settings: Settings, **options: Any) -> Engine:
        return _Engine(settings, self, EngineOptions(**options))


class _Engine(Engine):
    def _made_stores(self) -> Any:
        return self.database._stores


def counted(shadow: Shadow, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    text = shadow.admin.metrics()[0].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
