"""The failpoints of the write protocol, in order. Background tasks have failpoints too: each reaches its own at the
start of every round. Tests stop, fail or kill a process at them."""

from __future__ import annotations

import enum
from collections.abc import Callable

from shadow.model.background import Background

__all__ = ["Failpoints", "Point", "no_failpoint"]


class Point(enum.StrEnum):
    BEFORE_INTENT = "before_intent"
    AFTER_INTENT = "after_intent"
    AFTER_PRIMARY = "after_primary"
    BEFORE_REPLAY = "before_replay"
    AFTER_REPLAY = "after_replay"
    BEFORE_HEAL = "before_heal"
    AFTER_HEAL = "after_heal"
    AFTER_CLOSE = "after_close"
    AFTER_ASIDE = "after_aside"
    """A document of the secondary has been moved aside for another one (see `untangle`)."""


Failpoints = Callable[[Point | Background], None]


def no_failpoint(point: Point | Background) -> None:
    """The failpoint of production code: does nothing."""
