"""Whether an index can be made beside those that exist: the server's rules and its errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.model.collations import of_index

__all__ = ["Existing", "conflict", "failure"]

_SIGNATURE: Final = ("unique", "sparse", "partialFilterExpression", "collation", "wildcardProjection")
"""What distinguishes an index besides its keys: indexes that differ only in these may coexist. Tried on MongoDB 6.0.5;
documented for most in the manual, "createIndexes"."""
_NO_OPTION: Final = frozenset(
    {"key", "name", "ns", "v", "background", "hidden", "textIndexVersion", "2dsphereIndexVersion", *_SIGNATURE}
)
"""What the server does not compare. Tried on MongoDB 6.0.5."""


@dataclass(frozen=True, slots=True)
class Existing:
    """An existing index: its keys, its distinguishing options, and its other options."""

    name: str
    keys: tuple[tuple[str, Any], ...]
    signature: tuple[Any, ...]
    options: Mapping[str, Any]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Existing:
        """Of an entry of `listIndexes`."""
        unique, sparse, partial, collation, projection = (raw.get(name) for name in _SIGNATURE)
        keys = tuple(raw["key"].items())
        more = {name: value for name, value in raw.items() if name not in _NO_OPTION}
        compares = of_index(collation) or _unversioned(collation)
        return cls(str(raw["name"]), keys, (keys, bool(unique), bool(sparse), partial, compares, projection), more)

    @property
    def is_text(self) -> bool:
        return any(kind == "text" for _, kind in self.keys)


def _unversioned(collation: Any) -> Any:
    """Without the version of the server's library, which differs between servers."""
    if not isinstance(collation, Mapping):
        return collation
    return {name: value for name, value in collation.items() if name != "version"}


def conflict(existing: Iterable[Existing], wanted: Iterable[Existing]) -> None:
    """Raises OperationFailure with the code of MongoDB's `createIndexes` (67, 85 or 86) if one of those wanted has the
    name of an index with other keys or options, or already exists under another name or with other options."""
    there = list(existing)
    for made in wanted:
        if [path for path, _ in made.keys] == ["_id"]:
            continue  # it exists, under whatever name
        named = next((one for one in there if one.name == made.name), None)
        if named is not None and named.signature != made.signature:
            raise failure(
                86,
                "IndexKeySpecsConflict",
                "An existing index has the same name as the requested index. When index names are not specified, they "
                f"are auto generated and can cause conflicts. Requested and existing index: {made.name!r}",
            )
        same = named or next((one for one in there if one.signature == made.signature), None)
        if same is not None and (same.name != made.name or same.options != made.options):
            text = "an equivalent index with other options" if same.name == made.name else "with a different name"
            raise failure(85, "IndexOptionsConflict", f"Index already exists {text}: {same.name}")
        text_index = next((one for one in there if one.is_text), None)
        if same is None and made.is_text and text_index is not None:
            text = f"only one text index per collection allowed, found existing text index {text_index.name!r}"
            raise failure(67, "CannotCreateIndex", text)
        there.append(made)


def failure(code: int, name: str, text: str) -> OperationFailure:
    """The server's error of a command."""
    return OperationFailure(text, code, {"ok": 0.0, "errmsg": text, "code": code, "codeName": name})
