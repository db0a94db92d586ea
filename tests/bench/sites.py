"""Shadows for the benches: one for each way in which a collection can be routed, all over the same two stores."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shadow import Shadow
from shadow.config import Settings
from shadow.embedded.servers import CREDENTIALS
from tests.bench.harness import Contender

__all__ = ["NOTES", "PREFIX", "Sites"]

NOTES: Final = "notes"
PREFIX: Final = "bench-"


@dataclass
class Sites:
    """Makes each Shadow once, and closes all of them at the end of `async with`."""

    mongo_url: str
    database: str
    endpoint: str
    folder: Path
    tag: str = ""
    """Set for Shadows that reach the secondary by another way."""
    _made: dict[tuple[str, str, float, bool], Shadow] = field(default_factory=dict, init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    def adopt(self, other: Sites) -> None:
        """Closes the other's Shadows with its own."""
        self._stack.push_async_callback(other._stack.aclose)

    async def __aenter__(self) -> Sites:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def shadow(self, driver: str, phase: str, shadow_reads: float = 1.0, *, traces: bool = True) -> Shadow:
        made = self._made.get((driver, phase, shadow_reads, traces))
        if made is None:
            made = Shadow.from_settings(self._settings(driver, phase, shadow_reads, traces))
            self._made[driver, phase, shadow_reads, traces] = await self._stack.enter_async_context(made)
        return made

    def _settings(self, driver: str, phase: str, shadow_reads: float, traces: bool) -> Settings:
        return Settings(
            mongo={"url": self.mongo_url, "database": self.database, "driver": driver},
            dynamo={
                "endpoint_url": self.endpoint,
                "table_prefix": PREFIX,
                "access_key_id": CREDENTIALS["aws_access_key_id"],
                "secret_access_key": CREDENTIALS["aws_secret_access_key"],
            },
            journal={"url": f"sqlite:///{self.folder / f'{self.tag}{driver}-{phase}-{shadow_reads}-{traces}.db'}"},
            observe={"traces": traces},
            defaults={"phase": phase, "shadow_reads": shadow_reads},
            collections={NOTES: {"indexes": [{"name": "user_id-index", "hash": "user_id"}]}},
        )

    async def plant(self, notes: Sequence[dict[str, Any]]) -> None:
        """Puts the documents into both stores."""
        shadow = await self.shadow("motor", "dual_write")
        await shadow.prepare()
        # Whoever asks by a field has an index for it, on both sides.
        await shadow[NOTES].create_index("user_id")
        await shadow[NOTES].insert_many([dict(each) for each in notes], ordered=False)
        assert await shadow.settled(60)


def of(shadow: Shadow, name: str, call: Any, *, share: float = 1.0) -> Contender:
    """A contender that is done when the Shadow has followed and compared everything."""

    def shed() -> int:
        totals = shadow.admin.metrics_registry.totals()
        return sum(totals["shed"].values()) + sum(totals["deferred"].values())

    async def settled() -> None:
        assert await shadow.settled(60), "the secondary did not follow within a minute"

    return Contender(name, call, settled, shed, share)
