"""The type of a pipeline stage: a function from documents, and access to other collections, to documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from shadow.errors import UnsupportedOperation
from shadow.model.version import Document

__all__ = ["Lookup", "Stage", "no_lookup"]

Lookup: TypeAlias = Callable[[str], Iterable[Document]]
Stage: TypeAlias = Callable[[list[Document], Lookup], list[Document]]


def no_lookup(name: str) -> Iterable[Document]:
    raise UnsupportedOperation("$lookup", "no other collection can be read here")
