"""Indexes as the Motor surface sees them: what the configuration declares, in PyMongo's shapes.

An application that calls `create_index` at start-up keeps doing so: an index that the configuration serves is
confirmed, another one is refused with the lines that would declare it: a DynamoDB table gets its indexes from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Sort
from shadow.model.schema import CollectionSpec
from shadow.model.version import Document

__all__ = ["documents", "information", "require"]

_HARMLESS = frozenset({"name", "background", "comment", "v", "maxTimeMS"})


def documents(spec: CollectionSpec) -> dict[str, Document]:
    """Name to {"key": {...}, ...} of every index, that of `_id` first."""
    found: dict[str, Document] = {"_id_": {"key": {"_id": 1}}}
    for index in spec.indexes:
        found[index.name] = {"key": {name: 1 for name in (index.hash, index.range) if name is not None}}
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


def require(spec: CollectionSpec, keys: Sort, options: Mapping[str, Any]) -> str:
    """The name of the declared index that serves `keys`; raises UnsupportedOperation for another."""
    wanted = tuple(name for name, _ in keys)
    unique, sparse = bool(options.get("unique")), bool(options.get("sparse"))
    unknown = {name for name, value in options.items() if value} - _HARMLESS - {"unique", "sparse"}
    if unknown:
        raise UnsupportedOperation(f"create_index({min(unknown)}=...)", "a DynamoDB index has no such option")
    for name, each in documents(spec).items():
        key = tuple(each["key"])
        serves = set(key) == set(wanted) if unique else key[: len(wanted)] == wanted
        if serves and unique == bool(each.get("unique")) and (not unique or sparse == bool(each.get("sparse"))):
            return name
    if wanted == ("_id",):
        return "_id_"
    raise UnsupportedOperation(
        f"create_index on {', '.join(wanted)}", "the configuration declares no such index", hint=_lines(wanted, unique)
    )


def _lines(wanted: tuple[str, ...], unique: bool) -> str:
    """What to write under the collection's name in the configuration file."""
    name = f"{'_'.join(wanted)}-index".replace(".", "_")
    if unique:
        return f"unique: [{{name: {name}, fields: [{', '.join(wanted)}]}}]"
    if len(wanted) > 2 or any("." in each for each in wanted):
        return "an index here has one field, or a hash and a range field, at the top level of the document"
    more = f", range: {wanted[1]}" if len(wanted) == 2 else ""
    return f"indexes: [{{name: {name}, hash: {wanted[0]}{more}}}], then `shadow tables create`"
