"""Indexes as the Motor surface sees them, in PyMongo's shapes.

An application that calls `create_index` at start-up keeps doing so. What the configuration serves is confirmed; a
unique index is made on both stores; a plain one is made on MongoDB, and a log line says what to write into the
configuration to have it on DynamoDB, whose tables get their indexes from there. An option that would change what
documents there are, or which of them an index holds, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shadow.arguments import sort_pairs
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Sort
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document

__all__ = ["Wanted", "documents", "information", "is_known", "wanted"]

_HARMLESS = frozenset({"name", "background", "comment", "v", "maxTimeMS"})


def documents(spec: CollectionSpec) -> dict[str, Document]:
    """Name to {"key": {...}, ...} of every index, that of `_id` first."""
    found: dict[str, Document] = {"_id_": {"key": {"_id": 1}}}
    for index in spec.indexes:
        found[index.name] = {"key": dict.fromkeys(index.keys, 1)}
    for unique in spec.unique:
        extra = {"sparse": True} if unique.sparse else {}
        found[unique.name] = {"key": dict.fromkeys(unique.fields, 1), "unique": True, **extra}
    return found


def information(spec: CollectionSpec) -> dict[str, Any]:
    """The shape of `index_information`."""
    return {
        name: {"v": 2, **{k: list(v.items()) if k == "key" else v for k, v in each.items()}}
        for name, each in documents(spec).items()
    }


@dataclass(frozen=True, slots=True)
class Wanted:
    """An index that an application asks for: `declared` if one that serves it is there already."""

    name: str
    keys: Sort
    declared: bool
    unique: bool = False
    sparse: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.keys)

    def constraint(self) -> UniqueSpec:
        return UniqueSpec(self.name, self.paths, self.sparse)

    def advice(self) -> str:
        """What to write under the collection's name in the configuration file."""
        return _lines(self.paths, self.unique)


def wanted(spec: CollectionSpec, keys: Sort, options: Mapping[str, Any]) -> Wanted:
    """What `create_index` asks for. Raises UnsupportedOperation for an option that both stores cannot keep."""
    paths = tuple(path for path, _ in keys)
    unique, sparse = bool(options.get("unique")), bool(options.get("sparse"))
    unknown = {name for name, value in options.items() if value} - _HARMLESS - {"unique", "sparse"}
    if unknown:
        raise UnsupportedOperation(f"create_index({min(unknown)}=...)", "a DynamoDB index has no such option")
    for name, each in documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(paths) if unique else key[: len(paths)] == paths
        if serves and unique == bool(each.get("unique")) and (not unique or sparse == bool(each.get("sparse"))):
            return Wanted(name, keys, declared=True)
    name = options.get("name") or "_".join(f"{path}_{direction}" for path, direction in keys)
    return Wanted(str(name), keys, paths == ("_id",), unique, sparse)


def is_known(spec: CollectionSpec, hint: Any) -> bool:
    """Whether a hint names an index that is there: by name, or by its keys. Following it changes no answer."""
    if isinstance(hint, str):
        return hint in documents(spec)
    keys = tuple(path for path, _ in sort_pairs(hint))
    return any(tuple(each["key"]) == keys for each in documents(spec).values())


def _lines(wanted: tuple[str, ...], unique: bool) -> str:
    """What to write under the collection's name in the configuration file."""
    name = f"{'_'.join(wanted)}-index".replace(".", "_")
    if unique:
        return f"unique: [{{name: {name}, fields: [{', '.join(wanted)}]}}]"
    if len(wanted) > 2 or any("." in each for each in wanted):
        return "an index here has one field, or a hash and a range field, at the top level of the document"
    more = f", range: {wanted[1]}" if len(wanted) == 2 else ""
    return f"indexes: [{{name: {name}, hash: {wanted[0]}{more}}}], then `shadow tables create`"
