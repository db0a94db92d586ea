"""One change of many documents at once, and what it has made of each of them.

A command that changes many documents answers only how many it has changed. So their images are read first, and the
command changes each document only if it still is at the version that was read. If it has changed all of them, the
image before each change is known exactly, as it is where a document is changed alone. If not, the versions are read
again: a document that the command has changed carries the operation's id, or is gone. Those that it has not changed
are changed alone, which also gives the exact error of the one that the store refuses.

What cannot be decided: two other writes have changed a document after it was read, and the number allows either answer.
Its outcome is unknown, and its intent stays. A deletion needs no answer for each document: the number counts, and every
document that is gone is replicated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pymongo.errors import OperationFailure, WriteError

from shadow.model.batches import Results, first_error
from shadow.model.operation import Applied
from shadow.model.outcome import Outcome, classify, marked
from shadow.model.version import ABSENT, Image, State, Version

__all__ = ["AT_ONCE", "Found", "Many", "Mark", "change_each", "change_many"]

AT_ONCE: Final = 16
"""Documents that are changed alone at the same time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was read before the change, by the place of each document in the batch."""

    images: Mapping[int, Image]
    """Of the documents that match, and that one command can change."""
    alone: Sequence[int] = ()
    """Places of documents that match, and that must be changed alone."""
    rest: Sequence[int] = ()
    """Places that have not been read yet."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A document after the change: its state, and the operation that marked it last."""

    state: State = ABSENT
    op_id: str = ""


class Many(Protocol):
    """The documents of one batch, by place, in one store."""

    @property
    def op_id(self) -> str:
        """Marks every document that the command changes. Unique to this batch."""

    @property
    def deletes(self) -> bool:
        """Whether the change is a deletion, which leaves no mark."""

    async def look(self, places: Sequence[int]) -> Found:
        """Reads the documents that match. What is in no part of the answer matches no more."""

    async def change(self, images: Mapping[int, Image]) -> int:
        """Changes each document that is still at the version of its image; how many it has changed. A `WriteError`
        that is a refusal: one was refused, and some may have been changed. Any other error is that of them all."""

    async def marks(self, places: Sequence[int]) -> Mapping[int, Mark]:
        """The newest state of each document."""

    def applied(self, place: int, pre: Image) -> Applied:
        """What the change has made of the document."""

    def modified(self, place: int) -> bool | None:
        """Whether the change modifies the document, if that is known, else None. Where it is known, `applied` cannot
        fail, and is called once the result is asked for."""

    async def alone(self, place: int) -> Applied | None:
        """Changes one document by itself. Raises its error."""


async def change_many(many: Many, count: int) -> Results:
    """One result for each of `count` places. Nothing is attempted after the first error: None."""
    results = Results(count)
    left: Sequence[int] = range(count)
    while left:
        try:
            found = await many.look(left)
        except Exception as error:
            return _filled(results, left, error)
        left = found.rest
        await _Part(many, found.images, results).run()
        if first_error(results) is not None:
            break
        await _alone(many, found.alone, results)
        if first_error(results) is not None:
            break
    return results


async def change_each(count: int, alone: Callable[[int], Awaitable[Applied | None]]) -> Results:
    """`change_many` for a store that changes one document at a time, some of them at once."""
    results = Results(count)
    for start in range(0, count, AT_ONCE):
        await _at_once(alone, range(start, min(count, start + AT_ONCE)), results)
        if first_error(results) is not None:
            break
    return results


@dataclass
class _Part:
    """The documents that one command changes."""

    many: Many
    images: Mapping[int, Image]
    results: Results
    unclear: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    """Places that the command has not changed."""

    async def run(self) -> None:
        if not self.images:
            return
        changed: int | None = None
        try:
            changed = await self.many.change(self.images)
        except Exception as error:
            if not isinstance(error, WriteError) or classify(error) is not Outcome.REFUSED:
                _filled(self.results, self.images, error)
                return
        if changed == len(self.images):
            self._made(list(self.images))
            return
        try:
            marks = await self.many.marks(list(self.images))
        except Exception as error:
            _filled(self.results, self.images, marked(error, Outcome.UNKNOWN))
            return
        self._sort(marks, changed)
        await _alone(self.many, self.same, self.results)

    def _sort(self, marks: Mapping[int, Mark], changed: int | None) -> None:
        made: list[int] = []
        for place, pre in self.images.items():
            verdict = self._is_changed(pre.state, marks.get(place, Mark()))
            (self.unclear if verdict is None else made if verdict else self.same).append(place)
        self._made(made)
        more = None if changed is None else changed - len(made)
        if more == 0:
            # The others were changed by other writers before, or have come to match no more.
            self.same = sorted(self.same + self.unclear)
        elif more == len(self.unclear):
            self._made(self.unclear)
        elif self.many.deletes and more is not None:
            self._made(self.unclear, counted=more)
        else:
            for place in self.unclear:
                self.results[place] = _unknown()

    def _is_changed(self, pre: State, mark: Mark) -> bool | None:
        """Whether the command has changed a document; None: the document alone does not show it."""
        if mark.op_id == self.many.op_id:
            return True
        if mark.state == pre:
            return False
        if not isinstance(pre, Version) or not isinstance(mark.state, Version) or mark.state.born != pre.born:
            return None
        # One other write has come first, and no second one. A document that was deleted never has this version again.
        return False if self.many.deletes or mark.state.rev == pre.rev + 1 else None

    def _made(self, places: Sequence[int], counted: int | None = None) -> None:
        make = self._applied  # one object for all of them
        for number, place in enumerate(places):
            modified = self.many.modified(place) if counted is None else None
            if modified is not None:
                self.results.put_off(place, make, modified=modified)
                continue
            try:
                applied = self._applied(place)
            except Exception as error:
                self.results[place] = marked(error, Outcome.UNKNOWN)  # the store has it
                continue
            if counted is not None and number >= counted:
                applied = Applied(applied.pre, applied.post, counted=False)
            self.results[place] = applied

    def _applied(self, place: int) -> Applied:
        return self.many.applied(place, self.images[place])


async def _alone(many: Many, places: Sequence[int], results: Results) -> None:
    for start in range(0, len(places), AT_ONCE):
        await _at_once(many.alone, places[start : start + AT_ONCE], results)
        if first_error(results) is not None:
            return


async def _at_once(alone: Callable[[int], Awaitable[Applied | None]], places: Sequence[int], results: Results) -> None:
    answers = await asyncio.gather(*map(alone, places), return_exceptions=True)
    for place, answer in zip(places, answers, strict=True):
        if isinstance(answer, BaseException) and not isinstance(answer, Exception):
            raise answer
        results[place] = answer


def _filled(results: Results, places: Sequence[int] | Mapping[int, Image], error: Exception) -> Results:
    for place in places:
        results[place] = error
    return results


def _unknown() -> Exception:
    message = (
        "other writers have changed a document more than once while this call changed many: whether the call has "
        "changed it too is unknown"
    )
    return marked(OperationFailure(message), Outcome.UNKNOWN)
