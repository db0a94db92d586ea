"""The paths of the documents read, with the types of their values and their forms on DynamoDB.

A name that is data (not a `safe_name`: an id, an address, a number) becomes `*`, and so do all names of an object with
very many: maps by user or by day are one path, and their names do not leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from bson import DBRef

from shadow.assess.model import FieldReport
from shadow.compare.diff import MAX_NAMES, safe_name
from shadow.model.values import type_name
from shadow.stores.dynamo.items.values import Attribute, encode_value

__all__ = ["BLOB", "KEY", "Paths"]

BLOB: Final = "B: BSON, unreadable to other tools"
KEY: Final = "S: key text"

_FORMS: Final = {
    "d": "N",
    "l": "N",
    "D": "N",
    "t": "S: ISO 8601",
    "m": "N: milliseconds",
    "o": "S: hex digits",
    "b": "B",
    "/": "S: the pattern",
    "T": "S",
    "-": "NULL",
    "+": "NULL",
    "j": "S",
}
_ELEMENT: Final = "[]"
_ANY: Final = "*"


class _Node:
    __slots__ = ("inner", "seen")

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.inner: dict[str, _Node] = {}

    def child(self, name: str) -> _Node:
        if _ANY in self.inner and name not in self.inner:
            name = _ANY
        node = self.inner.get(name)
        if node is None:
            node = self.inner[name] = _Node()
            if len(self.inner) > MAX_NAMES:
                self._collapse()
                return self.inner[_ANY]
        return node

    def _collapse(self) -> None:
        one = _Node()
        for each in self.inner.values():
            one.take(each)
        self.inner = {_ANY: one}

    def take(self, other: _Node) -> None:
        self.seen += other.seen
        for name, each in other.inner.items():
            self.child(name).take(each)


class Paths:
    """Takes documents and keeps only what may be reported."""

    def __init__(self) -> None:
        self._root = _Node()
        self.deepest = 0
        """Nested containers, not counting the document itself."""

    def add(self, document: Mapping[str, Any], keys: frozenset[str]) -> None:
        """`keys`: the fields that are keys, which have a form of their own."""
        wide = len(document) > MAX_NAMES
        for name, value in document.items():
            node = self._root.child(_shown(name, hide=wide))
            if name in keys:
                node.seen[type_name(value), KEY] += 1
            else:
                self._add(node, value, encode_value(value, 1)[0], 1)

    def _add(self, node: _Node, value: Any, attribute: Attribute, depth: int) -> None:
        """`attribute` is the codec's form of the value, `depth` containers down."""
        kind = type_name(value)
        if type(value) is DBRef:
            value = dict(value.as_doc())
        if not isinstance(value, list | Mapping):
            node.seen[kind, _form(*encode_value(value, depth))] += 1
            return
        is_open = "B" not in attribute
        node.seen[kind, next(iter(attribute)) if is_open else BLOB] += 1
        self.deepest = max(self.deepest, depth if is_open else depth - 1 + _depth(value))
        if not is_open:
            return
        if isinstance(value, list):
            for each, inner in zip(value, attribute["L"], strict=True):
                self._add(node.child(_ELEMENT), each, inner, depth + 1)
            return
        wide = len(value) > MAX_NAMES
        for name, each in value.items():
            self._add(node.child(_shown(name, hide=wide)), each, attribute["M"][name], depth + 1)

    def report(self) -> tuple[FieldReport, ...]:
        """Every path with its types, in the order of the paths."""
        found: list[FieldReport] = []

        def walk(node: _Node, path: str) -> None:
            found.extend(FieldReport(path, kind, form, count) for (kind, form), count in node.seen.most_common())
            for name, each in sorted(node.inner.items()):
                walk(each, f"{path}{name}" if name == _ELEMENT else f"{path}.{name}" if path else name)

        walk(self._root, "")
        return tuple(found)


def _shown(name: str, *, hide: bool) -> str:
    return name if not hide and safe_name(name) else _ANY


def _form(attribute: Attribute, hint: Attribute | None) -> str:
    tag = next(iter(attribute))
    code = hint.get("S", "") if hint is not None else ""
    return BLOB if code == "$" else _FORMS.get(code[:1], tag)


def _depth(value: Any) -> int:
    """Nested containers, including this one."""
    inner = value.values() if isinstance(value, Mapping) else value
    return 1 + max((_depth(each) for each in inner if isinstance(each, list | Mapping)), default=0)
