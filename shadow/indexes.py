"""Indexes as the Motor surface sees them, in PyMongo's shapes.

An application that calls `create_index` at start-up keeps doing so. A unique index is made on both stores; a plain one
is made on MongoDB, as it would be without shadow. Where the configuration has one that serves it on DynamoDB, whose
tables get their indexes from there, that one's name is answered; else a log line says what to write into it. An option
that would change what documents there are, or which of them an index holds, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.arguments import sort_pairs
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Sort
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document

__all__ = [
    "Wanted",
    "documents",
    "index_keys",
    "index_not_found",
    "information",
    "is_known",
    "is_not_found",
    "to_drop",
    "wanted",
]

_INDEX_NOT_FOUND: Final = 27
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
    """An index that an application asks for: `declared` if the configuration, or every store by itself, has one that
    serves it. `name` is the one that it is known by from then on, `plain_name` the one that it has on MongoDB."""

    name: str
    plain_name: str
    keys: Sort
    declared: bool
    unique: bool = False
    sparse: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.keys)

    @property
    def plain(self) -> bool:
        """Whether MongoDB has it only if it is made there: neither unique nor that of `_id`."""
        return not self.unique and self.paths != ("_id",)

    def constraint(self) -> UniqueSpec:
        return UniqueSpec(self.name, self.paths, self.sparse)

    def advice(self) -> str:
        """What to write under the collection's name in the configuration file."""
        return _lines(self.paths, self.unique)


def index_keys(keys: Any) -> Sort:
    """The keys of an index as pairs. Raises UnsupportedOperation for kinds that only MongoDB has."""
    given = [] if isinstance(keys, str) else list(keys.items() if isinstance(keys, Mapping) else keys)
    for path, kind in (each for each in given if not isinstance(each, str)):
        if isinstance(kind, str):
            raise UnsupportedOperation(f"create_index of kind {kind!r}", f"DynamoDB has none (asked for {path!r})")
    pairs = sort_pairs(keys)
    if any("$**" in path for path, _ in pairs):
        raise UnsupportedOperation("create_index of a wildcard", "a DynamoDB index names its fields")
    return pairs


def wanted(spec: CollectionSpec, keys: Sort, options: Mapping[str, Any]) -> Wanted:
    """What `create_index` asks for. Raises UnsupportedOperation for an option that both stores cannot keep."""
    paths = tuple(path for path, _ in keys)
    unique, sparse = bool(options.get("unique")), bool(options.get("sparse"))
    unknown = {name for name, value in options.items() if value} - _HARMLESS - {"unique", "sparse"}
    if unknown:
        raise UnsupportedOperation(f"create_index({min(unknown)}=...)", "a DynamoDB index has no such option")
    own = str(options.get("name") or "_".join(f"{path}_{direction}" for path, direction in keys))
    for name, each in documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(paths) if unique else key[: len(paths)] == paths
        if serves and unique == bool(each.get("unique")) and (not unique or sparse == bool(each.get("sparse"))):
            return Wanted(name, own, keys, True, unique, sparse)
    return Wanted(own, own, keys, paths == ("_id",), unique, sparse)


def is_known(spec: CollectionSpec, hint: Any) -> bool:
    """Whether a hint names an index that is there: by name, or by its keys. Following it changes no answer."""
    if isinstance(hint, str):
        return hint in documents(spec)
    keys = tuple(path for path, _ in sort_pairs(hint))
    return any(tuple(each["key"]) == keys for each in documents(spec).values())


def to_drop(spec: CollectionSpec, index_or_name: Any) -> str:
    """The name of the index that `drop_index` is to drop. Raises what MongoDB says of `_id_`, and UnsupportedOperation
    for one that the collection's description has."""
    keys = () if isinstance(index_or_name, str) else sort_pairs(index_or_name)
    name = index_or_name if isinstance(index_or_name, str) else "_".join(f"{p}_{direction}" for p, direction in keys)
    if name == "_id_" or keys == (("_id", 1),):
        text = "cannot drop _id index"
        raise OperationFailure(text, 72, {"ok": 0.0, "errmsg": text, "code": 72, "codeName": "InvalidOptions"})
    if name.startswith(f"{spec.reserved}_"):
        raise UnsupportedOperation("drop_index", "tombstones expire by that index")
    if is_known(spec, name) or (keys and is_known(spec, keys)):
        raise UnsupportedOperation(
            "drop_index",
            "an index that is declared, or unique, is every process's",
            hint="take it out of the configuration; the tables keep it",
        )
    return name


def index_not_found(name: str) -> OperationFailure:
    """The server's error for an index that is not there."""
    text = f"index not found with name [{name}]"
    return OperationFailure(
        text, _INDEX_NOT_FOUND, {"ok": 0.0, "errmsg": text, "code": 27, "codeName": "IndexNotFound"}
    )


def is_not_found(error: Exception) -> bool:
    """Whether a store says that it has no such index: an answer, and no failure."""
    return isinstance(error, OperationFailure) and error.code == _INDEX_NOT_FOUND


def _lines(wanted: tuple[str, ...], unique: bool) -> str:
    """What to write under the collection's name in the configuration file."""
    name = f"{'_'.join(wanted)}-index".replace(".", "_")
    if unique:
        return f"unique: [{{name: {name}, fields: [{', '.join(wanted)}]}}]"
    if len(wanted) > 2 or any("." in each for each in wanted):
        return "an index here has one field, or a hash and a range field, at the top level of the document"
    more = f", range: {wanted[1]}" if len(wanted) == 2 else ""
    return f"indexes: [{{name: {name}, hash: {wanted[0]}{more}}}], then `shadow tables create`"
