"""How often, and when, operators were used that only MongoDB has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Uses", "UsesOf", "merged"]


@dataclass(frozen=True, slots=True)
class Uses:
    """Of one operator. `first`, `last`: epoch seconds; `verbs`: how often, by verb."""

    first: float
    last: float
    verbs: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.verbs.values())

    def plus(self, other: Uses) -> Uses:
        verbs = Counter(self.verbs)
        verbs.update(other.verbs)
        return Uses(min(self.first, other.first), max(self.last, other.last), dict(verbs))


UsesOf: TypeAlias = Mapping[str, Mapping[str, Uses]]
"""By collection and operator."""


def merged(*found: UsesOf) -> dict[str, dict[str, Uses]]:
    """The sum of all."""
    total: dict[str, dict[str, Uses]] = {}
    for each in found:
        for collection, operators in each.items():
            of_collection = total.setdefault(collection, {})
            for operator, uses in operators.items():
                before = of_collection.get(operator)
                of_collection[operator] = uses if before is None else before.plus(uses)
    return total
