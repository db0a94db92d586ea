"""The longer statements of the journal, and those over many rows.

SQLite gives up Python's lock for each statement, and a busy event loop keeps it for milliseconds then: to open the
intents of a thousand documents one by one is to wait for it a thousand times.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["CLAIMED", "DEFER", "LATE", "PENDING", "REASON", "REFUSED", "closing", "in_parts", "opening"]

T = TypeVar("T")

_MANY: Final = (1000, 500) if sqlite3.sqlite_version_info >= (3, 32) else ()
_SIZES: Final = (*_MANY, 200, 100, 20, 4, 1)
"""Rows of one statement: few sizes, so that the connection keeps each prepared. SQLite before 3.32 takes 999 arguments,
and 32,766 since (source: its documentation, "Limits In SQLite")."""

DEFER: Final = """
INSERT INTO deferred
SELECT collection, key, 1, opened, 0, opened, {settle}, "check" FROM intents WHERE {where}
ON CONFLICT (collection, key) DO UPDATE SET
    generation = generation + 1, since = min(since, excluded.since), next_try = min(since, excluded.since),
    settle_after = max(settle_after, excluded.settle_after)
"""

LATE: Final = """
INSERT INTO late
SELECT collection, key, 1, settle_after - :limit, 0, :claimed + :claimed + :limit - settle_after,
    settle_after + :late - :limit, "check" FROM deferred
WHERE collection = :collection AND key = :key AND settle_after > 0
ON CONFLICT (collection, key) DO UPDATE SET
    generation = generation + 1, since = max(since, excluded.since), next_try = min(next_try, excluded.next_try),
    settle_after = max(settle_after, excluded.settle_after)
"""
"""`since`: when the write began; `next_try`: when it is twice as old as at the claim; `settle_after`: when it can no
longer take effect."""

REASON: Final = """coalesce((
    SELECT reason FROM refused WHERE refused.collection = deferred.collection AND refused.key = deferred.key
), '')"""
REFUSED: Final = """
INSERT INTO refused VALUES (?, ?, ?) ON CONFLICT (collection, key) DO UPDATE SET reason = excluded.reason
"""

PENDING: Final = """
SELECT * FROM (
    SELECT opened AS since, collection, key, op_id, owner, opened + :limit AS settle_after,
        0 AS generation, 0 AS attempts, 0.0 AS next_try, '' AS refused FROM intents
    WHERE opened >= :since AND (opened, collection, key, op_id) > (:since, :name, :key, :op_id) {where}
    ORDER BY opened, collection, key, op_id LIMIT :most
) UNION ALL SELECT * FROM (
    SELECT since, collection, key, '', '', settle_after, generation, attempts, next_try, {reason} FROM deferred
    WHERE since >= :since AND (since, collection, key, '') > (:since, :name, :key, :op_id) {where}
    ORDER BY since, collection, key LIMIT :most
) ORDER BY 1, 2, 3, 4 LIMIT :most
"""
"""Each half in its own order and with its own limit, so that the index on age is scanned and not a million rows
sorted."""
CLAIMED: Final = "collection = ? AND key = ? AND generation = ? AND next_try = ?"
"""The entry as it was claimed: a settlement that is late could else clear the first deferral of a key that another
process has settled meanwhile, for generations start again then."""


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
