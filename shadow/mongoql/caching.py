"""Compiled forms, remembered, so that a filter, an update, a projection or a pipeline of a call is compiled once.

`cached_*` finds a compiled form by the very object that it was compiled from, or else by its BSON bytes. `remember_*`
is for the door of the application (`surface.calls.arguments`): its copies are private and never changed, so their
compiled form may be found by the object itself. What holds the time of its call (`once`) is found by that alone, for no
other call has these bytes. A call's data (`Query`, `Change`, `model.reads`) carry these objects from the door to both
stores, and a store that needs the compiled form gets it without compiling or encoding again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import bson

from shadow.model.values import CANONICAL
from shadow.model.version import Document
from shadow.mongoql.match.filters import Filter, compile_filter
from shadow.mongoql.pipeline.pipelines import Pipeline, compile_pipeline
from shadow.mongoql.pipeline.projections import Projection, compile_projection
from shadow.mongoql.update.updates import Updater, compile_update

__all__ = [
    "cached_filter",
    "cached_pipeline",
    "cached_projection",
    "cached_update",
    "remember_filter",
    "remember_pipeline",
    "remember_projection",
    "remember_update",
]

_REMEMBERED: Final = 512
"""Compiled forms of each kind that are found by their BSON bytes."""
_LARGEST: Final = 16 * 1024
"""Bytes of BSON beyond which a source is not remembered by them: an update may hold a document of megabytes."""
_SLOTS: Final = 256
"""Compiled forms of each kind that are found by the object itself: enough for the calls under way."""

T = TypeVar("T")


class _Compiled(Generic[T]):
    """Compiled forms of one kind. Thread-safe.

    By identity, each object has one slot, which the next object with that slot takes over. A slot keeps its source
    alive, so no other object can have its id; it is replaced as a whole.
    """

    __slots__ = ("_by_bytes", "_compile", "_slots")

    def __init__(self, compile: Callable[[Any], T]) -> None:
        self._compile = compile
        self._by_bytes = functools.lru_cache(maxsize=_REMEMBERED)(self._decoded)
        self._slots: list[tuple[object, T] | None] = [None] * _SLOTS

    def by_identity(self, source: object) -> T | None:
        slot = self._slots[(id(source) >> 4) % _SLOTS]
        return slot[1] if slot is not None and slot[0] is source else None

    def by_bytes(self, encoded: bytes) -> T:
        return self._by_bytes(encoded) if len(encoded) <= _LARGEST else self._decoded(encoded)

    def by_bytes_once(self, encoded: bytes) -> T:
        """Of what no other call has, since it holds the time: it would take the place of what others have."""
        return self._decoded(encoded)

    def remember(self, source: object, compiled: T) -> T:
        self._slots[(id(source) >> 4) % _SLOTS] = source, compiled
        return compiled

    def _decoded(self, encoded: bytes) -> T:
        return self._compile(bson.decode(encoded, codec_options=CANONICAL))


_filters: Final = _Compiled[Filter](compile_filter)
_projections: Final = _Compiled[Projection](compile_projection)
_pipelines: Final = _Compiled[Pipeline](lambda given: compile_pipeline(given["p"]))
_updates: Final = _Compiled[Updater](lambda given: compile_update(given["u"], given["f"]))
_with_array_filters: Final = _Compiled[tuple[Sequence[Document], Updater]](lambda given: given)
"""By identity alone: the compiled form depends on the array filters too."""


def cached_filter(filter: Mapping[str, Any]) -> Filter:
    """`compile_filter`, remembered."""
    found = _filters.by_identity(filter)
    return _filters.by_bytes(bson.encode(filter)) if found is None else found


def remember_filter(filter: Document, *, once: bool = False) -> Filter:
    """`cached_filter` of a filter that nobody changes from now on."""
    made = _filters.by_bytes_once(bson.encode(filter)) if once else cached_filter(filter)
    return _filters.remember(filter, made)


def cached_projection(projection: Document) -> Projection:
    """`compile_projection`, remembered."""
    found = _projections.by_identity(projection)
    return _projections.by_bytes(bson.encode(projection)) if found is None else found


def remember_projection(projection: Document, *, once: bool = False) -> Projection:
    """`cached_projection` of a projection that nobody changes from now on."""
    made = _projections.by_bytes_once(bson.encode(projection)) if once else cached_projection(projection)
    return _projections.remember(projection, made)


def cached_pipeline(pipeline: Sequence[Document]) -> Pipeline:
    """`compile_pipeline`, remembered."""
    found = _pipelines.by_identity(pipeline)
    return _pipelines.by_bytes(bson.encode({"p": list(pipeline)})) if found is None else found


def remember_pipeline(pipeline: Sequence[Document], *, once: bool = False) -> Pipeline:
    """`cached_pipeline` of a pipeline that nobody changes from now on."""
    made = _pipelines.by_bytes_once(bson.encode({"p": list(pipeline)})) if once else cached_pipeline(pipeline)
    if once and made.leading_match:
        remember_filter(made.leading_match, once=True)  # a store looks for it by itself
    return _pipelines.remember(pipeline, made)


def cached_update(update: Document | Sequence[Document], array_filters: Sequence[Document] = ()) -> Updater:
    """`compile_update`, cached."""
    found = _with_array_filters.by_identity(update)
    if found is not None and found[0] is array_filters:
        return found[1]
    return _updates.by_bytes(_encoded(update, array_filters))


def remember_update(
    update: Document | Sequence[Document], array_filters: Sequence[Document], *, once: bool = False
) -> Updater:
    """`cached_update` of an update and of array filters that nobody changes from now on."""
    made = _updates.by_bytes_once(_encoded(update, array_filters)) if once else cached_update(update, array_filters)
    return _with_array_filters.remember(update, (array_filters, made))[1]


def _encoded(update: Document | Sequence[Document], array_filters: Sequence[Document]) -> bytes:
    return bson.encode({"u": update, "f": list(array_filters)})
