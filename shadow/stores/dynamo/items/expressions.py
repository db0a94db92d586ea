"""Expressions: one maker of #n0/:v0 placeholders, and the conditions that the store puts on its writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shadow.model.version import Absent, State, Tombstone, Unknown, Version
from shadow.stores.dynamo.client.limits import EXPANDED, Budget
from shadow.stores.dynamo.items.values import Attribute, Item, attribute_size

__all__ = ["Expression", "exactly", "hidden", "stamped_as", "vacant"]


class Expression:
    """Collects the names and values of one request. The texts that it makes may be joined freely."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Attribute] = {}
        self._size = 0

    def path(self, *names: str) -> str:
        """The document path through `names`; each may be any attribute name."""
        return ".".join(self._names.get(name) or self._named(name) for name in names)

    def _named(self, name: str) -> str:
        placeholder = self._names[name] = f"#n{len(self._names)}"
        self._size += len(name.encode())
        return placeholder

    def value(self, attribute: Attribute) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = attribute
        self._size += attribute_size(attribute)
        return placeholder

    def attempt(self, budget: Budget, make: Callable[[Expression], str], joint: str = "") -> str:
        """The text that `make` builds with this expression. Returns "" and leaves the expression unchanged if `budget`
        has no room for the text after `joint`, or the request has none for its names and values."""
        names, values, size = len(self._names), len(self._values), self._size
        text = make(self)
        if text and self._size <= EXPANDED and budget.take(joint + text):
            return text
        while len(self._names) > names:
            self._names.popitem()
        while len(self._values) > values:
            self._values.popitem()
        self._size = size
        return ""

    def fits(self, *texts: str) -> bool:
        """Whether DynamoDB accepts a request with these expressions."""
        return self._size <= EXPANDED and all(Budget().take(text) for text in texts)

    def parameters(self, **texts: str) -> dict[str, Any]:
        """The expressions, by the names of their parameters, and their names and values for the request. Raises
        `ValueError` for expressions that DynamoDB would reject as too long: code that lets a caller choose the parts of
        an expression has to check first."""
        if not self.fits(*texts.values()):
            raise ValueError(f"an expression over DynamoDB's limits: {', '.join(texts)}")
        parameters: dict[str, Any] = dict(texts)
        if self._names:
            parameters["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            parameters["ExpressionAttributeValues"] = dict(self._values)
        return parameters


def vacant(expression: Expression, reserved: str) -> str:
    """Nothing under the key, or a tombstone: where the primary may insert."""
    key = expression.path("_id")
    return f"(attribute_not_exists({key}) OR attribute_exists({expression.path(reserved, 't')}))"


def exactly(expression: Expression, reserved: str, state: State) -> str:
    """The key holds exactly `state`. Not for an unreadable stamp, which is compared as a whole (`stamped_as`)."""
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
            raise ValueError("an unreadable stamp has no parts to compare")


def stamped_as(expression: Expression, reserved: str, item: Item) -> str:
    """The key holds an item with the stamp of `item`, whatever that is. Compares only the parts that hold the state and
    the writer: every write of shadow changes one of them, and a body may be as large as an item."""
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
    """One part of a version; a part with its default value may also be missing."""
    same = f"{path} = {expression.value(attribute)}"
    return f"(attribute_not_exists({path}) OR {same})" if default else same


def hidden(expression: Expression, reserved: str) -> str:
    """The filter that excludes tombstones, parts and uniqueness items."""
    tombstone, kind = expression.path(reserved, "t"), expression.path(reserved, "k")
    return f"attribute_not_exists({tombstone}) AND attribute_not_exists({kind})"
