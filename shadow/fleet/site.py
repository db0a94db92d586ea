"""What a participant needs from its own process."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from shadow.control.flip_record import RouteRecord, Routing
from shadow.model.background import Background
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, Route, StoreName

__all__ = ["Site"]


class Site(Protocol):
    """What a participant calls in its own process."""

    def routes(self) -> Mapping[str, Route]:
        """The routes of the configured collections."""

    def wanted(self) -> Mapping[str, StoreName]:
        """The primary that the configuration asks for, by collection."""

    def wants_both(self) -> Mapping[str, Phase]:
        """The collections that the configuration wants to be written to both stores, with their phase."""

    def noted(self, seen: Routing, until: float) -> None:
        """Receives the routing record, which is valid until a moment of `steady`. Waits for nothing."""

    def drained(self, collections: Iterable[str]) -> bool:
        """Whether no write without a version is in flight in these collections, or may still arrive."""

    def arrived(self, collections: Iterable[str]) -> bool:
        """Whether, in addition, no write to one store of these alone that ended without an answer may still arrive."""

    async def write_both(self, collections: list[str]) -> None:
        """Begins dual writes of these, between two writes."""

    def holding(self, collections: list[str]) -> AbstractAsyncContextManager[None]:
        """Entered once the writes of these are paused and the secondary has caught up. Raises `NotCaughtUp`."""

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        """Puts primaries in force. Writes are paused, or none was made yet."""

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        """Why journal and stores of these are not the ones that the control store knows; "" if they are. `whole`:
        each must confirm it; otherwise a store that does not answer, such as one that was switched off, is no
        objection."""

    async def figures(self) -> Mapping[str, CollectionHealth]:
        """The figures that the gates use."""

    async def is_empty(self) -> bool:
        """Whether the journal is empty."""

    def failed(self, task: Background, error: BaseException | None) -> None:
        """Reports that a background task has failed and continues; None: it works."""

    def notify(self, what: str, **about: Any) -> None:
        """Reports an event: "lost" and "found" (the control store; `said`), "flip" (`state`: done, aborted,
        rehearsed; `said`, `collections`), "gap" (dual writes of `collections` were interrupted)."""
