"""`$out` and `$merge`: what a pipeline writes at its end, as the server reads it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from shadow.model.order import MISSING, as_document, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions import checked_name, evaluator
from shadow.mongoql.failures import described, failure
from shadow.mongoql.fieldpaths import at_path, checked_path

__all__ = ["Merge", "Out", "Output", "output_of"]


@dataclass(frozen=True, slots=True)
class Out:
    """`$out`: the documents take the place of all that is in the collection."""

    database: str
    collection: str
    name: str = "$out"

    def keyed(self, documents: Sequence[Document]) -> list[Document]:
        """The documents with an `_id` each. Raises OperationFailure with the server's codes for keys that cannot be."""
        made = [each if "_id" in each else {"_id": ObjectId(), **each} for each in documents]
        if any(type(each["_id"]) is list for each in made):
            raise failure(53, "The '_id' value cannot be of type array")
        if len({order_key(each["_id"]) for each in made}) < len(made):
            text = "E11000 duplicate key error in the result of the pipeline, dup key: _id"
            raise DuplicateKeyError(text, 11000, {"ok": 0.0, "code": 11000, "errmsg": text})
        return made


@dataclass(frozen=True, slots=True)
class Merge:
    """`$merge`. `on`: dotted paths. `matched`: a mode by its name, or the stages of a pipeline, which read the
    variables `let` of the new document."""

    database: str
    collection: str
    on: tuple[str, ...] = ("_id",)
    matched: str | Sequence[Any] = "merge"
    unmatched: str = "insert"
    let: Mapping[str, Any] = field(default_factory=dict)
    name: str = "$merge"

    def keyed(self, documents: Sequence[Document]) -> list[Document]:
        """The documents, with an `_id` where they need one. Raises OperationFailure with the server's codes."""
        made = [{"_id": ObjectId(), **each} if "_id" in self.on and "_id" not in each else each for each in documents]
        for document in made:
            for path in self.on:
                value = at_path(document, path.split("."))
                if type(value) is list:
                    raise failure(51185, f"$merge write error: 'on' field '{path}' is an array")
                if value is MISSING or value is None:
                    raise failure(51132, f"$merge write error: 'on' field '{path}' cannot be missing, null or an array")
        return made

    def filter(self, document: Document) -> Document:
        """What the document is matched by."""
        return {path: {"$eq": at_path(document, path.split("."))} for path in self.on}

    def variables(self, document: Document) -> Document:
        """The values of `let`, and the new document itself; a missing one is not defined."""
        values = {name: evaluator(expression)(document) for name, expression in self.let.items()}
        return {"new": document, **{name: value for name, value in values.items() if value is not MISSING}}


Output = Out | Merge

_FREE: Final = itertools.product(("replace", "merge", "pipeline"), ("insert", "discard", "fail"))
_PAIRS: Final = frozenset({*_FREE, ("keepExisting", "insert"), ("fail", "insert")})


def output_of(stage: Mapping[str, Any], database: str) -> Output:
    """A canonical `$out` or `$merge` of a pipeline on a collection of `database`. Raises OperationFailure with the
    server's codes."""
    ((name, spec),) = stage.items()
    return _out(spec, database) if name == "$out" else _merge(spec, database)


def _out(spec: Any, database: str) -> Out:
    if type(spec) is str:
        named = {"db": database, "coll": spec}
    elif type(spec) is dict:
        named = spec
    else:
        raise failure(16990, f"$out only supports a string or object argument, but found {described(spec)}")
    if set(named) != {"db", "coll"}:
        raise failure(16994, "If an object is passed to $out it must have exactly 2 fields: 'db' and 'coll'")
    if not all(type(each) is str for each in named.values()):
        raise failure(13111, "the fields of $out must be strings")
    if not named["coll"]:
        raise failure(73, f"Invalid $out target namespace, {named['db']}.")
    if named["coll"].startswith("system."):
        raise failure(17385, f"Can't $out to special collection: {named['coll']}")
    return Out(named["db"], named["coll"])


def _merge(spec: Any, database: str) -> Merge:
    if type(spec) is str:
        return Merge(*_into(spec, database))
    if type(spec) is not dict:
        raise failure(14, f"$merge requires a string or object argument, but found {described(spec)}")
    for name in spec:
        if name not in ("into", "on", "let", "whenMatched", "whenNotMatched"):
            raise failure(40415, f"BSON field '$merge.{name}' is an unknown field.")
    if "into" not in spec:
        raise failure(40414, "BSON field '$merge.into' is missing but a required field")
    into, on = _into(spec["into"], database), _on(spec.get("on", "_id"))
    matched, unmatched = _matched(spec.get("whenMatched", "merge")), _unmatched(spec.get("whenNotMatched", "insert"))
    mode = matched if type(matched) is str else "pipeline"
    if (mode, unmatched) not in _PAIRS:
        raise failure(
            51181,
            f"Combination of $merge modes 'whenMatched: {mode}' and 'whenNotMatched: {unmatched}' is not supported",
        )
    return Merge(*into, on, matched, unmatched, _let(spec, mode))


def _into(spec: Any, database: str) -> tuple[str, str]:
    if type(spec) is str:
        if not spec:
            raise failure(5786800, "$merge 'into' field cannot be an empty string")
        spec = {"coll": spec}
    if type(spec) is not dict:
        raise failure(51178, f"$merge 'into' field  must be either a string or an object, but found {described(spec)}")
    for name, value in spec.items():
        if name not in ("db", "coll"):
            raise failure(40415, f"BSON field 'into.{name}' is an unknown field.")
        if type(value) is not str:
            raise failure(
                14, f"BSON field 'into.{name}' is the wrong type '{described(value)}', expected type 'string'"
            )
    collection = spec.get("coll")
    if not collection:
        raise failure(5786801, "$merge 'into' field must specify a 'coll' that is not empty, null or undefined")
    if collection.startswith("system."):
        raise failure(31319, f"Cannot $merge to special collection: {collection}")
    return spec.get("db", database), collection


def _on(spec: Any) -> tuple[str, ...]:
    paths = [spec] if type(spec) is str else spec
    if type(paths) is not list or not all(type(each) is str for each in paths):
        raise failure(51186, "$merge 'on' field  must be either a string or an array of strings")
    if not paths:
        raise failure(51187, "If explicitly specifying $merge 'on', must include at least one field")
    for path in paths:
        checked_path(path)
    if len(set(paths)) < len(paths):
        raise failure(31465, "Found a duplicate field in $merge 'on'")
    return tuple(paths)


def _matched(spec: Any) -> str | list[Any]:
    if type(spec) is list:
        return list(map(as_document, spec))
    if type(spec) is not str:
        raise failure(
            51191, f"$merge 'whenMatched' field  must be either a string or an array, but found {described(spec)}"
        )
    if spec not in ("replace", "merge", "keepExisting", "fail"):
        raise failure(2, f"Enumeration value '{spec}' for field 'whenMatched' is not a valid value.")
    return spec


def _unmatched(spec: Any) -> str:
    if type(spec) is not str:
        raise failure(14, f"BSON field '$merge.whenNotMatched' is the wrong type '{described(spec)}'")
    if spec not in ("insert", "discard", "fail"):
        raise failure(2, f"Enumeration value '{spec}' for field '$merge.whenNotMatched' is not a valid value.")
    return spec


def _let(spec: Mapping[str, Any], mode: str) -> Mapping[str, Any]:
    let = as_document(spec.get("let", {}))
    if type(let) is not dict:
        raise failure(14, f"BSON field '$merge.let' is the wrong type '{described(let)}', expected type 'object'")
    if "let" in spec and mode != "pipeline":
        raise failure(51199, f"Cannot use 'let' variables with 'whenMatched: {mode}' mode")
    if let.get("new", "$$ROOT") != "$$ROOT":
        raise failure(51273, "'let' may not define a value for the reserved 'new' variable other than '$$ROOT'")
    for name, expression in let.items():
        if name != "new":
            checked_name(name, 9)
            evaluator(expression)
    return {name: expression for name, expression in let.items() if name != "new"}
