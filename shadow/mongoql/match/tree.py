"""A filter as a small frozen tree that planners can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["And", "Leaf", "Node", "Nor", "Not", "Or"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One condition. `operator` is MongoDB's name: implicit equality is `$eq`, a bare pattern `$regex` (with a
    `bson.Regex` that includes `$options`). `$expr`, `$alwaysTrue` and `$alwaysFalse` have the path ""."""

    path: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class And:
    """True if all children are; without children, always true."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Nor:
    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    child: Node


Node: TypeAlias = And | Or | Nor | Not | Leaf
