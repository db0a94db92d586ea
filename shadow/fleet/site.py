"""What a participant asks of its own process."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from shadow.control.flip_record import RouteRecord, Routing
from shadow.model.background import Background
from shadow.model.phase import Phase, Route, StoreName

__all__ = ["Site"]


class Site(Protocol):
    """What a participant does in its own process."""

    def routes(self) -> Mapping[str, Route]:
        """Those of the configured collections."""

    def wanted(self) -> Mapping[str, StoreName]:
        """The primary that the configuration asks for, by collection."""

    def wants_both(self) -> Mapping[str, Phase]:
        """The collections that the configuration wants to be written to both stores, with their phase."""

    def noted(self, seen: Routing, until: float) -> None:
        """What the routing record says, which may be relied on until a moment of `steady`. Waits for nothing."""

    def drained(self, collections: Iterable[str]) -> bool:
        """Whether no write that moves no version is under way, or may still arrive, in these."""

    def arrived(self, collections: Iterable[str]) -> bool:
        """Whether no write to one store of these alone that has ended without an answer may still arrive either."""

    async def write_both(self, collections: list[str]) -> None:
        """Begins dual writes of these, between two writes."""

    def holding(self, collections: list[str]) -> AbstractAsyncContextManager[None]:
        """Entered when the writes of these are held and the secondary is level. Raises `NotCaughtUp`."""

    async def switch(self, placed: Mapping[str, RouteRecord]) -> None:
        """Puts primaries in force; the writes are held, or none was taken yet."""

    async def vouch(self, collections: Collection[str], *, whole: bool = True) -> str:
        """Why journal and stores of these are not those that the control store knows; "" if they are. `whole`: each
        has to say so; otherwise one that does not answer, as a store that was switched off, is none that says no."""

    async def figures(self) -> Mapping[str, Any]:
        """What the gates are judged by."""

    async def is_empty(self) -> bool:
        """Whether the journal holds nothing."""

    def failed(self, task: Background, error: BaseException | None) -> None:
        """A part of the work has failed, and goes on; None: it works."""

    def heard(self, what: str, **about: Any) -> None:
        """An event: "lost" and "found" (the control store; `said`), "flip" (`state`: done, aborted, rehearsed; `said`,
        `collections`), "gap" (dual writes of `collections` were interrupted)."""
