"""`$out` and `$merge`: what a pipeline writes at its end, as the server reads it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from shadow.model.order import MISSING, as_document, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import checked_name, evaluator
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import at_path, checked_path
from shadow.mongoql.values.support import TABLE, Family, require

__all__ = ["Merge", "Out", "Output", "check_place", "check_stages", "is_output", "output_of"]


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
    has_let: bool = False
    name: str = "$merge"

    @property
    def mode(self) -> str:
        return self.matched if isinstance(self.matched, str) else "pipeline"

    def check_let(self) -> None:
        """Raises OperationFailure with the server's codes."""
        if self.has_let and self.mode != "pipeline":
            raise failure(51199, f"Cannot use 'let' variables with 'whenMatched: {self.mode}' mode")
        if self.let.get("new", "$$ROOT") != "$$ROOT":
            raise failure(51273, "'let' may not define a value for the reserved 'new' variable other than '$$ROOT'")
        for name, expression in self.let.items():
            if name != "new":
                checked_name(name, 9)
                evaluator(expression)

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
        values = {name: evaluator(expression)(document) for name, expression in self.let.items() if name != "new"}
        found = {name: value for name, value in values.items() if value is not MISSING}
        return {"new": document, **found} if self._has_new else found

    @property
    def _has_new(self) -> bool:
        """A `let` takes the place of the server's own, which has `new`; but it inserts by that variable too."""
        return not self.has_let or "new" in self.let or self.unmatched == "insert"

    def names(self) -> list[str]:
        """Of the variables that `matched` may read."""
        return [*(["new"] if self._has_new else []), *(name for name in self.let if name != "new")]


Output = Out | Merge

_PIPELINES: Final = {"$lookup": "pipeline", "$unionWith": "pipeline", "$merge": "whenMatched"}
_INTERNAL: Final = frozenset({"admin", "config", "local"})
_FREE: Final = itertools.product(("replace", "merge", "pipeline"), ("insert", "discard", "fail"))
_PAIRS: Final = frozenset({*_FREE, ("keepExisting", "insert"), ("fail", "insert")})


def output_of(stage: Mapping[str, Any], database: str) -> Output:
    """A canonical `$out` or `$merge` of a pipeline on a collection of `database`. Raises OperationFailure with the
    server's codes."""
    check_stages([stage])
    ((name, spec),) = stage.items()
    return _out(spec, database) if name == "$out" else _merge(spec, database)


def is_output(stage: Any) -> bool:
    return isinstance(stage, Mapping) and not {"$out", "$merge"}.isdisjoint(stage)


def check_stages(pipeline: Sequence[Any]) -> None:
    """What the server reads first of a pipeline that writes: the names of its stages at every depth, and the outputs.
    Raises OperationFailure with the server's codes."""
    for stage in pipeline:
        if not isinstance(stage, Mapping):
            raise failure(14, "Each element of the 'pipeline' array must be an object")
        if len(stage) != 1:
            raise failure(40323, "A pipeline stage specification object must contain exactly one field.")
        ((name, spec),) = stage.items()
        if name not in TABLE[Family.STAGE]:
            require(Family.STAGE, name)
        if name == "$out":
            _out(spec, "")
        if name == "$merge" and type(spec) is dict:
            _read(spec, "")
        for inner in _inner(name, spec):
            check_stages(inner)


def _inner(name: str, spec: Any) -> list[list[Any]]:
    """The pipelines in a stage."""
    if type(spec) is not dict:
        return []
    found = spec.values() if name == "$facet" else (spec.get(_PIPELINES.get(name, "")),)
    return [each for each in found if type(each) is list and all(isinstance(stage, Mapping) for stage in each)]


def check_place(pipeline: Sequence[Any]) -> None:
    """Raises OperationFailure for an output before the last stage."""
    for stage in pipeline[:-1]:
        if is_output(stage):
            raise failure(40601, f"{next(iter(stage))} can only be the final stage in the pipeline")


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
    if named["db"] in _INTERNAL:
        raise failure(31321, f"Can't $out to internal database: {named['db']}")
    return Out(named["db"], named["coll"])


def _merge(spec: Any, database: str) -> Merge:
    if type(spec) is str:
        if not spec:
            raise failure(73, f"Invalid $merge target namespace: '{database}.'")
        spec = {"into": spec}
    if type(spec) is not dict:
        raise failure(14, f"$merge requires a string or object argument, but found {described(spec)}")
    made = _read(spec, database)
    if any(each in made.database for each in "/ \\"):
        raise failure(73, f"Invalid $merge target namespace: '{made.database}.{made.collection}'")
    for path in made.on:
        checked_path(path)
    if len(set(made.on)) < len(made.on):
        raise failure(31465, "Found a duplicate field in $merge 'on'")
    special = made.collection.startswith("system.")
    if (special or made.database in _INTERNAL) and set(made.on) != {"_id"}:
        raise failure(51183, "Cannot find index to verify that join fields will be unique")
    if special:
        raise failure(31319, f"Cannot $merge to special collection: {made.collection}")
    if made.database in _INTERNAL:
        raise failure(31320, f"Cannot $merge to internal database: {made.database}")
    return made


def _read(spec: Mapping[str, Any], database: str) -> Merge:
    """The fields, in their order; their values are checked later."""
    into: tuple[str, str] | None = None
    made = Merge(database, "")
    for name, value in spec.items():
        match name:
            case "into":
                into = _into(value, database)
            case "on":
                made = replace(made, on=_on(value))
            case "let":
                made = replace(made, let=_let(value), has_let=value is not None)
            case "whenMatched":
                made = replace(made, matched=_matched(value))
            case "whenNotMatched":
                made = replace(made, unmatched="insert" if value is None else _unmatched(value))
            case _:
                raise failure(40415, f"BSON field '$merge.{name}' is an unknown field.")
    if into is None:
        raise failure(40414, "BSON field '$merge.into' is missing but a required field")
    if (made.mode, made.unmatched) not in _PAIRS:
        raise failure(
            51181,
            f"Combination of $merge modes 'whenMatched: {made.mode}' and 'whenNotMatched: {made.unmatched}' is not "
            "supported",
        )
    return replace(made, database=into[0], collection=into[1])


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
        if value is not None and type(value) is not str:
            raise failure(
                14, f"BSON field 'into.{name}' is the wrong type '{described(value)}', expected type 'string'"
            )
    collection = spec.get("coll")
    if not collection:
        raise failure(5786801, "$merge 'into' field must specify a 'coll' that is not empty, null or undefined")
    into = spec.get("db") or database
    if collection.startswith(".") or "\0" in collection + into or "." in into:
        raise failure(73, "Invalid $merge target namespace")
    return into, collection


def _on(spec: Any) -> tuple[str, ...]:
    paths = [spec] if type(spec) is str else spec
    if type(paths) is not list:
        raise failure(51186, "$merge 'on' field  must be either a string or an array of strings")
    if not paths:
        raise failure(51187, "If explicitly specifying $merge 'on', must include at least one field")
    if not all(type(each) is str for each in paths):
        raise failure(51134, "$merge 'on' array elements must be strings")
    return tuple(paths)


def _matched(spec: Any) -> str | list[Any]:
    if type(spec) is list:
        made = list(map(as_document, spec))
        if not all(type(each) is dict for each in made):
            raise failure(14, "Each element of the 'pipeline' array must be an object")
        return made
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


def _let(spec: Any) -> Mapping[str, Any]:
    let = {} if spec is None else as_document(spec)
    if type(let) is not dict:
        raise failure(14, f"BSON field '$merge.let' is the wrong type '{described(let)}', expected type 'object'")
    return let
