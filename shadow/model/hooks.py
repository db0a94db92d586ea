"""Hooks: what they are called for, and how each is reached."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["Hook", "HookEvent"]


class HookEvent(enum.StrEnum):
    BEFORE_PAUSE = "before_pause"
    """A flip, a rehearsal or a completion is about to pause writes. The only one that can be vetoed."""
    AFTER_COMMIT = "after_commit"
    AFTER_REHEARSAL = "after_rehearsal"
    AFTER_ABORT = "after_abort"
    GATE_CLOSED = "gate_closed"
    """A gate that was open has closed."""
    NEW_FINDING = "new_finding"
    RAMP_STEPPED = "ramp_stepped"
    RAMP_STEPPED_BACK = "ramp_stepped_back"
    WATCH_OPENED = "watch_opened"
    """The watch window of a flip has begun."""
    WATCH_BROKEN = "watch_broken"
    WATCH_ENDED = "watch_ended"
    FLIP_TAKEN_BACK = "flip_taken_back"
    FLIP_NOT_TAKEN_BACK = "flip_not_taken_back"
    """A flip is to be taken back, and cannot be: it is tried again."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One command or one address. `on`: the events that it is called for. `secret`: of the webhook's signature; "": it
    is not signed. `timeout`: seconds for one attempt; `retries`: attempts after the first one. `veto`: whether it may
    stop a flip, and `unanswered`: whether it does where it does not answer in time."""

    name: str
    on: frozenset[HookEvent]
    command: tuple[str, ...] = ()
    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    timeout: float = 5.0
    retries: int = 3
    veto: bool = False
    unanswered: bool = True
