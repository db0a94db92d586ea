"""The package's modules as trees, parsed once for all tests that look through them."""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from typing import Final

import shadow

__all__ = ["NODES", "PACKAGE", "TREES"]

PACKAGE: Final = Path(shadow.__file__).parent


def _parsed() -> dict[str, ast.Module]:
    gc.disable()  # no node is garbage, and 400,000 of them are looked through again and again
    try:
        return {
            path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
            for path in sorted(PACKAGE.rglob("*.py"))
        }
    finally:
        gc.enable()


TREES: Final = _parsed()
"""Name of the module, such as `model/phase.py`, to its tree."""

NODES: Final = {name: tuple(ast.walk(tree)) for name, tree in TREES.items()}
"""Name of the module to all nodes of its tree."""
