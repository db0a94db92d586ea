"""One write on its way to the secondary, as the work queue holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shadow.model.operation import Verb, Write
from shadow.model.phase import Route
from shadow.model.version import Key
from shadow.traces.spans import Cause

__all__ = ["Replica"]


@dataclass(slots=True, eq=False)
class Replica:
    """The job that replicates one write: `alone` does it by `work`."""

    alone: Callable[[Replica], Awaitable[None]]
    collection: str
    verb: Verb
    key: Key
    op_id: str
    route: Route
    work: Callable[[], Awaitable[None]]
    done: asyncio.Future[bool] | None
    """None: nobody waits for it."""
    cause: Cause | None
    write: Write | None = None
    """What can be replayed along with others."""

    async def __call__(self) -> None:
        await self.alone(self)
