"""Indexes in the Motor surface, in PyMongo's shapes.

An application that calls `create_index` at start-up continues to do so. A unique index is created on both stores; a
plain one on MongoDB, as it would be without shadow. If the configuration has an index that serves it on DynamoDB (whose
tables get their indexes from there), its name is returned; otherwise a log line shows what to add to the configuration.
An option that would change the existing documents, or which of them an index contains, is rejected by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson import Decimal128
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Sort
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document
from shadow.surface.arguments import sort_pairs

__all__ = [
    "Existing",
    "IndexRequest",
    "conflict",
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
_SIGNATURE: Final = ("unique", "sparse", "partialFilterExpression", "collation")
"""What distinguishes an index besides its keys: indexes that differ only in these may coexist. Tried on MongoDB 6.0.5;
documented for the last two in the manual, "createIndexes"."""
_NO_OPTION: Final = frozenset({"key", "name", "ns", "v", "background", *_SIGNATURE})
_NOT_SENT: Final = frozenset({"session", "collation"})
"""Options that a driver accepts as objects of its own and does not encode unchanged."""
_HARMLESS: Final = frozenset({"name", "background", "comment", "v", "maxTimeMS"})


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
class IndexRequest:
    """An index that an application requests: `declared` if the configuration, or every store by itself, has one that
    serves it. `name` is its name from then on, `plain_name` its name on MongoDB."""

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
        """Whether MongoDB has it only if it is created there: neither unique nor that of `_id`."""
        return not self.unique and self.paths != ("_id",)

    def existing(self) -> Existing:
        """The index as MongoDB has it once it is created."""
        return Existing(self.plain_name, (tuple(self.keys), self.unique, self.sparse, None, None))

    def constraint(self) -> UniqueSpec:
        return UniqueSpec(self.name, self.paths, self.sparse)

    def advice(self) -> str:
        """What to add under the collection's name in the configuration file."""
        return _lines(self.paths, self.unique)


@dataclass(frozen=True, slots=True)
class Existing:
    """An existing index: its keys, its distinguishing options, and its other options."""

    name: str
    signature: tuple[Any, ...]
    options: Document | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Existing:
        """Of an entry of `listIndexes`."""
        unique, sparse, partial, collation = (raw.get(name) for name in _SIGNATURE)
        keys = tuple(raw["key"].items())
        more = {name: value for name, value in raw.items() if name not in _NO_OPTION}
        return cls(str(raw["name"]), (keys, bool(unique), bool(sparse), partial, collation), more or None)


def conflict(existing: Iterable[Existing], wanted: Sequence[IndexRequest], declared: Mapping[str, Any]) -> None:
    """Raises OperationFailure with the code of MongoDB's `createIndexes` (85 or 86) if one of those wanted has the name
    of an index with other keys or options, or already exists under another name. For an index that the configuration
    has (`declared`, by name) any name is valid, unless another index has it."""
    there = list(existing)
    for each in wanted:
        if each.paths == ("_id",):
            continue  # it exists, under whatever name
        made = each.existing()
        named = next((one for one in there if one.name == made.name), None)
        if named is not None and named.signature != made.signature:
            raise _failure(
                86,
                "IndexKeySpecsConflict",
                "An existing index has the same name as the requested index. When index names are not specified, they "
                f"are auto generated and can cause conflicts. Requested and existing index: {made.name!r}",
            )
        if each.declared and each.name in declared:
            continue
        same = named or next((one for one in there if one.signature == made.signature), None)
        if same is not None and (same.name != made.name or same.options):
            text = "an equivalent index with other options" if same.name == made.name else "with a different name"
            raise _failure(85, "IndexOptionsConflict", f"Index already exists {text}: {same.name}")
        there.append(made)


def index_keys(keys: Any) -> Sort:
    """The keys of an index as pairs, with any integer but 0 as a direction. Raises UnsupportedOperation for kinds that
    only MongoDB has, OperationFailure with the server's code for an invalid key."""
    given = [keys] if isinstance(keys, str) else list(keys.items() if isinstance(keys, Mapping) else keys)
    if not given:
        raise ValueError("key_or_list must not be empty")
    pairs = tuple((each, 1) if isinstance(each, str) else (each[0], each[1]) for each in given)
    for path, kind in pairs:
        if "$**" in path:
            raise UnsupportedOperation("create_index of a wildcard", "a DynamoDB index names its fields")
        _check_key(path, kind)
    return pairs


def _check_key(path: str, kind: Any) -> None:
    if isinstance(kind, str):
        raise UnsupportedOperation(f"create_index of kind {kind!r}", f"DynamoDB has none (asked for {path!r})")
    if not isinstance(kind, int):
        raise TypeError(f"second item in each key pair must be 1 or -1, not {type(kind).__name__}")
    if isinstance(kind, bool) or not kind:
        raise _failure(67, "CannotCreateIndex", f"Values in the index key pattern cannot be {kind}")
    for part in path.split("."):
        if not part or part.startswith("$"):
            raise _failure(
                67, "CannotCreateIndex", f"Index keys cannot contain an empty or a $-prefixed field: {path!r}"
            )


def _failure(code: int, name: str, text: str) -> OperationFailure:
    return OperationFailure(text, code, {"ok": 0.0, "errmsg": text, "code": code, "codeName": name})


def wanted(spec: CollectionSpec, keys: Sort, options: Mapping[str, Any]) -> IndexRequest:
    """The index that `create_index` requests. Raises UnsupportedOperation for an option that both stores cannot
    support, OperationFailure with the server's code for one of another type and for a name that another index has."""
    _check_options(keys, options)
    paths = tuple(path for path, _ in keys)
    unique, sparse = _is_set(options.get("unique")), _is_set(options.get("sparse"))
    unknown = {name for name, value in options.items() if not _is_none(name, value)} - _HARMLESS - {"unique", "sparse"}
    if unknown:
        raise UnsupportedOperation(f"create_index({min(unknown)}=...)", "a DynamoDB index has no such option")
    own = str(options.get("name") or "_".join(f"{path}_{direction}" for path, direction in keys))
    for name, each in documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(paths) if unique else key[: len(paths)] == paths
        if serves and unique == bool(each.get("unique")) and (not unique or sparse == bool(each.get("sparse"))):
            return IndexRequest(name, own, keys, True, unique, sparse)
    if own in documents(spec):
        text = f"An existing index has the same name as the requested index, but other keys or options: {own}"
        raise _failure(86, "IndexKeySpecsConflict", text)
    return IndexRequest(own, own, keys, paths == ("_id",), unique, sparse)


def _is_set(flag: Any) -> bool:
    return bool(flag.to_decimal() if isinstance(flag, Decimal128) else flag)


def _is_none(name: str, value: Any) -> bool:
    """Whether an option that both stores cannot support has the value that means "not set"."""
    return (name in ("collation", "session") and value is None) or (name == "hidden" and value is False)


def _check_options(keys: Sort, options: Mapping[str, Any]) -> None:
    # A driver encodes the whole command first, so it raises for any value that BSON cannot hold.
    bson.encode({name: value for name, value in options.items() if name not in _NOT_SENT})
    name = options.get("name")
    if name is not None and not isinstance(name, str):
        raise _failure(14, "TypeMismatch", "The field 'name' must be a string")
    if name == "":
        raise _failure(67, "CannotCreateIndex", "The field 'name' must not be empty")
    limit = options.get("maxTimeMS", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**31:
        raise UnsupportedOperation("create_index(maxTimeMS=...)", "it must be a whole number of milliseconds")
    for flag in ("unique", "sparse"):
        if flag in options and not isinstance(options[flag], bool | int | float | Decimal128):
            raise _failure(14, "TypeMismatch", f"The field '{flag}' must be a bool or a number")
    if [path for path, _ in keys] != ["_id"]:
        if name == "_id_":
            raise _failure(2, "BadValue", "The index name '_id_' is reserved for the _id index")
        return
    if keys[0][1] < 0:
        raise _failure(2, "BadValue", "The field 'key' for an _id index must be {_id: 1}")
    if _is_set(options.get("unique")) or _is_set(options.get("sparse")):
        text = "The fields 'unique' and 'sparse' are not valid for an _id index specification"
        raise _failure(197, "InvalidIndexSpecificationOption", text)


def is_known(spec: CollectionSpec, hint: Any) -> bool:
    """Whether a hint names an existing index: by name, or by its keys. Using it changes no result."""
    if isinstance(hint, str):
        return hint in documents(spec)
    items = list(hint.items() if isinstance(hint, Mapping) else hint)
    keys = tuple(each if isinstance(each, str) else _path(each) for each in items)
    return any(tuple(each["key"]) == keys for each in documents(spec).values())


def _path(pair: Any) -> Any:
    path, _ = pair  # raises TypeError or ValueError, as the drivers do, for anything but a pair
    return path


def to_drop(spec: CollectionSpec, index_or_name: Any) -> str:
    """The name of the index that `drop_index` should drop. Raises MongoDB's error for `_id_`, and UnsupportedOperation
    for one that the collection's description has."""
    keys = () if isinstance(index_or_name, str) else sort_pairs(index_or_name)
    name = index_or_name if isinstance(index_or_name, str) else "_".join(f"{p}_{direction}" for p, direction in keys)
    if name == "_id_" or keys == (("_id", 1),):
        raise _failure(72, "InvalidOptions", "cannot drop _id index")
    if name.startswith(f"{spec.reserved}_"):
        raise UnsupportedOperation("drop_index", "tombstones expire by that index")
    if is_known(spec, name) or (keys and is_known(spec, keys)):
        raise UnsupportedOperation(
            "drop_index",
            "an index that is declared, or unique, belongs to every process",
            hint="remove it from the configuration; the tables keep it",
        )
    return name


def index_not_found(name: str) -> OperationFailure:
    """The server's error for an index that does not exist."""
    return _failure(_INDEX_NOT_FOUND, "IndexNotFound", f"index not found with name [{name}]")


def is_not_found(error: Exception) -> bool:
    """Whether a store reports that it has no such index: a result, and not a failure."""
    return isinstance(error, OperationFailure) and error.code == _INDEX_NOT_FOUND


def _lines(wanted: tuple[str, ...], unique: bool) -> str:
    """What to add under the collection's name in the configuration file."""
    name = f"{'_'.join(wanted)}-index".replace(".", "_")
    if unique:
        return f"unique: [{{name: {name}, fields: [{', '.join(wanted)}]}}]"
    if len(wanted) > 2 or any("." in each for each in wanted):
        return "an index here has one field, or a hash and a range field, at the top level of the document"
    more = f", range: {wanted[1]}" if len(wanted) == 2 else ""
    return f"indexes: [{{name: {name}, hash: {wanted[0]}{more}}}], then `shadow tables create`"
