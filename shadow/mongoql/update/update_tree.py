"""The paths of all operators of an update, as one tree.

The server walks them so, fields in lexicographic order (positions by number). Source: `UpdateObjectNode` and its kin.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shadow.mongoql.match.filters import Filter
from shadow.mongoql.values.failures import write_failure

__all__ = ["Branch", "Elements", "Fields", "Reserved", "Shape", "Slot", "merged", "name_order", "path_parts", "plant"]


@dataclass(slots=True)
class Fields:
    """Updates below the fields of an object (or the positions of an array); `$` stands for the matched position."""

    children: dict[str, Branch] = field(default_factory=dict)


@dataclass(slots=True)
class Elements:
    """Updates below the elements of an array, by array filter; "" is every element."""

    children: dict[str, Branch] = field(default_factory=dict)


@dataclass(slots=True)
class Reserved:
    """The source of a `$rename`: nothing else may touch it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A modifier by its number among those of the update: trees are shared by all updates of one shape."""

    number: int


Branch: TypeAlias = Fields | Elements | Slot | Reserved
Shape: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""The operators of an update with their paths, in order."""


def path_parts(path: str) -> list[str]:
    parts = path.split(".")
    if not all(parts):
        raise write_failure(56, f"The update path '{path}' contains an empty field name, which is not allowed.")
    if parts[0] == "$" or _identifier(parts[0]):
        raise write_failure(2, f"Cannot have a positional element in the first position in path '{path}'")
    if parts.count("$") > 1:
        raise write_failure(2, f"Too many positional (i.e. '$') elements found in path '{path}'")
    return parts


def _identifier(part: str) -> re.Match[str] | None:
    return re.fullmatch(r"\$\[(.*)\]", part)


def plant(tree: Fields, path: str, leaf: Branch, filters: Mapping[str, Filter], used: set[str]) -> None:
    node: Branch = tree
    parts = path_parts(path)
    for i, part in enumerate(parts):
        chosen = _identifier(part)
        if isinstance(node, Elements) is not bool(chosen) or not isinstance(node, Fields | Elements):
            raise _conflict(path)
        name = part if chosen is None else _known(chosen.group(1), path, filters, used)
        if i == len(parts) - 1:
            if name in node.children:
                raise _conflict(path)
            node.children[name] = leaf
            return
        below: Branch = Elements() if _identifier(parts[i + 1]) else Fields()
        node = node.children.setdefault(name, below)


def _known(identifier: str, path: str, filters: Mapping[str, Filter], used: set[str]) -> str:
    if identifier and identifier not in filters:
        raise write_failure(2, f"No array filter found for identifier '{identifier}' in path '{path}'")
    used.add(identifier)
    return identifier


def _conflict(path: str) -> Exception:
    return write_failure(40, f"Updating the path '{path}' would create a conflict at '{path}'")


def merged(a: Branch | None, b: Branch, path: str) -> Branch:
    """Both branches as one: where `$` or several array filters choose the same element."""
    if a is None:
        return b
    if isinstance(a, Fields) and isinstance(b, Fields):
        return Fields(_merged_children(a.children, b.children, path))
    if isinstance(a, Elements) and isinstance(b, Elements):
        return Elements(_merged_children(a.children, b.children, path))
    raise _conflict(path)


def _merged_children(a: Mapping[str, Branch], b: Mapping[str, Branch], path: str) -> dict[str, Branch]:
    names = [*a, *(name for name in b if name not in a)]
    return {n: merged(a.get(n), b[n], f"{path}.{n}") if n in b else a[n] for n in names}


def _compare_names(a: str, b: str) -> int:
    if a.isdecimal() and b.isdecimal() and a.isascii() and b.isascii() and int(a) != int(b):
        return -1 if int(a) < int(b) else 1
    return (a > b) - (a < b)


name_order = functools.cmp_to_key(_compare_names)
