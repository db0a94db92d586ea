"""Many replays in few requests: what the keys hold is read first, and then each write is one statement of a
batch, with a condition of its own.

The condition is the state that was read, which is the version before the write. So a statement is done where its own
condition holds, whatever becomes of the others, and may arrive late without harm. What a batch has not done, or is not
known to have done, is replayed alone: that finds out why, and recognises by the operation's id what was done after all.

Copies of many images go the same way: each on the condition that its key is still in the state that it must have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from shadow.model.keys import queue_key
from shadow.model.operation import Write
from shadow.model.version import Image, Key, State

__all__ = ["Copies", "Put", "Statements", "Step", "copy_together", "replay_together"]

S = TypeVar("S")
Put: TypeAlias = tuple[Key, Image, State]
"""A key, the image that it should hold, and the state that it must have."""


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One write: the statement that makes it, on its own condition, and the image that is there when it is done."""

    statement: S
    after: Image


class Statements(Protocol[S]):
    """How one store makes a batch of replays."""

    async def steps(self, writes: Mapping[int, Write]) -> Mapping[int, Step[S]]:
        """Reads what the keys hold. By the same places, a step for each write whose fence holds there, and that
        one statement can make. Raises what the store raises."""

    async def send(self, statements: Sequence[S]) -> Sequence[bool]:
        """One answer for each statement, in order: whether it is known to be done. Raises the error of a request whose
        outcome is unknown."""


class Copies(Protocol[S]):
    """How one store makes a batch of copies."""

    async def steps(self, puts: Mapping[int, Put]) -> Mapping[int, Step[S]]:
        """Reads what the keys hold. By the same places, a step for each copy whose key is in the state that it must
        have, and that one statement can make. Raises what the store raises."""

    async def send(self, statements: Sequence[S]) -> Sequence[bool]:
        """As `Statements.send`."""


async def copy_together(store: Copies[S], puts: Sequence[Put]) -> list[bool]:
    """Whether each copy was made. False also where nobody knows: it has to be made alone."""
    made = [False] * len(puts)
    steps = await store.steps(dict(enumerate(puts)))
    if steps:
        places = list(steps)
        answers = await store.send([steps[place].statement for place in places])
        for place in _done(places, answers):
            made[place] = True
    return made


async def replay_together(store: Statements[S], writes: Sequence[Write]) -> list[Image | None]:
    """What each write came to; None: it was not made here, or nobody knows, and has to be replayed alone."""
    results: list[Image | None] = [None] * len(writes)
    steps = await store.steps(_first_of_each_key(writes))
    if not steps:
        return results
    places = list(steps)
    answers = await store.send([steps[place].statement for place in places])
    for place in _done(places, answers):
        results[place] = steps[place].after
    return results


def _first_of_each_key(writes: Sequence[Write]) -> dict[int, Write]:
    """A later write of the same key needs what the first one leaves."""
    first: dict[object, int] = {}
    for place, write in enumerate(writes):
        first.setdefault(queue_key(write.collection, write.key), place)
    return {place: writes[place] for place in first.values()}


def _done(places: Sequence[int], answers: Sequence[bool]) -> Iterable[int]:
    """The places whose statement is known to be done. Answers that are not one for each statement tell nothing."""
    if len(answers) != len(places):
        return ()
    return [place for place, done in zip(places, answers, strict=True) if done]
