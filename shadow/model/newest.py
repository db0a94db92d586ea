"""Whether a read must return the newest committed data, made known to the store that is asked.

An application may read from members that lag, and with a read concern that returns data that can be rolled back. A
verdict must not rest on such an answer: `newest()` demands the newest data within its block, `wants_newest` reads it.
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
    """Makes reads in the block, and in tasks started in it, return the newest committed data if `wanted`."""
    token = _NEWEST.set(wanted or _NEWEST.get())
    try:
        yield
    finally:
        _NEWEST.reset(token)


def wants_newest() -> bool:
    return _NEWEST.get()
