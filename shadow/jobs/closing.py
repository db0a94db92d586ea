"""Findings are closed by proof: the documents are read again, or a whole verification finds both stores equal.

Time closes none. A finding that is seen again meanwhile stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shadow.compare.equality import agree
from shadow.jobs.target import JobTarget
from shadow.model.verdict import Kind
from shadow.model.version import Image
from shadow.observe.findings import Open

__all__ = ["close_settled", "of_answers"]

_AT_ONCE: Final = 100


async def of_answers(sides: JobTarget) -> Sequence[Open]:
    """The open findings that no reading of a document can close, as they are now. A whole verification that begins
    after this and finds both stores equal closes those that are not seen again meanwhile."""
    if sides.findings is None:
        return ()
    return [each for each in await sides.findings.open(sides.collection) if each.of_answer]


async def close_settled(sides: JobTarget, proven: Sequence[Open] = ()) -> int:
    """Closes the open findings of a collection whose documents agree now, with nothing of them open in the journal, and
    those that are `proven` otherwise; how many. Raises `RouteChanged` and what the stores raise."""
    if sides.findings is None:
        return 0
    closed = await sides.findings.close(proven) if proven else 0
    found = [each for each in await sides.findings.open(sides.collection) if not each.of_answer]
    for start in range(0, len(found), _AT_ONCE):
        settled = await _settled(sides, found[start : start + _AT_ONCE])
        closed += await sides.findings.close(settled) if settled else 0
    return closed


async def _settled(sides: JobTarget, found: Sequence[Open]) -> list[Open]:
    """The journal is asked first: what it does not hold open then, the secondary must have when it is read after."""
    name, keys = sides.collection, [each.key for each in found]
    async with sides.steady():
        waiting = [await sides.journal.has_open(name, key) for key in keys]
        secondary = await sides.target.look(name, keys, whole=True)
        primary = await sides.source.look(name, keys, whole=True)
    looks = zip(found, waiting, primary, secondary, strict=True)
    return [each for each, waits, one, other in looks if not waits and _is_settled(each, one, other)]


def _is_settled(found: Open, primary: Image, secondary: Image) -> bool:
    # What shadow cannot read may have a key that no query finds: not to be found proves nothing then.
    return agree(primary, secondary) and (primary.present or found.kind is not Kind.UNREADABLE)
