"""Queues writers of one document in the process, first come, first served, where they would only conflict in a
store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class Turns:
    """One queue for each address, while it has members. Belongs to one event loop."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, address: Hashable) -> AsyncIterator[None]:
        """Entered when all earlier callers at this address have left."""
        lock, waiting = self._queues.get(address) or (asyncio.Lock(), 0)
        self._queues[address] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._queues[address]
            if waiting == 1:
                del self._queues[address]
            else:
                self._queues[address] = lock, waiting - 1
