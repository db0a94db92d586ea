"""Compiled forms, cached by the BSON bytes of their source."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import bson

from shadow.model.values import CANONICAL
from shadow.model.version import Document
from shadow.mongoql.updates import Updater, compile_update

__all__ = ["cached_update"]


def cached_update(update: Document | Sequence[Document], array_filters: Sequence[Document] = ()) -> Updater:
    """`compile_update`, cached."""
    return _cached(bson.encode({"u": update, "f": list(array_filters)}))


@functools.lru_cache(maxsize=512)
def _cached(encoded: bytes) -> Updater:
    parts = bson.decode(encoded, codec_options=CANONICAL)
    return compile_update(parts["u"], parts["f"])
