"""The types of pipeline stages, and of the variables that a pipeline may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from shadow.errors import UnsupportedOperation
from shadow.model.version import Document

__all__ = ["NOTHING_GIVEN", "Compiled", "Lookup", "Stage", "Variables", "no_lookup"]

Lookup: TypeAlias = Callable[[str], Iterable[Document]]
"""All documents of another collection, by its name."""
Stage: TypeAlias = Callable[[list[Document], Lookup], list[Document]]
Compiled: TypeAlias = tuple[Stage, frozenset[str]]
"""A stage and the collections that it reads."""
Variables: TypeAlias = Mapping[str, Any]
"""Variables by name, without dollars: those of `let` in a `$lookup`, for the stages of its pipeline."""

NOTHING_GIVEN: Final[Variables] = MappingProxyType({})


def no_lookup(name: str) -> Iterable[Document]:
    raise UnsupportedOperation("$lookup", "no other collection can be read here")
