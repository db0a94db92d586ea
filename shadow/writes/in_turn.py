"""The batches of one call for many documents: one after the other, each with its intents opened before its turn.

While the primary makes one batch, the journal writes the intents of the next. The order that protects a write is kept:
the intents of a batch are durable before the primary is asked for any of it. What is new is that they may be open
longer, and in vain: if a batch fails, or the caller has gone, those of the next are closed, for its primary is never
asked; and those that have waited too long for their turn are opened once more (`Intents.young`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from shadow.model.batches import Result, first_error

__all__ = ["Begun", "Turn", "in_turn"]


class Turn:
    """When a batch may ask the primary."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._may: asyncio.Future[bool] = loop.create_future()
        self._reached: asyncio.Future[None] = loop.create_future()

    def give(self, *, may: bool = True) -> None:
        """Lets it ask now; with `may=False` it is never asked. The first call counts."""
        if not self._may.done():
            self._may.set_result(may)

    async def comes(self) -> bool:
        """Whether it may ask, once that is known: it has its intents."""
        if not self._reached.done():
            self._reached.set_result(None)
        return await asyncio.shield(self._may)

    async def reached(self, answer: asyncio.Future[Sequence[Result]]) -> None:
        """Returns when it has its intents, or there is an answer without them."""
        await asyncio.wait((self._reached, answer), return_when=asyncio.FIRST_COMPLETED)


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch whose work has begun and waits for its turn. `ahead`: whether the next may begin while it is made."""

    answer: asyncio.Future[Sequence[Result]]
    turn: Turn
    ahead: bool


async def in_turn(begin: Callable[[], Awaitable[Begun | None]]) -> AsyncGenerator[Sequence[Result], None]:
    """The results of batch after batch. `begin` begins the next; None: there is none. Raises the first error, after
    which nothing more is asked."""
    now = await begin()
    while now is not None:
        after = None
        now.turn.give()
        try:
            if now.ahead:
                await now.turn.reached(now.answer)
                after = await begin()
            results = await asyncio.shield(now.answer)
            if (error := first_error(results)) is not None:
                raise error
            yield results
        except BaseException:
            if after is not None:
                after.turn.give(may=False)
            raise
        now = after or await begin()
