"""The package's modules as trees, parsed when the first test looks through them, once for all tests of a process."""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path
from typing import Final

import shadow

__all__ = ["PACKAGE", "nodes", "trees"]

PACKAGE: Final = Path(shadow.__file__).parent


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Name of the module, such as `model/phase.py`, to its tree."""
    gc.disable()  # no node is garbage, and 400,000 of them are looked through again and again
    try:
        return {
            path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
            for path in sorted(PACKAGE.rglob("*.py"))
        }
    finally:
        gc.enable()


@functools.cache
def nodes() -> dict[str, tuple[ast.AST, ...]]:
    """Name of the module to all nodes of its tree."""
    made = {name: tuple(ast.walk(tree)) for name, tree in trees().items()}
    gc.collect()
    gc.freeze()  # they stay to the end, and tests that collect garbage would look through all of them each time
    return made
