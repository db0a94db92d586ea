"""What the router keeps of an answer for its comparison while the application reads it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shadow.model.operation import Hit, Query
from shadow.model.values import snapshot
from shadow.model.version import Document

__all__ = ["KeptHits", "Stopwatch", "first", "one_of", "snapshot_of"]


class Stopwatch:
    """Counts the seconds in which a store works, and not those in which the application has a page in hand."""

    __slots__ = ("_since", "_sum")

    def __init__(self) -> None:
        self._sum = 0.0
        self._since: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._sum + (0.0 if self._since is None else time.perf_counter() - self._since)

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        self._sum, self._since = self.seconds, None


class KeptHits:
    """The documents of an answer that are kept for comparison; none of them once there are more than `at_most`."""

    __slots__ = ("_at_most", "hits", "overflowed")

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self.hits: list[Hit] = []
        self.overflowed = False

    def add(self, page: list[Hit]) -> None:
        if len(self.hits) + len(page) > self._at_most:
            self.overflowed = True
            self.hits = []
        elif not self.overflowed:
            self.hits.extend(snapshot_of(hit) for hit in page)


def snapshot_of(hit: Hit) -> Hit:
    """A copy: the application may change what it was given before the comparison comes to it."""
    return Hit(hit.key, hit.version, snapshot(hit.document))


def first(query: Query, count: int) -> Query:
    """The same query for its first `count` documents."""
    options = query.read_options
    return Query(query.filter, query.projection, query.sort, query.skip, count, query.batch_size, read_options=options)


def one_of(query: Query, hits: Sequence[Hit]) -> Query:
    """The same query, narrowed to the documents that were read."""
    keys: Document = {"_id": {"$in": [hit.key for hit in hits]}}
    narrowed = {"$and": [query.filter, keys]} if query.filter else keys
    return Query(narrowed, query.projection, read_options=query.read_options)
