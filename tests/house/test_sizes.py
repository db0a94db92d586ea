"""The size of modules, functions and constructors. Who comes after finds a concept by the name of its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.support import package
from tests.support.package import PACKAGE

MOST_LINES: Final = 500
"""Of a module."""
LONGEST: Final = 60
"""Lines of a function, from `def` to its last one, docstring included."""
MOST_ARGUMENTS: Final = 6
"""Of a constructor. More of them are one context, a frozen dataclass."""

WIDE: Final = {"client.py": 7}
"""Modules with a constructor that takes more, and how many it takes at most."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(name: str) -> Iterator[_Function]:
    return (node for node in package.nodes()[name] if isinstance(node, _Function))


def _arguments(function: _Function) -> int:
    """Without `self`."""
    given = function.args
    return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1


def test_no_module_is_larger_than_it_may_be() -> None:
    texts = {name: (PACKAGE / name).read_text("utf-8") for name in package.nodes()}
    large = {name: lines for name, text in texts.items() if (lines := len(text.splitlines())) > MOST_LINES}
    assert large == {}


def test_no_function_is_longer_than_it_may_be() -> None:
    long = [
        (name, function.name, lines)
        for name in package.nodes()
        for function in _functions(name)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LONGEST
    ]
    assert long == []


def test_no_constructor_takes_more_than_it_may() -> None:
    wide = {
        name: most
        for name in package.nodes()
        if (most := max((_arguments(each) for each in _functions(name) if each.name == "__init__"), default=0))
        > MOST_ARGUMENTS
    }
    assert wide == WIDE
