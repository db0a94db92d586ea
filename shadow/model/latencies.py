"""How long both stores take for the same operations: counts by bucket of time, as text and as quantiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from shadow.model.guards import BOUNDS
from shadow.model.operation import Verb

__all__ = ["QUANTILES", "SINGLE_WRITES", "Times", "added", "of_text", "percentile", "text_of", "total"]

Times: TypeAlias = "Mapping[int, int]"
"""Counts by the number of the bucket in `guards.BOUNDS`; `len(BOUNDS)` for what took longer."""

QUANTILES: Final = (0.5, 0.95, 0.99)

SINGLE_WRITES: Final = frozenset({
    Verb.INSERT_ONE, Verb.UPDATE_ONE, Verb.REPLACE_ONE, Verb.DELETE_ONE, Verb.FIND_ONE_AND_UPDATE,
    Verb.FIND_ONE_AND_REPLACE, Verb.FIND_ONE_AND_DELETE,
})  # fmt: skip
"""The verbs of which each store is asked for one document, so that their times can be compared."""


def total(times: Times) -> int:
    return sum(times.values())


def added(several: Iterable[Times]) -> Times:
    found: Counter[int] = Counter()
    for each in several:
        found.update(each)
    return found


def percentile(times: Times, share: float) -> float:
    """In seconds, taken to be even within each bucket; 0.0 without counts."""
    wanted, seen = share * total(times), 0
    for bucket, count in sorted(times.items()):
        if count and seen + count >= wanted:
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            low = BOUNDS[bucket - 1] if bucket else 0.0
            return low + (high - low) * max(0.0, wanted - seen) / count
        seen += count
    return 0.0


def text_of(times: Times) -> str:
    """Short, for a record that is written once a second: "12:3 13:40"."""
    return " ".join(f"{bucket}:{count}" for bucket, count in sorted(times.items()) if count)


def of_text(text: str) -> Times:
    """What `text_of` has made. Raises ValueError for anything else."""
    found: dict[int, int] = {}
    for each in text.split():
        bucket, _, count = each.partition(":")
        if not 0 <= int(bucket) <= len(BOUNDS) or int(count) < 0:
            raise ValueError(text)
        found[int(bucket)] = int(count)
    return found
