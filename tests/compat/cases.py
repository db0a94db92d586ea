"""One differential case: documents and an operation, asked of a real mongod and of `shadow.mongoql`.

The two answers are compared by BSON bytes, or as errors by their code. The differences that are known are named here,
each with its number; a case that falls under one is counted, not passed over in silence.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import DBRef
from pymongo.database import Database
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.differences import DIFFERENCES
from shadow.model.order import order_key, sort_documents
from shadow.model.values import CANONICAL, normalise_value
from shadow.mongoql import compile_filter, compile_pipeline, compile_projection, compile_update

KINDS = ("filter", "sort", "projection", "positional", "update", "upsert", "pipeline_update", "pipeline")

KNOWN = {number: DIFFERENCES[number] for number in range(1, 8)}


@dataclass(frozen=True)
class Case:
    """`operation` by kind: a filter; sort pairs; a projection; a filter and a projection; {filter, update,
    array_filters}; a pipeline."""

    kind: str
    documents: list[dict[str, Any]]
    operation: Any
    others: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind}: {self.operation!r}\n  over {self.documents!r}"


@dataclass(frozen=True)
class Answer:
    """Encoded documents (or keys), or the code of an error; `refused` names what the engine does not do."""

    documents: list[bytes] | None = None
    code: int | None = None
    refused: str = ""
    crash: str = ""

    def __str__(self) -> str:
        if self.documents is None:
            return f"refused {self.refused}" if self.refused else self.crash or f"error {self.code}"
        return repr([bson.decode(d, codec_options=CANONICAL) for d in self.documents])


def _fields(document: Any) -> Any:
    """Those of an answer. The drivers read one with `$ref` and `$id` as a reference."""
    return document.as_doc() if isinstance(document, DBRef) else document


def _answer(ask: Callable[[], Any]) -> Answer:
    try:
        return Answer([bson.encode(_fields(document)) for document in ask()])
    except UnsupportedOperation as error:
        return Answer(refused=error.name)
    except OperationFailure as error:
        return Answer(code=error.code)
    except Exception:
        return Answer(crash=traceback.format_exc())


# -- the server ---------------------------------------------------------------------------------------------------


class Server:
    """A database of a real mongod. Collections are filled once for each set of documents."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self.database = database
        self.held: dict[str, Any] = {}

    def _collection(self, name: str, documents: list[dict[str, Any]]) -> Any:
        collection = self.database.get_collection(name, codec_options=CANONICAL)
        if self.held.get(name) is not documents:
            collection.delete_many({})
            if documents:
                collection.insert_many([dict(d) for d in documents])
            self.held[name] = documents
        return collection

    def ask(self, case: Case) -> Answer:
        if case.kind in ("update", "upsert", "pipeline_update"):
            return _answer(lambda: self._update(case))
        documents = self._collection("documents", case.documents)
        self._collection("others", case.others)
        match case.kind:
            case "filter":
                return _answer(lambda: list(documents.find(case.operation, {"_id": 1}).sort("_id", 1)))
            case "sort":
                return _answer(lambda: list(documents.find({}).sort([tuple(pair) for pair in case.operation])))
            case "projection":
                return _answer(lambda: list(documents.find({}, case.operation).sort("_id", 1)))
            case "positional":
                return _answer(lambda: list(documents.find(*case.operation).sort("_id", 1)))
            case _:
                return _answer(lambda: list(documents.aggregate(case.operation)))

    def _update(self, case: Case) -> list[dict[str, Any]]:
        collection = self.database.get_collection("updated", codec_options=CANONICAL)
        key = case.operation["filter"]["_id"]
        collection.delete_many({"_id": key})
        if case.documents:
            collection.insert_many([dict(d) for d in case.documents])
        filters = case.operation.get("array_filters") or None
        collection.update_one(
            case.operation["filter"], case.operation["update"], upsert=case.kind == "upsert", array_filters=filters
        )
        return list(collection.find({"_id": key}))


# -- the engine ---------------------------------------------------------------------------------------------------


def ask_engine(case: Case) -> Answer:
    before = [bson.encode(d) for d in case.documents]
    answer = _answer(lambda: _engine(case))
    assert [bson.encode(d) for d in case.documents] == before, f"the engine changed its input: {case}"
    return answer


def _engine(case: Case) -> list[dict[str, Any]]:
    match case.kind:
        case "filter":
            matches = compile_filter(case.operation).matches
            return [{"_id": d["_id"]} for d in case.documents if matches(d)]
        case "sort":
            return sort_documents(case.documents, [tuple(pair) for pair in case.operation])
        case "projection":
            project = compile_projection(case.operation)
            return [project(d) for d in case.documents]
        case "positional":
            filter, project = compile_filter(case.operation[0]), compile_projection(case.operation[1])
            project.check(filter)
            return [project(d, filter) for d in case.documents if filter.matches(d)]
        case "pipeline":
            held = {"documents": case.documents, "others": case.others}
            answer = compile_pipeline(case.operation).run(case.documents, lambda name: held.get(name, []))
            return [normalise_value(d) for d in answer]
        case _:
            return _engine_update(case)


def _engine_update(case: Case) -> list[dict[str, Any]]:
    update = compile_update(case.operation["update"], case.operation.get("array_filters") or ())
    filter = compile_filter(case.operation["filter"])
    if case.kind == "upsert":
        return [update.upsert(filter, case.operation["filter"]["_id"])]
    return [update.apply(d, filter) if filter.matches(d) else d for d in case.documents]


# -- agreement ----------------------------------------------------------------------------------------------------


def verdict(case: Case, server: Answer, engine: Answer) -> str:
    """ "equal", "refused", "known N" or "different"."""
    if engine.refused:
        return "refused"
    if server.code is not None and engine.code is not None:
        return "equal" if server.code == engine.code else "known 5"
    if server.crash or engine.crash:
        return "different"
    if server.documents is None or engine.documents is None:
        return "known 1" if _evaluates(case) else "different"
    if server.documents == engine.documents:
        return "equal"
    return _loosely(case, server.documents, engine.documents)


def _evaluates(case: Case) -> bool:
    """Whether the one error there is can come from evaluating an expression (or a sort key) over a document."""
    return case.kind in ("pipeline", "pipeline_update") or "$expr" in repr(case.operation)


def _loosely(case: Case, server: list[bytes], engine: list[bytes]) -> str:
    found = _by_order(case, server, engine)
    if found == "different" and _joins_by_position(case):
        return "known 7"
    return "known 6" if found == "different" and _rewritten(case) else found


def _joins_by_position(case: Case) -> bool:
    """Whether a `$lookup` by position stands before a stage that needs but a part of each document: the server then
    reads no more than that part, and what stands at a position is not in it."""
    if case.kind != "pipeline":
        return False
    by_position = False
    for stage in case.operation:
        if by_position and ("$project" in stage or "$group" in stage):
            return True
        local = str(stage.get("$lookup", {}).get("localField", ""))
        by_position = by_position or any(part.isdigit() for part in local.split("."))
    return False


def _rewritten(case: Case) -> bool:
    """Whether mongod is known to run the stages of this pipeline otherwise than they stand there."""
    if case.kind != "pipeline":
        return False
    names = [next(iter(stage)) for stage in case.operation]
    later = {name: names[names.index(name) + 1 :] for name in names}
    return bool({"$unwind", "$group", "$sortByCount"} & set(later.get("$project", ()))) or "$sort" in later.get(
        "$unwind", ()
    )


def _matches_by_position(case: Case, adding: str) -> bool:
    """Whether a `$match` by a position (`a.0`) stands after a stage that adds fields: mongod moves it before that."""
    added = False
    for stage in case.operation:
        names = [part for path in _paths(stage.get("$match", {})) for part in path.split(".")]
        if added and any(name.isdigit() for name in names):
            return True
        added = added or adding in stage
    return False


def _paths(filter: Any) -> list[str]:
    if isinstance(filter, list):
        return [path for each in filter for path in _paths(each)]
    if not isinstance(filter, dict):
        return []
    return [path for name, inner in filter.items() for path in ([name] if name[:1] != "$" else _paths(inner))]


def _by_order(case: Case, server: list[bytes], engine: list[bytes]) -> str:
    text = repr(case.operation)
    theirs, ours = ([bson.decode(d, codec_options=CANONICAL) for d in side] for side in (server, engine))
    if "$group" in text or "$addToSet" in text or "$sortByCount" in text:
        return "known 2" if case.kind == "pipeline" and _bag(theirs) == _bag(ours) else "different"
    if case.kind == "pipeline" and "$lookup" in text and _unplaced(theirs) == _unplaced(ours):
        return "known 4"
    if case.kind in ("pipeline", "pipeline_update") and _unplaced(theirs) == _unplaced(ours):
        stages = case.operation if case.kind == "pipeline" else case.operation["update"]
        return "known 3" if len(stages) > 1 else "different"
    return "different"


def _bag(value: Any) -> Any:
    """A value in which no list has an order."""
    if isinstance(value, list):
        return sorted(repr(_bag(v)) for v in value)
    if isinstance(value, dict):
        return {k: _bag(v) for k, v in value.items()}
    if order_key(value) == order_key(0):
        return 0  # which of several equal zeros is kept depends on the order of the hash table
    return bson.encode({"": value})


def _unplaced(value: Any) -> Any:
    """A value in which no object has an order."""
    if isinstance(value, list):
        return [_unplaced(v) for v in value]
    if isinstance(value, dict):
        return {k: _unplaced(v) for k, v in value.items()}
    return bson.encode({"": value})
