"""Until when the answer of a store is waited for, told to whoever asks the store.

`ending(seconds)` says it for what its block does and the tasks begun in it, `left` reads it. A driver that is given
what is left ends its work by itself at about the time at which its caller goes away, so that nobody need cancel it.
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
    """The block ends in `seconds`, or when a block around it does, whichever is first."""
    end, outer = time.monotonic() + seconds, _END.get()
    token = _END.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _END.reset(token)


def left() -> float | None:
    """Seconds that are left, less than 0 if the time is over; None: nobody has set a limit."""
    end = _END.get()
    return None if end is None else end - time.monotonic()
