"""The drivers' specifications as JSON, as the suite of PyMongo has and runs them.

Each file names a database and collections of its own. Here they become those that the library is configured for, so
that its calls are on two stores too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["put_in"]

_OF_COMMANDS: Final = frozenset({
    "assertDifferentLsidOnLastTwoCommands", "assertEventCount", "assertSameLsidOnLastTwoCommands", "failPoint",
    "clientBulkWrite", "targetedFailPoint", "waitForEvent",
})  # fmt: skip
"""Operations about the commands that the driver sends, or that make one of them fail: on two stores the library sends
others, and its own tests make those fail (tests/faults). And `client.bulk_write`, which is refused by name there."""


def put_in(folder: Path, source: Path, mode: str, database: str, collections: tuple[str, ...]) -> None:
    """Writes the specifications of a folder into another one, over `database` and `collections`. Where the library is
    on two stores, without what they say about the driver's commands."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.json")):
        specification = json.loads(path.read_text("utf-8"))
        if mode in ("shadow", "dynamo"):
            specification["tests"] = list(map(_without_events, filter(_is_of_answers, specification["tests"])))
        renamed = _renamed(specification, _names(specification, database, collections))
        (folder / path.name).write_text(json.dumps(renamed), "utf-8")


def _is_of_answers(test: dict[str, Any]) -> bool:
    return not any(each["name"] in _OF_COMMANDS for each in _operations(test["operations"]))


def _operations(given: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in given:
        yield each
        inner = each.get("arguments", {}).get("callback", ())
        yield from _operations(list(inner))


def _without_events(test: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in test.items() if name not in ("expectEvents", "expectLogMessages")}


def _names(specification: dict[str, Any], database: str, collections: tuple[str, ...]) -> dict[str, str]:
    """The names that the file has for its first database and its collections, and those that they get."""
    made = specification.get("createEntities", [])
    databases = [each["database"]["databaseName"] for each in made if "database" in each]
    named = list(dict.fromkeys(each["collection"]["collectionName"] for each in made if "collection" in each))
    own = next((each for each in databases if each != "admin"), database)
    free = iter(each for each in collections if each not in named)
    names = {each: next(free) for each in named if each not in collections}
    return {own: database, **names, **_spaces(own, database, {**{each: each for each in named}, **names})}


def _spaces(own: str, database: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{own}.{old}": f"{database}.{new}" for old, new in names.items()}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
