"""Intervals of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["INT32", "INT64", "Interval"]


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers from `start` up to, but not including, `stop`.

    `in` compares with the two ends. A `range` does so for `int` itself alone: for `Int64` (a subclass), a double or a
    decimal it tries each of its numbers, which for 64 bits never ends.
    """

    start: int
    stop: int

    def __contains__(self, value: Any) -> bool:
        return bool(self.start <= value < self.stop)


INT32: Final = Interval(-(2**31), 2**31)
INT64: Final = Interval(-(2**63), 2**63)
