"""Whether a read has to show the newest that stands for good, told to whoever asks the store.

An application may read from members that lag, and with a concern that shows what can be rolled back. A verdict must not
rest on such an answer: `newest()` says so for what its block asks, `wants_newest` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["newest", "wants_newest"]

_NEWEST: Final[ContextVar[bool]] = ContextVar("shadow_newest", default=False)


@contextmanager
def newest(wanted: bool = True) -> Iterator[None]:
    """What is asked in the block wants the newest, if `wanted`; tasks that begin in it want it too."""
    token = _NEWEST.set(wanted or _NEWEST.get())
    try:
        yield
    finally:
        _NEWEST.reset(token)


def wants_newest() -> bool:
    return _NEWEST.get()
