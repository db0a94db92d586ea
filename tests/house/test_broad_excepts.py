"""What is caught broadly is used, or raised again: an error that nobody sees hides a fault of the library's own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from tests.support import package

BROAD: Final = frozenset({"Exception", "BaseException"})
SILENT: Final = {
    "fleet/flip_part.py": "the client that would report it is closing",
    "host/supervisor.py": "the report of an error must not end the supervision",
    "journal/server/remote.py": "a farewell: what it leaves is noticed by the others",
    "journal/sqlite/recovery.py": "bytes of a damaged file that are no key",
    "observe/log.py": "a value that has no hash is shown by its type",
    "observe/metrics.py": "the counting itself has failed, and is counted where it can be",
    "observe/publisher.py": "a subscriber has failed, which is counted",
    "observe/report.py": "the log has failed, which is counted",
    "stores/calls.py": "calls on a client that is given up, or asked for a sign of life",
    "stores/mongo/refusals.py": "the driver will say what is wrong with the document",
}
"""By module: why the errors of its broad handlers are nobody's business."""


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _suppresses(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return called == "suppress" and any(_names(each) & BROAD for each in node.args)


def _silent() -> Iterator[tuple[str, int]]:
    for name, nodes in package.nodes().items():
        if name.startswith("embedded/"):
            continue
        for node in nodes:
            if isinstance(node, ast.ExceptHandler):
                body = ast.Module(node.body, [])
                raises = any(isinstance(each, ast.Raise) for each in ast.walk(body))
                used = node.name is not None and node.name in _names(body)
                if (node.type is None or _names(node.type) & BROAD) and not raises and not used:
                    yield name, node.lineno
            elif _suppresses(node):
                yield name, node.lineno


def test_what_is_caught_broadly_is_used_or_raised_again() -> None:
    found = list(_silent())
    assert [f"{name}:{line}" for name, line in found if name not in SILENT] == []
    assert {name for name, _ in found} == set(SILENT), "an entry that is no more"
