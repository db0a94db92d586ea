"""Passes each event to the subscribers of its type. A failing subscriber does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from shadow.model.events import Event, Subscriber

__all__ = ["Publisher"]


class Publisher:
    """`failed` is called once per event for which subscribers raised, and must not raise itself."""

    def __init__(self, subscribers: Iterable[Subscriber], failed: Callable[[], None]) -> None:
        handlers: dict[type[Any], list[Callable[[Any], None]]] = {}
        for subscriber in subscribers:
            for kind, handle in subscriber.handlers().items():
                handlers.setdefault(kind, []).append(handle)
        self._handlers: Final = {kind: tuple(each) for kind, each in handlers.items()}
        self._failed: Final = failed

    def publish(self, event: Event) -> None:
        """In the order of the subscribers. A cancellation propagates."""
        failed = False
        for handle in self._handlers.get(type(event), ()):
            try:
                handle(event)
            except Exception:
                failed = True
        if failed:
            self._failed()
