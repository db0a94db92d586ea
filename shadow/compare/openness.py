"""What is known of the rows at one point of a pipeline, and how steps that many stages share change it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from shadow.compare.freedom import EXACT, OpenShape

__all__ = ["Openness", "Rows", "least", "settled", "touched"]


class Rows(enum.Enum):
    """KNOWN: which rows there are. COUNTED: only how many. OPEN: neither."""

    KNOWN = "known"
    COUNTED = "counted"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Openness:
    """What is known of rows at one point of a pipeline.

    `whole`: their order is fully determined. `sort`: they are ordered by these fields, ties in any order; `seen`: the
    rows still hold these fields unchanged. `skip`, `limit`: the window of that order. `distinct`: no two rows have the
    same `_id`; `stored`: it is that of a stored document, and so no list, of which several may tie. `single`: there is
    at most one row. `placed`: the order of fields is determined.
    """

    rows: Rows = Rows.KNOWN
    shape: OpenShape = EXACT
    whole: bool = False
    sort: tuple[tuple[str, int], ...] = ()
    seen: bool = True
    skip: int = 0
    limit: int = 0
    distinct: bool = True
    stored: bool = True
    single: bool = False
    placed: bool = True

    @property
    def fixed(self) -> bool:
        """Whether the sequence of rows is fixed."""
        return self.whole or self.single

    @property
    def cut(self) -> bool:
        return bool(self.skip or self.limit)


def settled(state: Openness) -> Openness:
    """`state` before a stage that does not use the window itself: which tied rows were in it is open."""
    if state.cut and not state.fixed:
        return replace(state, rows=least(state.rows, Rows.COUNTED), skip=0, limit=0, sort=())
    return state


def least(a: Rows, b: Rows) -> Rows:
    order = (Rows.OPEN, Rows.COUNTED, Rows.KNOWN)
    return min(a, b, key=order.index)


def touched(state: Openness, path: str) -> Openness:
    """`state` after the value at `path` has changed: the sort may no longer be visible, and the key may differ."""
    seen = state.seen and not any(_related(path, each) for each, _ in state.sort)
    return replace(state, seen=seen, distinct=state.distinct and path != "_id")


def _related(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.")
