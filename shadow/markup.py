"""HTML as values: text is always escaped; only `tag` produces markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final

__all__ = ["Child", "Markup", "join", "tag"]

_VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


Child = str | int | float | None


def tag(name: str, /, *children: Child, **attributes: Child | bool) -> Markup:
    """One element. An attribute that is None or False is omitted; True gives an attribute without a value. `class_`
    becomes `class`, `data_id` becomes `data-id`."""
    opened = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{opened}>")
    return Markup(f"<{name}{opened}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Several children as one. Text among them is escaped."""
    return Markup("".join(_shown(child) for child in children))


def _shown(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else html.escape(str(child), quote=True)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
