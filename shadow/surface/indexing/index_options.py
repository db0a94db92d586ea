"""Whether the options of an index are valid: what the server refuses, with its codes, as far as it can be known without
one. Tried on MongoDB 6.0.5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import bson
from bson import Decimal128
from pymongo.collation import Collation

from shadow.errors import UnsupportedOperation
from shadow.model.collations import is_simple
from shadow.model.index_listing import is_set
from shadow.surface.indexing.index_conflicts import failure

__all__ = ["OF_THE_CALL", "check_options", "plain_collation"]

_NOT_SENT: Final = frozenset({"session", "collation"})
"""Options that a driver accepts as objects of its own and does not encode unchanged."""
OF_THE_CALL: Final = frozenset({"session", "comment", "maxTimeMS", "commitQuorum", "background", "v", "ns"})
"""Options that say nothing about the index."""
_OF_ID: Final = (OF_THE_CALL - {"background"}) | {"name", "collation"}
"""What may be given with the keys of an index of `_id`; anything else is refused, whatever it says."""
_DESCRIBING: Final = frozenset(
    {
        *("name", "hidden", "storageEngine", "expireAfterSeconds", "wildcardProjection"),
        *("unique", "sparse", "partialFilterExpression", "collation"),
        *("weights", "default_language", "language_override", "textIndexVersion"),
        *("2dsphereIndexVersion", "bits", "min", "max", "bucketSize", "prepareUnique", "clustered"),
    }
)
"""The options of an index. Source: the server's manual, "createIndexes"."""
_MOST_SECONDS: Final = 2**31 - 1
_NOT_PARTIAL: Final = frozenset(
    {
        *("$ne", "$nin", "$not", "$nor", "$regex", "$expr", "$where", "$text", "$mod", "$all", "$size"),
        *("$elemMatch", "$near", "$nearSphere", "$jsonSchema", "$bitsAllSet", "$bitsAnySet"),
    }
)


def plain_collation(value: Any) -> Any:
    """A collation as a mapping; what is none as it is."""
    return dict(value.document) if isinstance(value, Collation) else value


def check_options(keys: tuple[tuple[str, Any], ...], options: Mapping[str, Any]) -> None:
    # A driver encodes the whole command first, so it raises for any value that BSON cannot hold.
    bson.encode({name: value for name, value in options.items() if name not in _NOT_SENT})
    name = options.get("name")
    if name is not None and not isinstance(name, str):
        raise failure(14, "TypeMismatch", "The field 'name' must be a string")
    if name == "":
        raise failure(67, "CannotCreateIndex", "The field 'name' must not be empty")
    limit = options.get("maxTimeMS", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**31:
        raise UnsupportedOperation("create_index(maxTimeMS=...)", "it must be a whole number of milliseconds")
    if options.get("session") is not None:
        raise UnsupportedOperation("create_index(session=...)", "DynamoDB has no sessions")
    _check_names(options)
    if "hidden" in options and not isinstance(options["hidden"], bool):
        raise failure(14, "TypeMismatch", "The field 'hidden' must be a bool")
    for flag in ("unique", "sparse"):
        if flag in options and not isinstance(options[flag], bool | int | float | Decimal128):
            raise failure(14, "TypeMismatch", f"The field '{flag}' must be a bool or a number")
    _check_fields(keys, options)
    more = {name for name in options if name not in _OF_ID}
    if [path for path, _ in keys] == ["_id"] and more:
        text = f"The field '{min(more)}' is not valid for an _id index specification"
        raise failure(197, "InvalidIndexSpecificationOption", text)
    _check_expiry(keys, options)
    _check_kinds(keys, options)
    if "partialFilterExpression" in options and not isinstance(options["partialFilterExpression"], Mapping):
        raise failure(14, "TypeMismatch", "The field 'partialFilterExpression' must be an object")
    _check_partial(options)
    collation = plain_collation(options.get("collation"))
    if collation is not None and not isinstance(collation, Mapping):
        raise TypeError("collation must be a dict, bson.son.SON, or an instance of collation.Collation")
    if collation is not None:
        bson.encode(collation)
        if not collation:
            raise failure(2, "BadValue", "The field 'collation' cannot be an empty object.")
    if [path for path, _ in keys] != ["_id"]:
        if name == "_id_":
            raise failure(2, "BadValue", "The index name '_id_' is reserved for the _id index")
        return
    if keys[0][1] < 0:
        raise failure(2, "BadValue", "The field 'key' for an _id index must be {_id: 1}")


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises the server's error for an option that no index has."""
    unknown = options.keys() - _DESCRIBING - OF_THE_CALL
    if unknown:
        text = f"The field '{min(unknown)}' is not valid for an index specification"
        raise failure(197, "InvalidIndexSpecificationOption", text)
    version = options.get("v", 2)
    if isinstance(version, bool) or not isinstance(version, int | float):
        raise failure(14, "TypeMismatch", "The field 'v' must be a number")
    if version not in (1, 2):
        raise failure(67, "CannotCreateIndex", f"Invalid index specification: cannot create an index with v={version}")
    if "clustered" in options:
        raise failure(67, "CannotCreateIndex", "A secondary index cannot be clustered")


def _check_expiry(keys: tuple[tuple[str, Any], ...], options: Mapping[str, Any]) -> None:
    if "expireAfterSeconds" not in options:
        return
    seconds = options["expireAfterSeconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal128):
        raise failure(67, "CannotCreateIndex", "The field 'expireAfterSeconds' must be a number")
    number = float(seconds.to_decimal() if isinstance(seconds, Decimal128) else seconds)
    if not 0 <= number <= _MOST_SECONDS:
        raise failure(67, "CannotCreateIndex", f"expireAfterSeconds must be from 0 to {_MOST_SECONDS}")
    if len({path for path, _ in keys}) > 1:  # a name that comes twice is one field to the server
        text = "TTL indexes are single-field indexes"
        raise failure(67, "CannotCreateIndex", text)


def _check_fields(keys: tuple[tuple[str, Any], ...], options: Mapping[str, Any]) -> None:
    """What the server checks before what an index of `_id` may have."""
    if "weights" in options and "text" not in [kind for _, kind in keys]:
        raise failure(67, "CannotCreateIndex", "weights are those of a text index")
    if "wildcardProjection" in options and [path for path, _ in keys] != ["$**"]:
        raise failure(2, "BadValue", "The field 'wildcardProjection' is only allowed in an index of '$**'")


def _check_kinds(keys: tuple[tuple[str, Any], ...], options: Mapping[str, Any]) -> None:
    """What some kinds of indexes do not go with."""
    kinds, paths = [kind for _, kind in keys], [path for path, _ in keys]
    plugins = {kind for kind in kinds if isinstance(kind, str)}
    collation = plain_collation(options.get("collation"))
    wildcard = any("$**" in path for path in paths) and not plugins
    text = _adjacent(kinds)
    wrong = {
        "only one kind of index in an index": len(plugins) > 1,
        "GeoHaystack indexes cannot be created in version 5.0 and above": "geoHaystack" in plugins,
        "a text or 2d index has no collation": bool(plugins & {"text", "2d"}) and not _is_none(collation),
        "the fields of a text index must be adjacent": not text,
        "a wildcard index has one field": wildcard and len(set(paths)) > 1,
        "a wildcard index is neither sparse nor unique nor a TTL index": wildcard
        and (is_set(options.get("sparse")) or is_set(options.get("unique")) or "expireAfterSeconds" in options),
        "a wildcard index has version 2": wildcard and options.get("v") == 1,
        "a wildcard index is ascending": wildcard and any(kind < 0 for kind in kinds if not isinstance(kind, str)),
        "only a text index has every field with another kind": any("$**" in path for path in paths)
        and bool(plugins - {"text"}),
        "a partial index is not sparse": is_set(options.get("sparse")) and "partialFilterExpression" in options,
        "storageEngine must not be empty": options.get("storageEngine") == {},
    }
    for why, is_wrong in wrong.items():
        if is_wrong:
            raise failure(67, "CannotCreateIndex", why)


def _is_none(collation: Any) -> bool:
    return collation is None or is_simple(collation)


def _adjacent(kinds: list[Any]) -> bool:
    """Whether all fields of a text index follow one another."""
    places = [place for place, kind in enumerate(kinds) if kind == "text"]
    return not places or places[-1] - places[0] == len(places) - 1


def _check_partial(options: Mapping[str, Any]) -> None:
    for operator, value in _operators(options.get("partialFilterExpression", {})):
        if operator in _NOT_PARTIAL or (operator == "$exists" and not is_set(value)):
            raise failure(67, "CannotCreateIndex", f"Expression not supported in partial index: {operator}")


def _operators(expression: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(expression, Mapping):
        for name, value in expression.items():
            if name.startswith("$"):
                yield name, value
            yield from _operators(value)
    elif isinstance(expression, list):
        for each in expression:
            yield from _operators(each)
