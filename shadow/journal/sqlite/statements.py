"""Statements over many rows of the journal.

SQLite gives up Python's lock for each statement, and a busy event loop keeps it for milliseconds then: to open the
intents of a thousand documents one by one is to wait for it a thousand times.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["closing", "in_parts", "opening"]

T = TypeVar("T")

_SIZES: Final = (200, 100, 20, 4, 1)
"""Rows of one statement: few sizes, so that the connection keeps each prepared. SQLite before 3.32 takes 999 arguments
(source: its documentation, "Limits In SQLite")."""


def in_parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows, in parts that one statement can take."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@functools.cache
def opening(count: int) -> str:
    """The statement that opens `count` intents. Its arguments: the moment, the owner, and for each intent its id,
    collection, key and check sum."""
    places = range(3, 3 + 4 * count, 4)
    rows = ", ".join(f"(?{at}, ?{at + 1}, ?{at + 2}, ?1, ?2, ?{at + 3})" for at in places)
    return f"INSERT INTO intents VALUES {rows}"  # noqa: S608 - placeholders alone


@functools.cache
def closing(count: int) -> str:
    """The statement that closes the intents of `count` operations, given by their ids."""
    return f"DELETE FROM intents WHERE op_id IN ({', '.join('?' * count)})"  # noqa: S608 - placeholders alone
