"""How a MongoDB lists an index that is asked for: with its kinds of keys, its defaults and its types. Pure.

The tests compare it with a real server, option by option (6.0: later servers have later versions of text indexes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bson import Decimal128
from bson.son import SON

from shadow.model.collations import is_simple

__all__ = ["ID_INDEX", "as_listed", "is_set"]

ID_INDEX: Final[Mapping[str, Any]] = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
_ORDER: Final = (
    *("background", "unique", "hidden", "sparse", "partialFilterExpression", "expireAfterSeconds", "prepareUnique"),
    *("weights", "default_language", "language_override", "textIndexVersion", "2dsphereIndexVersion"),
    *("bits", "min", "max", "wildcardProjection", "storageEngine", "collation"),
)
_TEXT: Final = {"default_language": "english", "language_override": "language", "textIndexVersion": 3}
_SPHERE: Final = {"2dsphereIndexVersion": 3}
_COLLATION: Final = (
    *(("caseLevel", False), ("caseFirst", "off"), ("strength", 3), ("numericOrdering", False)),
    *(("alternate", "non-ignorable"), ("maxVariable", "punct"), ("normalization", False), ("backwards", False)),
)
_ICU: Final = "57.1"
_DROPPED_IF_FALSE: Final = ("unique", "hidden")
_WHOLE: Final = ("expireAfterSeconds", "v", "textIndexVersion", "2dsphereIndexVersion", "bits")


def as_listed(keys: tuple[tuple[str, Any], ...], name: str, options: Mapping[str, Any]) -> SON[str, Any]:
    """The entry of `listIndexes`. `options`: valid ones, a collation as a mapping."""
    found: dict[str, Any] = {each: options[each] for each in _ORDER if each in options}
    key, kinds = dict(keys), [kind for _, kind in keys]
    if "text" in kinds:
        found = {**found, **{each: found.get(each, default) for each, default in _TEXT.items()}}
        found["weights"], key = _weights(keys, found.get("weights")), _text_key(keys)
    if "2dsphere" in kinds:
        found = {**_SPHERE, **found}
    for each in found:
        found[each] = _value(each, found[each])
    for each in _DROPPED_IF_FALSE:
        if found.get(each) is False:
            del found[each]
    if "collation" in found and (found["collation"] is None or is_simple(found["collation"])):
        del found["collation"]
    rest = [(each, found[each]) for each in _ORDER if each in found]
    return SON([("v", _number(options.get("v", 2))), ("key", SON(key)), ("name", name), *rest])


def is_set(flag: Any) -> bool:
    """Whether the server takes a boolean or a number for true."""
    return bool(flag.to_decimal() if isinstance(flag, Decimal128) else flag)


def _value(option: str, value: Any) -> Any:
    if option in ("unique", "sparse", "background", "hidden", "prepareUnique"):
        return is_set(value)
    if option in _WHOLE:
        return _number(value)
    if option in ("min", "max"):
        return float(value.to_decimal() if isinstance(value, Decimal128) else value)
    return _collation(value) if option == "collation" else value


def _number(value: Any) -> int:
    return int(value.to_decimal() if isinstance(value, Decimal128) else value)


def _collation(value: Any) -> Any:
    if not isinstance(value, Mapping) or is_simple(value):
        return value
    defaults = {**dict(_COLLATION), "backwards": value.get("locale") == "fr_CA"}
    rest = [(each, value.get(each, default)) for each, default in defaults.items()]
    return SON([("locale", value.get("locale")), *rest, ("version", _ICU)])


def _weights(keys: tuple[tuple[str, Any], ...], given: Any) -> SON[str, Any]:
    found = {path: 1 for path, kind in keys if kind == "text"}
    found.update(
        {given: 1} if isinstance(given, str) else {path: _number(each) for path, each in (given or {}).items()}
    )
    return SON(sorted(found.items()))


def _text_key(keys: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """The fields of the text are one key, in the place of the first."""
    made: dict[str, Any] = {}
    for path, kind in keys:
        made.update({"_fts": "text", "_ftsx": 1} if kind == "text" else {path: kind})
    return made
