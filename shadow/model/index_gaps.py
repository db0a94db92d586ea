"""MongoDB's indexes that have no counterpart on DynamoDB, and what that means after the flip. Pure.

An index that only makes queries faster changes no answer: without it they scan. Others decide what is stored or which
queries exist at all; without a counterpart, DynamoDB as primary would answer otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shadow.model.collations import of_index
from shadow.model.schema import CollationSpec, CollectionSpec

__all__ = ["IndexGap", "Loss", "gaps_of", "is_own", "is_special"]

_GEO: Final = ("2d", "2dsphere", "2dsphere_bucket", "geoHaystack")
_SPECIAL: Final = ("text", *_GEO)


class Loss(enum.StrEnum):
    """What an application loses with an index."""

    ANSWERS = "answers"
    """Queries are refused, documents do not expire, or values are accepted twice."""
    SPEED = "speed"
    """Queries scan the table."""


@dataclass(frozen=True, slots=True)
class IndexGap:
    """An index of MongoDB without counterpart. `why`: what is different after the flip; `advice`: the next step."""

    index: str
    kind: str
    loss: Loss
    why: str
    advice: str

    def is_acknowledged(self, accepted: Collection[str]) -> bool:
        """Whether the configuration accepts the loss: by the index's name, or `*` for all."""
        return self.index in accepted or "*" in accepted


def is_own(name: Any, reserved: str) -> bool:
    """Whether an index is on the field of the version: shadow's own, which the application never sees."""
    return str(name).startswith(f"{reserved}_")


def is_special(kind: Any) -> bool:
    """Whether a direction of a key is a kind of index that answers queries of its own (text, geo)."""
    return kind in _SPECIAL


def gaps_of(indexes: Iterable[Mapping[str, Any]], spec: CollectionSpec) -> tuple[IndexGap, ...]:
    """Those of `indexes` (entries of `listIndexes`) that have no counterpart in the collection's definition."""
    theirs = [each for each in indexes if each["name"] != "_id_" and not is_own(each["name"], spec.reserved)]
    return tuple(gap for each in theirs if (gap := _gap(each, spec)) is not None)


def _gap(raw: Mapping[str, Any], spec: CollectionSpec) -> IndexGap | None:
    name, kinds, paths = str(raw["name"]), list(raw["key"].values()), tuple(raw["key"])
    special = next((kind for kind in kinds if is_special(kind)), None)
    if special is not None:
        asked = "$text" if special == "text" else "$near, $geoWithin and $geoIntersects"
        why = f"queries with {asked} are refused"
        return IndexGap(name, f"{special} index", Loss.ANSWERS, why, "serve these queries elsewhere before the flip")
    if "expireAfterSeconds" in raw:
        return _of_expiry(raw, spec)
    if raw.get("unique"):
        return _of_unique(raw, spec)
    if any(index.keys[: len(paths)] == paths for index in spec.indexes):
        return None
    if any(unique.fields == paths for unique in spec.unique):
        return None
    return IndexGap(name, _kind(raw), Loss.SPEED, "queries that it serves scan the table", _lookup_advice(paths))


def _of_expiry(raw: Mapping[str, Any], spec: CollectionSpec) -> IndexGap | None:
    (field, *_), after = raw["key"], raw["expireAfterSeconds"]
    if spec.expiry is not None and (spec.expiry.field, spec.expiry.after) == (field, after):
        return None
    why = "documents do not expire" if spec.expiry is None else "documents expire by another rule"
    advice = f"expires: {{field: {field}, after: {after}}}, then restart every process, then `shadow tables create`"
    return IndexGap(str(raw["name"]), "TTL index", Loss.ANSWERS, why, advice)


def _of_unique(raw: Mapping[str, Any], spec: CollectionSpec) -> IndexGap | None:
    name, paths, sparse = str(raw["name"]), tuple(raw["key"]), bool(raw.get("sparse"))
    why = "values that MongoDB refuses are accepted"
    collation = of_index(raw.get("collation"))
    for option in ("partialFilterExpression", "collation"):
        if option in raw and (option != "collation" or collation is None):
            advice = "store what must be unique in a field of its own, under a plain unique index"
            return IndexGap(name, f"unique index with {option}", Loss.ANSWERS, why, advice)
    meaning = sparse, collation
    if any(set(each.fields) == set(paths) and (each.sparse, each.collation) == meaning for each in spec.unique):
        return None
    advice = unique_advice(name, paths, sparse=sparse, collation=collation)
    return IndexGap(name, "unique index", Loss.ANSWERS, why, advice)


def unique_advice(
    name: str, paths: tuple[str, ...], *, sparse: bool = False, collation: CollationSpec | None = None
) -> str:
    """What to add under the collection's name in the configuration file."""
    more = ", sparse: true" if sparse else ""
    if collation is not None:
        more += f", collation: {{locale: {collation.locale}, strength: {collation.strength}}}"
    return f"unique: [{{name: {name}, fields: [{', '.join(paths)}]{more}}}], then `shadow tables create`"


def _kind(raw: Mapping[str, Any]) -> str:
    if any("$**" in path for path in raw["key"]):
        return "wildcard index"
    if "hashed" in raw["key"].values():
        return "hashed index"
    named = {"partialFilterExpression": "partial", "collation": "collation", "sparse": "sparse", "hidden": "hidden"}
    return next((f"{kind} index" for option, kind in named.items() if raw.get(option)), "index")


def _lookup_advice(paths: tuple[str, ...]) -> str:
    """What to add under the collection's name in the configuration file."""
    if any("$**" in each for each in paths):
        return "an index here names its fields: declare those that queries use"
    if len(paths) > 2 or any("." in each for each in paths):
        return "an index here has one field, or a hash and a range field, at the top level of the document"
    more = f", range: {paths[1]}" if len(paths) == 2 else ""
    name = f"{'_'.join(paths)}-index"
    return f"indexes: [{{name: {name}, hash: {paths[0]}{more}}}], then `shadow tables create`"
