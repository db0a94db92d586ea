"""Indexes in the Motor surface, in PyMongo's shapes.

An application that calls `create_index` at start-up continues to do so. While MongoDB is the primary, names,
options and errors are the server's. With DynamoDB as primary they are what the server's would be. A unique index is
created on both stores; another one is remembered, and created on MongoDB where that is in use. What DynamoDB has no
counterpart for is reported, or, if it would decide which documents are unique, rejected by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from bson.errors import BSONError
from bson.son import SON
from pymongo.errors import OperationFailure
from pymongo.operations import IndexModel

from shadow.errors import UnsupportedOperation
from shadow.model.collations import as_options, of_index
from shadow.model.index_gaps import is_own, is_special
from shadow.model.index_listing import as_listed, is_set
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document
from shadow.surface.indexing.index_conflicts import Existing, failure
from shadow.surface.indexing.index_options import OF_THE_CALL, check_options, plain_collation

__all__ = [
    "IndexKeys",
    "IndexRequest",
    "as_entry",
    "as_information",
    "check_droppable",
    "check_not_own",
    "documents",
    "index_keys",
    "index_name",
    "index_not_found",
    "is_known",
    "is_not_found",
    "listed",
    "requested",
    "wanted",
]

IndexKeys: TypeAlias = tuple[tuple[str, Any], ...]
"""Path and direction, or kind, of each key."""

_INDEX_NOT_FOUND: Final = 27
_LIKE_SHADOWS: Final = "it is on shadow's own field, or has a name like its indexes"
_ELSEWHERE: Final = OF_THE_CALL | {"name", "unique", "sparse"}
"""What `IndexRequest` holds by itself, and options that say nothing about the index."""


def documents(spec: CollectionSpec) -> dict[str, Document]:
    """Name to {"key": {...}, ...} of every index, that of `_id` first."""
    found: dict[str, Document] = {"_id_": {"key": {"_id": 1}}}
    for index in spec.indexes:
        found[index.name] = {"key": dict.fromkeys(index.keys, 1)}
    for unique in spec.unique:
        extra = {**({"sparse": True} if unique.sparse else {}), **as_options(unique.collation)}
        found[unique.name] = {"key": dict.fromkeys(unique.fields, 1), "unique": True, **extra}
    return found


def as_entry(constraint: UniqueSpec) -> SON[str, Any]:
    """How MongoDB lists the index of a constraint of the configuration."""
    sparse = {"sparse": True} if constraint.sparse else {}
    options = {"unique": True, **sparse, **as_options(constraint.collation)}
    return as_listed(tuple((path, 1) for path in constraint.fields), constraint.name, options)


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
    serves it. `name` is the name of that one, `plain_name` its name on MongoDB; `options`: the others that describe
    it; `raw`: the index as MongoDB lists it, once it is created there."""

    name: str
    plain_name: str
    keys: IndexKeys
    declared: bool
    raw: Mapping[str, Any]
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

    def existing(self) -> Existing:
        return Existing.read(self.raw)

    def creation(self) -> dict[str, Any]:
        """The options with which MongoDB creates it, besides its name."""
        flags = {name: True for name, is_set in (("unique", self.unique), ("sparse", self.sparse)) if is_set}
        return {**flags, **self.options}

    def constraint(self) -> UniqueSpec:
        return UniqueSpec(self.name, self.paths, self.sparse, of_index(self.options.get("collation")))


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


def check_models(models: Any) -> None:
    """Raises what the drivers and the server raise for what is no list of indexes."""
    if not isinstance(models, list):
        raise TypeError(f"indexes must be a list, not {type(models)}")
    for each in models:
        if not isinstance(each, IndexModel):
            raise TypeError(f"{each!r} is not an instance of pymongo.operations.IndexModel")
    if not models:
        raise failure(2, "BadValue", "Must specify at least one index to create")


def _exactly(path: Any) -> Any:
    """Names of fields may be of a subclass of `str` (ODMantic's), with the same text in BSON."""
    return str.__str__(path) if isinstance(path, str) else path


def _check_key(path: str, kind: Any) -> None:
    if isinstance(kind, str):
        if kind != "hashed" and not is_special(kind):
            raise failure(67, "CannotCreateIndex", f"Unknown index plugin {kind!r}")
    elif not isinstance(kind, int):
        raise TypeError(f"second item in each key pair must be 1 or -1, not {type(kind).__name__}")
    elif isinstance(kind, bool) or not kind:
        raise failure(67, "CannotCreateIndex", f"Values in the index key pattern cannot be {kind}")
    if path == "$**" or path.endswith(".$**"):
        return
    for part in path.split("."):
        if not part or part.startswith("$"):
            raise failure(
                67, "CannotCreateIndex", f"Index keys cannot contain an empty or a $-prefixed field: {path!r}"
            )


def wanted(spec: CollectionSpec, keys: IndexKeys, options: Mapping[str, Any]) -> IndexRequest:
    """The index that `create_index` requests of a collection whose primary is DynamoDB. Raises UnsupportedOperation for
    a unique index that DynamoDB cannot enforce, OperationFailure with the server's code for an invalid option and for
    a name that another index has."""
    raw = listed(spec, keys, options)
    paths = tuple(path for path, _ in keys)
    unique, sparse = is_set(options.get("unique")), is_set(options.get("sparse"))
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
    own = str(raw["name"])
    request = IndexRequest(own, own, keys, paths == ("_id",) and not kinds, raw, unique, sparse, more)
    if request.declared:
        return replace(request, name="_id_")
    kept = {"hidden", "collation"} if unique else {"hidden"}
    for name, each in () if kinds or more.keys() - kept else documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(paths) if unique else key[: len(paths)] == paths
        same = (sparse, collation) == (bool(each.get("sparse")), of_index(each.get("collation")))
        if serves and unique == bool(each.get("unique")) and (not unique or same):
            return replace(request, name=name, declared=True)
    return request


def listed(spec: CollectionSpec, keys: IndexKeys, options: Mapping[str, Any]) -> Document:
    """The index as MongoDB would list it. Raises UnsupportedOperation for one that would look like one of shadow's own,
    and OperationFailure with the server's code for invalid options."""
    check_options(keys, options)
    check_not_own(spec, keys, options)
    name = options.get("name") or "_".join(f"{path}_{direction}" for path, direction in keys)
    return as_listed(keys, str(name), {**options, "collation": plain_collation(options.get("collation"))})


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
    more = {name: value for name, value in options.items() if name not in _ELSEWHERE}
    if "collation" in more:
        more["collation"] = plain_collation(more["collation"])
        if more["collation"] in (None, {"locale": "simple"}):
            del more["collation"]
    if more.get("hidden") is False:
        del more["hidden"]
    return more


def is_known(spec: CollectionSpec, hint: Any, *, whole: bool = False) -> bool:
    """Whether a hint names an existing index: by its name, by the one that MongoDB gives to its keys, or by the keys.
    `whole`: one that has every document, so that its use changes no result."""
    there = {name: each for name, each in documents(spec).items() if not (whole and each.get("sparse"))}
    if isinstance(hint, str):
        return hint in there or any(_is_named_by_keys(hint, each["key"]) for each in there.values())
    items = list(hint.items() if isinstance(hint, Mapping) else hint)
    keys = tuple(each if isinstance(each, str) else _pair(each)[0] for each in items)
    return any(tuple(each["key"]) == keys for each in there.values())


def _is_named_by_keys(name: str, keys: Iterable[str]) -> bool:
    return re.fullmatch("_".join(f"{re.escape(path)}_-?1" for path in keys), name) is not None


def _pair(pair: Any) -> tuple[Any, Any]:
    path, direction = pair  # raises TypeError or ValueError, as the drivers do, for anything but a pair
    return path, direction


def index_name(index_or_name: Any) -> str:
    """The name of an index that is given by its name or by its keys, whatever their kinds."""
    if isinstance(index_or_name, str):
        return index_or_name
    given = index_or_name.items() if isinstance(index_or_name, Mapping) else index_or_name
    pairs = [(each, 1) if isinstance(each, str) else _pair(each) for each in given]
    return "_".join(f"{path}_{direction}" for path, direction in pairs)


def check_droppable(spec: CollectionSpec, index_or_name: Any) -> str:
    """The name of an index that MongoDB is to drop. Raises UnsupportedOperation for shadow's own and for a unique one
    that the configuration declares (`spec`), TypeError as the drivers do."""
    if not isinstance(index_or_name, str | list):
        raise TypeError(f"index_or_name must be an instance of str or list, not {type(index_or_name)}")
    name = index_name(index_or_name)
    if is_own(name, spec.reserved):
        raise UnsupportedOperation("drop_index", "tombstones expire by that index")
    if name == "_id_":
        raise failure(72, "InvalidOptions", "cannot drop _id index")
    if any(each.name == name for each in spec.unique):
        raise _belongs_to_all()
    return name


def _belongs_to_all() -> UnsupportedOperation:
    return UnsupportedOperation(
        "drop_index",
        "a unique index of the configuration belongs to every process",
        hint="remove it from the configuration; the tables keep it",
    )


def index_not_found(name: str) -> OperationFailure:
    """The server's error for an index that does not exist."""
    return failure(_INDEX_NOT_FOUND, "IndexNotFound", f"index not found with name [{name}]")


def is_not_found(error: Exception) -> bool:
    """Whether a store reports that it has no such index: a result, and not a failure."""
    return isinstance(error, OperationFailure) and error.code == _INDEX_NOT_FOUND
