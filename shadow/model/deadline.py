"""The deadline of a call, made known to the store that is called.

`ending(seconds)` sets it for its block and the tasks started in it; `left` reads it. A driver that gets the remaining
time ends its work at about the time at which its caller stops waiting, so it need not be cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["ending", "left"]

_END: Final[ContextVar[float | None]] = ContextVar("shadow_deadline", default=None)


@contextmanager
def ending(seconds: float) -> Iterator[None]:
    """Sets the deadline of the block to `seconds` from now, or to that of an enclosing block if it is earlier."""
    end, outer = time.monotonic() + seconds, _END.get()
    token = _END.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _END.reset(token)


def left() -> float | None:
    """Remaining seconds, negative if the deadline has passed; None if there is no deadline."""
    end = _END.get()
    return None if end is None else end - time.monotonic()
