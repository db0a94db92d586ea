"""Imports point one way, and each client library stays behind its fence (the contracts stand in pyproject.toml)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import package

ROOT: Final = Path(__file__).parents[2]

# import-linter sees the package pymongo as one; its errors, results and operations may be used anywhere. The embedded
# servers and the demo are apart from the product: they look at the stores past it.
CLIENTS: Final = {"MongoClient", "AsyncMongoClient"}
CLIENT_MODULES: Final = ("pymongo.mongo_client", "pymongo.asynchronous", "pymongo.synchronous", "motor")
MAY_CONNECT: Final = ("stores/mongo/drivers.py", "control/mongo.py", "journal/server/mongo.py", "embedded/")
NEVER_CONNECTS: Final = ("stores/mongo/checks.py",)
"""Has a client read a connection string and nothing more."""


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    call = "lint_imports(config_filename=sys.argv[1], no_cache=True)"
    program = f"import sys; from importlinter.cli import lint_imports; sys.exit({call})"
    command = [sys.executable, "-c", program, str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def clients_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The MongoDB clients that a module imports or reaches through `import pymongo`."""
    for node in nodes:
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                named = {alias.name for alias in names}
                if module.startswith(CLIENT_MODULES) or (module == "pymongo" and named & CLIENTS):
                    yield f"from {module} import {', '.join(sorted(named))}"
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.startswith(CLIENT_MODULES))
            case ast.Attribute(value=ast.Name(id="pymongo"), attr=attr) if attr in CLIENTS:
                yield f"pymongo.{attr}"


def test_the_contracts_of_pyproject_are_kept() -> None:
    ended = lint_imports(ROOT / "pyproject.toml")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_module_without_a_layer_fails_the_contract(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '  "compare",\n' in text
    without = tmp_path / "pyproject.toml"
    without.write_text(text.replace('  "compare",\n', ""))
    ended = lint_imports(without)
    assert ended.returncode != 0
    assert "compare" in ended.stdout


def test_mongodb_clients_are_made_in_their_own_modules_only() -> None:
    apart = (*MAY_CONNECT, *NEVER_CONNECTS)
    others = {name: nodes for name, nodes in package.nodes().items() if not name.startswith(apart)}
    assert len(others) > 200
    assert {name: found for name, nodes in others.items() if (found := list(clients_in(nodes)))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from pymongo import AsyncMongoClient",
        "from pymongo import ASCENDING, MongoClient",
        "import pymongo\npymongo.MongoClient()",
        "def late():\n    from motor.motor_asyncio import AsyncIOMotorClient",
        "import motor.motor_asyncio",
        "from pymongo.asynchronous.collection import AsyncCollection",
    ],
)
def test_every_way_to_a_client_is_seen(source: str) -> None:
    assert list(clients_in(ast.walk(ast.parse(source))))


@pytest.mark.parametrize("source", ["from pymongo.errors import OperationFailure", "from pymongo import UpdateOne"])
def test_what_is_no_client_is_not_taken_for_one(source: str) -> None:
    assert not list(clients_in(ast.walk(ast.parse(source))))


def test_nobody_asks_which_store_it_has() -> None:
    """What a store can do beyond the contract is a protocol of its own (`stores/base.py`): wrappers have it too."""
    kinds = {"MongoStore", "DynamoStore", "MemoryStore"}
    asked = [
        f"{name}:{node.lineno}"
        for name, nodes in package.nodes().items()
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type")
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and each.id in kinds
    ]
    assert asked == []
