"""Runs the same calls on two collections and makes what they answer comparable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import bson
from bson import ObjectId
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

__all__ = ["Scenario", "Scenarios", "Seen", "assert_same"]

_DETAILS = ("nInserted", "nUpserted", "nMatched", "nModified", "nRemoved")


class Seen:
    """What a collection answered, call by call: `await see(collection.find_one(...))`."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, Any]] = []
        self.errors: dict[int, Exception] = {}

    async def __call__(self, call: Awaitable[Any] | Callable[[], Any]) -> Any:
        """`call` is awaitable, or a function that makes it, for what is refused at once."""
        try:
            made = call() if callable(call) else call
            answer = await made if hasattr(made, "__await__") else made
        except Exception as error:
            self.errors[len(self.answers)] = error
            self.answers.append(("error", _error(error)))
            return None
        self.answers.append(("answer", shape(answer)))
        return answer

    def said(self, place: int) -> str:
        """An answer for people to read."""
        return repr(self.errors.get(place) or self.answers[place][1])

    def note(self, value: Any) -> None:
        self.answers.append(("note", shape(value)))


Scenario = Callable[[Any, Seen], Awaitable[None]]


class Scenarios(dict[str, Scenario]):
    """Those of a module by their names; `add` is for use as a decorator."""

    def add(self, function: Scenario) -> Scenario:
        self[function.__name__] = function  # type: ignore[attr-defined]
        return function


def shape(answer: Any) -> Any:
    """Documents as BSON, results as their attributes; ids that were made on the way as their type."""
    match answer:
        case InsertOneResult():
            return ("inserted", _id(answer.inserted_id), answer.acknowledged)
        case InsertManyResult():
            return ("inserted", [_id(each) for each in answer.inserted_ids], answer.acknowledged)
        case UpdateResult():
            counts = (answer.matched_count, answer.modified_count)
            return ("updated", *counts, _id(answer.upserted_id), answer.raw_result.get("updatedExisting"))
        case DeleteResult():
            return ("deleted", answer.deleted_count, answer.acknowledged)
        case BulkWriteResult():
            upserted = {place: _id(each) for place, each in (answer.upserted_ids or {}).items()}
            return ("bulk", {name: answer.bulk_api_result[name] for name in _DETAILS}, upserted)
        case dict():
            return bson.encode({**answer, **({"_id": None} if isinstance(answer.get("_id"), ObjectId) else {})})
        case list() | tuple():
            return [shape(each) for each in answer]
        case _:
            return bson.encode({"": answer}) if not isinstance(answer, str | int | float | None) else answer


def _id(value: Any) -> Any:
    return "ObjectId" if isinstance(value, ObjectId) else value


def _error(error: Exception) -> Any:
    if isinstance(error, BulkWriteError):
        errors = [
            (each["index"], each["code"], each.get("keyPattern"), each.get("keyValue"), shape(each["op"]))
            for each in error.details["writeErrors"]
        ]
        upserted = [(each["index"], _id(each["_id"])) for each in error.details["upserted"]]
        return (*(error.details[name] for name in _DETAILS), errors, upserted)
    if isinstance(error, OperationFailure):
        details = error.details or {}
        return (error.code, details.get("keyPattern"), details.get("keyValue"))
    return None


def assert_same(bare: Seen, shim: Seen) -> None:
    """The same answers, and errors of the classes that the application's `except` clauses name. All that differs is
    said at once."""
    assert len(shim.answers) == len(bare.answers)
    different = [
        f"call {place}: {shim.said(place)} instead of {bare.said(place)}"
        for place in range(len(bare.answers))
        if shim.answers[place] != bare.answers[place]
        or not isinstance(shim.errors.get(place), type(bare.errors.get(place)))
    ]
    assert not different, "\n".join(different)
