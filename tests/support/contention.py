"""Callers that meet each other: what each scenario makes many of them do at once, and what that comes to.

A scenario fills a collection, has each caller make one call, and says what the answers and the documents come to as a
few counts. What it wants is true of bare MongoDB with its bare driver, which is a test by itself. Answers are plain, so
that the callers may be in several processes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, ReturnDocument, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from shadow.model.version import Document

__all__ = ["SCENARIOS", "Scenario", "Told", "told"]

SPARE: Final = 6
"""Documents beyond one for each caller: a caller that is told "none" has been told wrongly."""
FEW: Final = 5
"""Documents that all callers change."""
AFTER: Final = ReturnDocument.AFTER
_DUPLICATE: Final = 11000

Things = Any
Told = Mapping[str, Any] | None
"""What a caller was answered: a document, or the counts of a result by name."""
Counts = Mapping[str, Any]


async def told(call: Awaitable[Any]) -> Told:
    """The answer as something plain. A key that is there already is an answer; any other error is raised."""
    try:
        answer = await call
    except DuplicateKeyError:
        return {"refused": 1}
    except BulkWriteError as error:
        if any(each["code"] != _DUPLICATE for each in error.details["writeErrors"]):
            raise
        return {**_bulk(error.details), "refused": len(error.details["writeErrors"])}
    if answer is None or isinstance(answer, dict):
        return answer
    if hasattr(answer, "bulk_api_result"):
        return _bulk(answer.bulk_api_result)
    if hasattr(answer, "inserted_ids"):
        return {"inserted": len(answer.inserted_ids)}
    if hasattr(answer, "inserted_id"):
        return {"inserted": 1}
    if hasattr(answer, "deleted_count"):
        return {"deleted": answer.deleted_count}
    upserted = answer.upserted_id
    return {
        "matched": answer.matched_count,
        "modified": answer.modified_count,
        "upserted": int(upserted is not None),
        "ids": [] if upserted is None else [upserted],
    }


def _bulk(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ("nInserted", "nMatched", "nModified", "nRemoved", "nUpserted")
    named = dict(zip(names, ("inserted", "matched", "modified", "deleted", "upserted"), strict=True))
    return {named[name]: found[name] for name in names} | {"ids": [each["_id"] for each in found["upserted"]]}


def total(answers: Sequence[Told], count: str) -> int:
    """What the callers were told of a count, together."""
    return sum(0 if each is None else each.get(count, 0) for each in answers)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`call` is given the caller's number, from 0 on; `comes_to` makes counts of what the callers were told and what
    stands then; `wanted` are those of bare MongoDB, by the number of callers."""

    call: Callable[[Things, int], Awaitable[Any]]
    comes_to: Callable[[Sequence[Told], Sequence[Document]], Counts]
    wanted: Callable[[int], Counts]
    fill: Callable[[int], list[Document]] = lambda callers: []


# --- what there is before ---------------------------------------------------------------------------------------


def jobs(callers: int) -> list[Document]:
    """More than there are callers."""
    return [{"_id": f"job-{n:03}", "st": "new", "rank": n} for n in range(callers + SPARE)]


def too_few(callers: int) -> list[Document]:
    """Fewer jobs than callers."""
    return jobs(callers)[: half(callers)]


def half(callers: int) -> int:
    return max(1, callers // 2)


def few(callers: int) -> list[Document]:
    """A handful that all callers change, and one that nobody does."""
    return [*({"_id": n, "st": "new", "n": 0} for n in range(FEW)), {"_id": "other", "st": "old", "n": 0}]


def hot(callers: int) -> list[Document]:
    """One document, with as many places as there are callers, and some to spare."""
    return [{"_id": "hot", "name": "counter", "n": 0, "left": half(callers), "rows": list(range(callers + SPARE))}]


# --- what it comes to -------------------------------------------------------------------------------------------


def taken(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
    """Of callers that were given a document: how many, how many different ones, how many stand as they left them."""
    names = [each["_id"] for each in answers if each is not None]
    done = [each["by"] for each in documents if each.get("st") == "taken"]
    return {"given": len(names), "different": len(set(names)), "done": len(done), "by": len(set(done))}


def _taken(callers: int) -> Counts:
    return dict.fromkeys(("given", "different", "done", "by"), callers)


def _half_taken(callers: int) -> Counts:
    return _taken(half(callers))


def ranks(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
    """Which ones the callers were given, by their order."""
    return {"ranks": sorted(-1 if each is None else each["rank"] for each in answers)}


def told_and_done(*counts: str, by: str = "taken") -> Callable[[Sequence[Told], Sequence[Document]], Counts]:
    """What the callers were told of `counts`, how many documents are as a caller leaves them, and how many stand."""

    def comes_to(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
        found = {count: total(answers, count) for count in counts}
        return {**found, "done": sum(each.get("st") == by for each in documents), "stand": len(documents)}

    return comes_to


def sums(*counts: str) -> Callable[[Sequence[Told], Sequence[Document]], Counts]:
    """What the callers were told of `counts`, and what each document counts."""

    def comes_to(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
        found = {count: total(answers, count) for count in counts}
        return {**found, "n": sorted(each["n"] for each in documents)}

    return comes_to


def one(*counts: str, field: str = "n") -> Callable[[Sequence[Told], Sequence[Document]], Counts]:
    """What the callers were told of `counts`, and a field of the only document, lists in order."""

    def comes_to(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
        (document,) = documents
        value = document[field]
        found = {count: total(answers, count) for count in counts}
        return {**found, field: sorted(value) if isinstance(value, list) else value}

    return comes_to


def ids_told(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
    """Of upserts by a filter: MongoDB itself may insert several where several look at once. No change is lost, and each
    document was told to the one that inserted it."""
    ids = [key for each in answers for key in (each or {}).get("ids", ())]
    return {"n": sum(each["n"] for each in documents), "told": sorted(map(str, ids)) == _names(documents)}


def answered(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
    """Of an upsert for which MongoDB may refuse a caller that loses a race for the key, as it does not try again by
    itself if all that match are to be changed: who was told of a change has made one."""
    changed = total(answers, "matched") + total(answers, "upserted")
    (document,) = documents
    return {
        "answered": changed + total(answers, "refused"),
        "upserted": total(answers, "upserted"),
        "lost": changed - document["n"],
    }


def _names(documents: Sequence[Document]) -> list[str]:
    return sorted(str(each["_id"]) for each in documents)


def numbers(answers: Sequence[Told], documents: Sequence[Document]) -> Counts:
    """What each caller was given as its own number."""
    return {"given": sorted(-1 if each is None else each["n"] for each in answers), "n": documents[0]["n"]}


def _numbers(callers: int) -> Counts:
    return {"given": list(range(1, callers + 1)), "n": callers}


# --- scenarios --------------------------------------------------------------------------------------------------


def _take(n: int) -> dict[str, Any]:
    return {"$set": {"st": "taken", "by": n}}


def _inc(field: str = "n") -> dict[str, Any]:
    return {"$inc": {field: 1}}


NEW: Final = {"st": "new"}

_CHOICES: Final[dict[str, Scenario]] = {
    "find_one_and_update": Scenario(lambda things, n: things.find_one_and_update(NEW, _take(n)), taken, _taken, jobs),
    "find_one_and_update, sorted": Scenario(
        lambda things, n: things.find_one_and_update(NEW, _take(n), sort=[("rank", -1)], return_document=AFTER),
        ranks,
        lambda callers: {"ranks": list(range(SPARE, callers + SPARE))},
        jobs,
    ),
    "find_one_and_update, by a pipeline": Scenario(
        lambda things, n: things.find_one_and_update(NEW, [{"$set": {"st": "taken", "by": n}}]), taken, _taken, jobs
    ),
    "find_one_and_update, more than there are": Scenario(
        lambda things, n: things.find_one_and_update(NEW, _take(n)), taken, _half_taken, too_few
    ),
    "find_one_and_replace": Scenario(
        lambda things, n: things.find_one_and_replace(NEW, {"st": "taken", "by": n}), taken, _taken, jobs
    ),
    "find_one_and_replace, sorted": Scenario(
        lambda things, n: things.find_one_and_replace(NEW, {"st": "taken", "by": n}, sort=[("rank", 1)]),
        ranks,
        lambda callers: {"ranks": list(range(callers))},
        jobs,
    ),
    "find_one_and_delete": Scenario(
        lambda things, n: things.find_one_and_delete(NEW),
        lambda answers, documents: {**taken(answers, documents), "stand": len(documents)},
        lambda callers: {"given": callers, "different": callers, "done": 0, "by": 0, "stand": SPARE},
        jobs,
    ),
    "find_one_and_delete, sorted": Scenario(
        lambda things, n: things.find_one_and_delete(NEW, sort=[("rank", 1)]),
        ranks,
        lambda callers: {"ranks": list(range(callers))},
        jobs,
    ),
    "find_one_and_delete, more than there are": Scenario(
        lambda things, n: things.find_one_and_delete({}),
        lambda answers, documents: {**taken(answers, documents), "stand": len(documents)},
        lambda callers: {"given": half(callers), "different": half(callers), "done": 0, "by": 0, "stand": 0},
        too_few,
    ),
    "update_one": Scenario(
        lambda things, n: things.update_one(NEW, _take(n)),
        told_and_done("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "done": callers, "stand": callers + SPARE},
        jobs,
    ),
    "replace_one": Scenario(
        lambda things, n: things.replace_one(NEW, {"st": "taken", "by": n}),
        told_and_done("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "done": callers, "stand": callers + SPARE},
        jobs,
    ),
    "delete_one": Scenario(
        lambda things, n: things.delete_one(NEW),
        told_and_done("deleted", by="new"),
        lambda callers: {"deleted": callers, "done": SPARE, "stand": SPARE},
        jobs,
    ),
    "delete_one, more than there are": Scenario(
        lambda things, n: things.delete_one(NEW),
        told_and_done("deleted"),
        lambda callers: {"deleted": half(callers), "done": 0, "stand": 0},
        too_few,
    ),
}

_MANY: Final[dict[str, Scenario]] = {
    "update_many": Scenario(
        lambda things, n: things.update_many(NEW, _inc()),
        sums("matched", "modified"),
        lambda callers: {"matched": FEW * callers, "modified": FEW * callers, "n": [0, *[callers] * FEW]},
        few,
    ),
    "update_many that ends its own filter": Scenario(
        lambda things, n: things.update_many(NEW, {"$set": {"st": "taken"}, **_inc()}),
        sums("modified"),
        lambda callers: {"modified": FEW, "n": [0, *[1] * FEW]},
        few,
    ),
    "delete_many": Scenario(
        lambda things, n: things.delete_many(NEW),
        told_and_done("deleted", by="old"),
        lambda callers: {"deleted": FEW, "done": 1, "stand": 1},
        few,
    ),
}

_HOT: Final[dict[str, Scenario]] = {
    "a hot key": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, _inc()),
        one("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "n": callers},
        hot,
    ),
    "a hot filter": Scenario(
        lambda things, n: things.update_one({"name": "counter"}, _inc()),
        one("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "n": callers},
        hot,
    ),
    "a number for each": Scenario(
        lambda things, n: things.find_one_and_update({"_id": "hot"}, _inc(), return_document=AFTER),
        numbers,
        _numbers,
        hot,
    ),
    "by a pipeline on a hot key": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, [{"$set": {"n": {"$add": ["$n", 1]}}}]),
        one("modified"),
        lambda callers: {"modified": callers, "n": callers},
        hot,
    ),
    "$push": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, {"$push": {"by": n}, **_inc()}),
        one("modified", field="by"),
        lambda callers: {"modified": callers, "by": list(range(callers))},
        hot,
    ),
    "$addToSet": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, {"$addToSet": {"by": n // 2}}),
        one("matched", "modified", field="by"),
        lambda callers: {
            "matched": callers,
            "modified": (callers + 1) // 2,
            "by": list(range((callers + 1) // 2)),
        },
        hot,
    ),
    "$pull": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, {"$pull": {"rows": n}}),
        one("modified", field="rows"),
        lambda callers: {"modified": callers, "rows": list(range(callers, callers + SPARE))},
        hot,
    ),
    "$pop": Scenario(
        lambda things, n: things.find_one_and_update({"_id": "hot"}, {"$pop": {"rows": -1}}),
        lambda answers, documents: {
            "given": sorted(-1 if each is None else each["rows"][0] for each in answers),
            "rows": documents[0]["rows"],
        },
        lambda callers: {"given": list(range(callers)), "rows": list(range(callers, callers + SPARE))},
        hot,
    ),
    "$max": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, {"$max": {"n": n + 1}}),
        one("matched"),
        lambda callers: {"matched": callers, "n": callers},
        hot,
    ),
    "the last ones of a stock": Scenario(
        lambda things, n: things.update_one({"_id": "hot", "left": {"$gt": 0}}, {"$inc": {"left": -1}}),
        one("matched", "modified", field="left"),
        lambda callers: {"matched": half(callers), "modified": half(callers), "left": 0},
        hot,
    ),
    "replace_one of what was read": Scenario(
        lambda things, n: things.replace_one({"_id": "hot", "n": 0}, {"n": 1, "by": n}),
        one("matched", "modified"),
        lambda callers: {"matched": 1, "modified": 1, "n": 1},
        hot,
    ),
    "delete_one of a key": Scenario(
        lambda things, n: things.delete_one({"_id": "hot"}),
        told_and_done("deleted"),
        lambda callers: {"deleted": 1, "done": 0, "stand": 0},
        hot,
    ),
}

_INSERTS: Final[dict[str, Scenario]] = {
    "insert_one of the same key": Scenario(
        lambda things, n: things.insert_one({"_id": "same", "n": 1}),
        one("inserted", "refused"),
        lambda callers: {"inserted": 1, "refused": callers - 1, "n": 1},
    ),
    "insert_many of the same keys": Scenario(
        lambda things, n: things.insert_many([{"_id": k, "n": 1} for k in range(FEW)]),
        sums("inserted", "refused"),
        lambda callers: {"inserted": FEW, "refused": callers - 1, "n": [1] * FEW},
    ),
    "insert_many of the same keys, in any order": Scenario(
        lambda things, n: things.insert_many([{"_id": k, "n": 1} for k in range(FEW)], ordered=False),
        sums("inserted", "refused"),
        lambda callers: {"inserted": FEW, "refused": FEW * (callers - 1), "n": [1] * FEW},
    ),
}

_UPSERTS: Final[dict[str, Scenario]] = {
    "update_one, upsert by key": Scenario(
        lambda things, n: things.update_one({"_id": "hot"}, _inc(), upsert=True),
        one("matched", "upserted"),
        lambda callers: {"matched": callers - 1, "upserted": 1, "n": callers},
    ),
    "find_one_and_update, upsert by key": Scenario(
        lambda things, n: things.find_one_and_update({"_id": "hot"}, _inc(), upsert=True, return_document=AFTER),
        numbers,
        _numbers,
    ),
    "replace_one, upsert by key": Scenario(
        lambda things, n: things.replace_one({"_id": "hot"}, {"n": 1, "by": n}, upsert=True),
        one("matched", "upserted"),
        lambda callers: {"matched": callers - 1, "upserted": 1, "n": 1},
    ),
    "find_one_and_replace, upsert by key": Scenario(
        lambda things, n: things.find_one_and_replace({"_id": "hot"}, {"n": 1, "by": n}, upsert=True),
        lambda answers, documents: {"none": sum(each is None for each in answers), "stand": len(documents)},
        lambda callers: {"none": 1, "stand": 1},
    ),
    "update_many, upsert by key": Scenario(
        lambda things, n: things.update_many({"_id": "hot"}, _inc(), upsert=True),
        answered,
        lambda callers: {"answered": callers, "upserted": 1, "lost": 0},
    ),
    "update_one, upsert by a filter": Scenario(
        lambda things, n: things.update_one({"name": "counter"}, _inc(), upsert=True),
        ids_told,
        lambda callers: {"n": callers, "told": True},
    ),
    "update_one, upsert by a filter where one is": Scenario(
        lambda things, n: things.update_one({"name": "counter"}, _inc(), upsert=True),
        one("matched", "upserted"),
        lambda callers: {"matched": callers, "upserted": 0, "n": callers},
        hot,
    ),
    "find_one_and_update, upsert by a filter where one is": Scenario(
        lambda things, n: things.find_one_and_update(
            {"name": "counter"}, _inc(), upsert=True, return_document=ReturnDocument.AFTER
        ),
        numbers,
        _numbers,
        hot,
    ),
}

_BULKS: Final[dict[str, Scenario]] = {
    "bulk_write of UpdateOne": Scenario(
        lambda things, n: things.bulk_write([UpdateOne(NEW, _take(n))]),
        told_and_done("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "done": callers, "stand": callers + SPARE},
        jobs,
    ),
    "bulk_write of ReplaceOne": Scenario(
        lambda things, n: things.bulk_write([ReplaceOne(NEW, {"st": "taken"})]),
        told_and_done("matched", "modified"),
        lambda callers: {"matched": callers, "modified": callers, "done": callers, "stand": callers + SPARE},
        jobs,
    ),
    "bulk_write of DeleteOne": Scenario(
        lambda things, n: things.bulk_write([DeleteOne(NEW)]),
        told_and_done("deleted", by="new"),
        lambda callers: {"deleted": callers, "done": SPARE, "stand": SPARE},
        jobs,
    ),
    "bulk_write of UpdateMany": Scenario(
        lambda things, n: things.bulk_write([UpdateMany(NEW, _inc())]),
        sums("modified"),
        lambda callers: {"modified": FEW * callers, "n": [0, *[callers] * FEW]},
        few,
    ),
    "bulk_write of DeleteMany": Scenario(
        lambda things, n: things.bulk_write([DeleteMany(NEW)]),
        told_and_done("deleted", by="old"),
        lambda callers: {"deleted": FEW, "done": 1, "stand": 1},
        few,
    ),
    "bulk_write of InsertOne": Scenario(
        lambda things, n: things.bulk_write([InsertOne({"_id": k, "n": 1}) for k in range(FEW)], ordered=False),
        sums("inserted", "refused"),
        lambda callers: {"inserted": FEW, "refused": FEW * (callers - 1), "n": [1] * FEW},
    ),
    "bulk_write of upserts": Scenario(
        lambda things, n: things.bulk_write([UpdateOne({"_id": "hot"}, _inc(), upsert=True)]),
        one("matched", "upserted"),
        lambda callers: {"matched": callers - 1, "upserted": 1, "n": callers},
    ),
    "bulk_write of everything, in order": Scenario(
        lambda things, n: things.bulk_write(
            [
                InsertOne({"_id": f"own-{n}"}),
                UpdateOne({"_id": "hot"}, _inc()),
                ReplaceOne({"_id": f"own-{n}"}, {"n": n}),
                DeleteOne({"_id": f"own-{n}"}),
            ]
        ),
        one("inserted", "modified", "deleted"),
        lambda callers: {"inserted": callers, "modified": 2 * callers, "deleted": callers, "n": callers},
        hot,
    ),
}

SCENARIOS: Final[dict[str, Scenario]] = {**_CHOICES, **_MANY, **_HOT, **_INSERTS, **_UPSERTS, **_BULKS}
"""Every verb that can race, each way in which it can."""
