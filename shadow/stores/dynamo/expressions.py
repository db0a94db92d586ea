"""Expressions: one maker of #n0/:v0 placeholders, and the conditions that the store puts on its writes."""

from __future__ import annotations

from typing import Any, Final

from shadow.model.version import Absent, State, Tombstone, Unknown, Version
from shadow.stores.dynamo.values import Item

__all__ = ["Expression", "exactly", "hidden", "stamped_as", "vacant"]


class Expression:
    """Collects the names and values of one request. The texts that it makes may be joined freely."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def path(self, *names: str) -> str:
        """The document path through `names`, each of them any attribute name at all."""
        return ".".join(self._names.setdefault(name, f"#n{len(self._names)}") for name in names)

    def value(self, attribute: dict[str, Any]) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = attribute
        return placeholder

    def parameters(self) -> dict[str, Any]:
        """What goes with the expressions into the request."""
        parameters: dict[str, Any] = {}
        if self._names:
            parameters["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            parameters["ExpressionAttributeValues"] = dict(self._values)
        return parameters


def vacant(expression: Expression, reserved: str) -> str:
    """Nothing under the key, or a tombstone: where the side that answers may insert."""
    key = expression.path("_id")
    return f"(attribute_not_exists({key}) OR attribute_exists({expression.path(reserved, 't')}))"


def exactly(expression: Expression, reserved: str, state: State) -> str:
    """The key holds exactly `state`. Not for a stamp that cannot be read, which is compared whole (`stamped_as`)."""
    match state:
        case Absent():
            return f"attribute_not_exists({expression.path('_id')})"
        case Tombstone(identity):
            return f"{expression.path(reserved, 't')} = {expression.value({'S': identity})}"
        case Version(born, rev):
            parts = (
                f"attribute_exists({expression.path('_id')})",
                _part(expression, expression.path(reserved, "b"), {"S": born}, default=not born),
                _part(expression, expression.path(reserved, "r"), {"N": str(rev)}, default=not rev),
            )
            unstamped = f" AND attribute_not_exists({expression.path(reserved, 't')})" if not born else ""
            return f"({' AND '.join(parts)}{unstamped})"
        case Unknown():
            raise ValueError("a stamp that cannot be read has no parts to compare")


def stamped_as(expression: Expression, reserved: str, item: Item) -> str:
    """The key holds an item with the stamp of `item`, whatever that is. Part by part, of those that say the state and
    who wrote it: every writer of shadow changes one of them, and a body may be as large as an item."""
    stamp = item.get(reserved)
    tests = [f"attribute_exists({expression.path('_id')})"]
    if stamp is None or "M" not in stamp:
        return " AND ".join([*tests, _same(expression, expression.path(reserved), stamp)])
    parts = (_same(expression, expression.path(reserved, name), stamp["M"].get(name)) for name in _TELLING)
    return " AND ".join([*tests, *parts])


_TELLING: Final = ("b", "r", "t", "o", "g", "n")


def _same(expression: Expression, path: str, attribute: Any) -> str:
    return f"attribute_not_exists({path})" if attribute is None else f"{path} = {expression.value(attribute)}"


def _part(expression: Expression, path: str, attribute: dict[str, Any], *, default: bool) -> str:
    """One part of a version; where it has its default value it may also be missing."""
    same = f"{path} = {expression.value(attribute)}"
    return f"(attribute_not_exists({path}) OR {same})" if default else same


def hidden(expression: Expression, reserved: str) -> str:
    """The filter that leaves out tombstones, parts and uniqueness items."""
    tombstone, kind = expression.path(reserved, "t"), expression.path(reserved, "k")
    return f"attribute_not_exists({tombstone}) AND attribute_not_exists({kind})"
