"""Which store is a collection's primary: what the journal remembers, before what the configuration asks for.

What the journal holds of a collection was written under one primary. A process that began with the other one (an
edited configuration and a restart) would heal those keys the wrong way round: from the store that lags over the one
that does not. So the primary in force is noted in the journal, and a process starts with the one that is noted; the
configured one is a flip that is still to be made, like any other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Final

from shadow.errors import JournalError
from shadow.model.phase import StoreName
from shadow.replicate.journal import Journal
from shadow.replicate.routes import Routes

__all__ = ["Roles"]

_AGAIN: Final = 0.5
"""Seconds before a journal that failed is asked again."""


class Roles:
    """Asks the journal once, before the first operation. `resting`: changes nothing in the journal, for tools.

    `on_kept` is told of a collection, in force, and wanted, where the journal remembers another primary. `lenient`:
    a journal that cannot be read lets writes go on with the configured primary.
    """

    def __init__(
        self,
        journal: Journal,
        routes: Routes,
        on_kept: Callable[[str, StoreName, StoreName], None],
        *,
        resting: bool = False,
        lenient: bool = False,
    ) -> None:
        self._journal = journal
        self._routes = routes
        self._on_kept = on_kept
        self._resting = resting
        self._lenient = lenient
        self._failed: JournalError | None = None
        self._not_before = 0.0
        routes.begin_with(self.learn)

    async def learn(self, *, writing: bool) -> None:
        """Puts the remembered primaries in force. Raises `JournalError` for a write if that cannot be known; reads
        go on with the configured primary, for an old answer is better than none."""
        if self._failed is not None and (not writing or time.monotonic() < self._not_before):
            if writing and not self._lenient:
                raise self._failed
            return
        try:
            await self._learn()
        except JournalError as error:
            self._failed, self._not_before = error, time.monotonic() + _AGAIN
            if writing and not self._lenient:
                raise

    async def _learn(self) -> None:
        routes = self._routes.all()
        dual = {} if self._resting else {name: str(each.primary) for name, each in routes.items() if each.dual_write}
        noted = await self._journal.primaries(dual)
        if self._routes.known:
            # Another operation learnt it meanwhile, and a flip may have been made since.
            return
        self._routes.known = True
        for name, route in routes.items():
            kept = StoreName(noted.get(name, route.primary))
            if kept is route.primary:
                continue
            if route.dual_write:
                self._routes.set(name, dataclasses.replace(route, primary=kept))
                self._on_kept(name, kept, route.primary)
            elif not self._resting:
                # One store alone, by the operator's word: nothing can be brought level any more.
                self._journal.doubt(name)
                await self._journal.set_primary(name, str(route.primary))
