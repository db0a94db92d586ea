"""Indexes in the Motor surface, in PyMongo's shapes.

An application that calls `create_index` at start-up continues to do so. While MongoDB is the primary, names,
options and errors are the server's. With DynamoDB as primary a unique index is created on both stores. If the
configuration has an index that serves another one (DynamoDB's tables get their indexes from there), its name is
returned. One without counterpart is accepted and reported, or, if it would decide which documents are unique, rejected
by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import bson
from bson import Decimal128
from bson.errors import BSONError
from pymongo.collation import Collation
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.collations import as_options, of_index
from shadow.model.index_gaps import is_own, is_special
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document
from shadow.surface.arguments import sort_pairs

__all__ = [
    "Existing",
    "IndexKeys",
    "IndexRequest",
    "as_information",
    "check_droppable",
    "check_not_own",
    "conflict",
    "documents",
    "index_keys",
    "index_name",
    "index_not_found",
    "information",
    "is_known",
    "is_not_found",
    "requested",
    "to_drop",
    "wanted",
]

IndexKeys: TypeAlias = tuple[tuple[str, Any], ...]
"""Path and direction, or kind, of each key."""

_INDEX_NOT_FOUND: Final = 27
_LIKE_SHADOWS: Final = "it is on shadow's own field, or has a name like its indexes"
_SIGNATURE: Final = ("unique", "sparse", "partialFilterExpression", "collation")
"""What distinguishes an index besides its keys: indexes that differ only in these may coexist. Tried on MongoDB 6.0.5;
documented for the last two in the manual, "createIndexes"."""
_NO_OPTION: Final = frozenset({"key", "name", "ns", "v", "background", *_SIGNATURE})
_NOT_SENT: Final = frozenset({"session", "collation"})
"""Options that a driver accepts as objects of its own and does not encode unchanged."""
_OF_THE_CALL: Final = frozenset({"session", "comment", "maxTimeMS", "commitQuorum", "background", "v", "ns"})
"""Options that say nothing about the index."""
_OF_ID: Final = (_OF_THE_CALL - {"background"}) | {"name", "collation"}
"""What may be given with the keys of an index of `_id`; anything else is refused, whatever it says."""
_DESCRIBING: Final = frozenset(
    {
        *("name", "hidden", "storageEngine", "expireAfterSeconds", "wildcardProjection", *_SIGNATURE),
        *("weights", "default_language", "language_override", "textIndexVersion"),
        *("2dsphereIndexVersion", "bits", "min", "max", "bucketSize", "prepareUnique", "clustered"),
    }
)
"""The options of an index. Source: the server's manual, "createIndexes"."""
_MOST_SECONDS: Final = 2**31 - 1


def documents(spec: CollectionSpec) -> dict[str, Document]:
    """Name to {"key": {...}, ...} of every index, that of `_id` first."""
    found: dict[str, Document] = {"_id_": {"key": {"_id": 1}}}
    for index in spec.indexes:
        found[index.name] = {"key": dict.fromkeys(index.keys, 1)}
    for unique in spec.unique:
        extra = {**({"sparse": True} if unique.sparse else {}), **as_options(unique.collation)}
        found[unique.name] = {"key": dict.fromkeys(unique.fields, 1), "unique": True, **extra}
    return found


def information(spec: CollectionSpec) -> dict[str, Any]:
    """The shape of `index_information`."""
    return {
        name: {"v": 2, **{k: list(v.items()) if k == "key" else v for k, v in each.items()}}
        for name, each in documents(spec).items()
    }


def as_information(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The shape of `index_information`, of entries of `listIndexes`."""
    made = {}
    for each in found:
        rest = {name: value for name, value in each.items() if name not in ("name", "ns")}
        made[each["name"]] = {**rest, "key": list(each["key"].items())}
    return made


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """An index that an application requests: `declared` if the configuration, or every store by itself, has one that
    serves it. `name` is its name from then on, `plain_name` its name on MongoDB; `options`: the others that describe
    it."""

    name: str
    plain_name: str
    keys: IndexKeys
    declared: bool
    unique: bool = False
    sparse: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.keys)

    @property
    def plain(self) -> bool:
        """Whether MongoDB has it only if it is created there: neither unique nor that of `_id`."""
        return not self.unique and self.paths != ("_id",)

    def listed(self) -> Document:
        """The index as MongoDB lists it, once it is created there."""
        flags = {name: True for name, is_set in (("unique", self.unique), ("sparse", self.sparse)) if is_set}
        return {"v": 2, "key": dict(self.keys), "name": self.plain_name, **flags, **self.options}

    def existing(self) -> Existing:
        return Existing.read(self.listed())

    def creation(self) -> dict[str, Any]:
        """The options with which MongoDB creates it."""
        return {name: value for name, value in self.listed().items() if name not in ("key", "v")}

    def constraint(self) -> UniqueSpec:
        return UniqueSpec(self.name, self.paths, self.sparse, of_index(self.options.get("collation")))


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
        compares = of_index(collation) or collation
        return cls(str(raw["name"]), (keys, bool(unique), bool(sparse), partial, compares), more or None)


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


def index_keys(keys: Any) -> IndexKeys:
    """The keys of an index as pairs, with any integer but 0 as a direction, or the name of a kind of index. Raises
    OperationFailure with the server's code for an invalid key."""
    given = [keys] if isinstance(keys, str) else list(keys.items() if isinstance(keys, Mapping) else keys)
    if not given:
        raise ValueError("key_or_list must not be empty")
    pairs = tuple((_exactly(each), 1) if isinstance(each, str) else (_exactly(each[0]), each[1]) for each in given)
    for path, kind in pairs:
        _check_key(path, kind)
    return pairs


def _exactly(path: Any) -> Any:
    """Names of fields may be of a subclass of `str` (ODMantic's), with the same text in BSON."""
    return str.__str__(path) if isinstance(path, str) else path


def _check_key(path: str, kind: Any) -> None:
    if isinstance(kind, str):
        if kind != "hashed" and not is_special(kind):
            raise _failure(67, "CannotCreateIndex", f"Unknown index plugin {kind!r}")
    elif not isinstance(kind, int):
        raise TypeError(f"second item in each key pair must be 1 or -1, not {type(kind).__name__}")
    elif isinstance(kind, bool) or not kind:
        raise _failure(67, "CannotCreateIndex", f"Values in the index key pattern cannot be {kind}")
    if path == "$**" or path.endswith(".$**"):
        return
    for part in path.split("."):
        if not part or part.startswith("$"):
            raise _failure(
                67, "CannotCreateIndex", f"Index keys cannot contain an empty or a $-prefixed field: {path!r}"
            )


def _failure(code: int, name: str, text: str) -> OperationFailure:
    return OperationFailure(text, code, {"ok": 0.0, "errmsg": text, "code": code, "codeName": name})


def wanted(spec: CollectionSpec, keys: IndexKeys, options: Mapping[str, Any]) -> IndexRequest:
    """The index that `create_index` requests of a collection whose primary is DynamoDB. Raises UnsupportedOperation for
    a unique index that DynamoDB cannot enforce, OperationFailure with the server's code for an invalid option and for
    a name that another index has."""
    _check_options(keys, options)
    paths = tuple(path for path, _ in keys)
    check_not_own(spec, keys, options)
    unique, sparse = _is_set(options.get("unique")), _is_set(options.get("sparse"))
    more = _described(options)
    collation = of_index(more.get("collation"))
    for name in ("partialFilterExpression", "collation"):
        if unique and name in more and (name != "collation" or collation is None):
            what = f"create_index(unique=True, {name}=...)"
            raise UnsupportedOperation(what, "DynamoDB would accept values that MongoDB refuses")
    kinds = [kind for _, kind in keys if isinstance(kind, str)] + [path for path in paths if "$**" in path]
    if unique and kinds:
        what = f"create_index(unique=True) of kind {kinds[0]!r}"
        raise UnsupportedOperation(what, "DynamoDB would accept values that MongoDB refuses")
    own = str(options.get("name") or "_".join(f"{path}_{direction}" for path, direction in keys))
    request = IndexRequest(own, own, keys, paths == ("_id",) and not kinds, unique, sparse, more)
    if request.declared:
        return replace(request, name="_id_")
    kept = {"hidden", "collation"} if unique else {"hidden"}
    for name, each in () if kinds or more.keys() - kept else documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(paths) if unique else key[: len(paths)] == paths
        same = (sparse, collation) == (bool(each.get("sparse")), of_index(each.get("collation")))
        if serves and unique == bool(each.get("unique")) and (not unique or same):
            return replace(request, name=name, declared=True)
    if own in documents(spec):
        text = f"An existing index has the same name as the requested index, but other keys or options: {own}"
        raise _failure(86, "IndexKeySpecsConflict", text)
    return request


def requested(spec: CollectionSpec, keys: Any, options: Mapping[str, Any]) -> IndexRequest | None:
    """`wanted`, of a call that MongoDB decides; None if it is none that DynamoDB could have."""
    try:
        return wanted(spec, index_keys(keys), options)
    except (OperationFailure, TypeError, ValueError, OverflowError, BSONError):
        return None


def check_not_own(spec: CollectionSpec, keys: Any, options: Mapping[str, Any]) -> None:
    """Raises UnsupportedOperation for an index that would look like one of shadow's own."""
    given = [keys] if isinstance(keys, str) else list(keys)
    paths = [each if isinstance(each, str) else str(each[0]) for each in given if isinstance(each, str) or each]
    if is_own(options.get("name"), spec.reserved) or spec.reserved in {path.partition(".")[0] for path in paths}:
        raise UnsupportedOperation("create_index", _LIKE_SHADOWS)


def _described(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that describe an index, besides its name and the flags `unique` and `sparse`."""
    more = {name: value for name, value in options.items() if name not in _OF_THE_CALL - {"session"}}
    for name in ("name", "unique", "sparse", "session"):
        more.pop(name, None)
    if "collation" in more:
        more["collation"] = _collation(more["collation"])
        if more["collation"] in (None, {"locale": "simple"}):
            del more["collation"]
    if more.get("hidden") is False:
        del more["hidden"]
    return more


def _collation(value: Any) -> Any:
    return dict(value.document) if isinstance(value, Collation) else value


def _is_set(flag: Any) -> bool:
    return bool(flag.to_decimal() if isinstance(flag, Decimal128) else flag)


def _check_options(keys: IndexKeys, options: Mapping[str, Any]) -> None:
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
    if options.get("session") is not None:
        raise UnsupportedOperation("create_index(session=...)", "DynamoDB has no sessions")
    _check_names(options)
    for flag in ("unique", "sparse", "hidden"):
        if flag in options and not isinstance(options[flag], bool | int | float | Decimal128):
            raise _failure(14, "TypeMismatch", f"The field '{flag}' must be a bool or a number")
    more = {name for name in options if name not in _OF_ID}
    if [path for path, _ in keys] == ["_id"] and more:
        text = f"The field '{min(more)}' is not valid for an _id index specification"
        raise _failure(197, "InvalidIndexSpecificationOption", text)
    _check_expiry(keys, options)
    if "partialFilterExpression" in options and not isinstance(options["partialFilterExpression"], Mapping):
        raise _failure(14, "TypeMismatch", "The field 'partialFilterExpression' must be an object")
    collation = _collation(options.get("collation"))
    if collation is not None and not isinstance(collation, Mapping):
        raise TypeError("collation must be a dict, bson.son.SON, or an instance of collation.Collation")
    if collation is not None:
        bson.encode(collation)
        if not collation:
            raise _failure(2, "BadValue", "The field 'collation' cannot be an empty object.")
    if [path for path, _ in keys] != ["_id"]:
        if name == "_id_":
            raise _failure(2, "BadValue", "The index name '_id_' is reserved for the _id index")
        return
    if keys[0][1] < 0:
        raise _failure(2, "BadValue", "The field 'key' for an _id index must be {_id: 1}")


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises the server's error for an option that no index has."""
    unknown = options.keys() - _DESCRIBING - _OF_THE_CALL
    if unknown:
        text = f"The field '{min(unknown)}' is not valid for an index specification"
        raise _failure(197, "InvalidIndexSpecificationOption", text)


def _check_expiry(keys: IndexKeys, options: Mapping[str, Any]) -> None:
    if "expireAfterSeconds" not in options:
        return
    seconds = options["expireAfterSeconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal128):
        raise _failure(67, "CannotCreateIndex", "The field 'expireAfterSeconds' must be a number")
    number = float(seconds.to_decimal() if isinstance(seconds, Decimal128) else seconds)
    if not 0 <= number <= _MOST_SECONDS:
        raise _failure(67, "CannotCreateIndex", f"expireAfterSeconds must be from 0 to {_MOST_SECONDS}")
    if len(keys) > 1:
        text = "TTL indexes are single-field indexes"
        raise _failure(67, "CannotCreateIndex", text)


def is_known(spec: CollectionSpec, hint: Any, *, whole: bool = False) -> bool:
    """Whether a hint names an existing index: by its name, by the one that MongoDB gives to its keys, or by the keys.
    `whole`: one that has every document, so that its use changes no result."""
    there = {name: each for name, each in documents(spec).items() if not (whole and each.get("sparse"))}
    if isinstance(hint, str):
        return hint in there or any(_is_named_by_keys(hint, each["key"]) for each in there.values())
    items = list(hint.items() if isinstance(hint, Mapping) else hint)
    keys = tuple(each if isinstance(each, str) else _path(each) for each in items)
    return any(tuple(each["key"]) == keys for each in there.values())


def _is_named_by_keys(name: str, keys: Iterable[str]) -> bool:
    return re.fullmatch("_".join(f"{re.escape(path)}_-?1" for path in keys), name) is not None


def _path(pair: Any) -> Any:
    path, _ = pair  # raises TypeError or ValueError, as the drivers do, for anything but a pair
    return path


def to_drop(spec: CollectionSpec, index_or_name: Any) -> str:
    """The name of the index that `drop_index` should drop. Raises MongoDB's error for `_id_`, and UnsupportedOperation
    for one that the collection's description has."""
    keys = () if isinstance(index_or_name, str) else sort_pairs(index_or_name)
    name = index_name(index_or_name)
    if name == "_id_" or keys == (("_id", 1),):
        raise _failure(72, "InvalidOptions", "cannot drop _id index")
    if is_own(name, spec.reserved):
        raise UnsupportedOperation("drop_index", "tombstones expire by that index")
    if is_known(spec, name) or (keys and is_known(spec, keys)):
        raise _belongs_to_all()
    return name


def index_name(index_or_name: Any) -> str:
    """The name of an index that is given by its name or by its keys."""
    if isinstance(index_or_name, str):
        return index_or_name
    return "_".join(f"{path}_{direction}" for path, direction in sort_pairs(index_or_name))


def check_droppable(spec: CollectionSpec, index_or_name: Any) -> str:
    """The name of an index that MongoDB is to drop. Raises UnsupportedOperation for shadow's own and for a unique one
    that the configuration declares (`spec`), TypeError as the drivers do."""
    if not isinstance(index_or_name, str | list | Mapping):
        raise TypeError("index_or_name must be an instance of str or list or Mapping")
    name = index_name(index_or_name)
    if is_own(name, spec.reserved):
        raise UnsupportedOperation("drop_index", "tombstones expire by that index")
    if any(each.name == name for each in spec.unique):
        raise _belongs_to_all()
    return name


def _belongs_to_all() -> UnsupportedOperation:
    return UnsupportedOperation(
        "drop_index",
        "an index that is declared, or unique, belongs to every process",
        hint="remove it from the configuration; the tables keep it",
    )


def index_not_found(name: str) -> OperationFailure:
    """The server's error for an index that does not exist."""
    return _failure(_INDEX_NOT_FOUND, "IndexNotFound", f"index not found with name [{name}]")


def is_not_found(error: Exception) -> bool:
    """Whether a store reports that it has no such index: a result, and not a failure."""
    return isinstance(error, OperationFailure) and error.code == _INDEX_NOT_FOUND
