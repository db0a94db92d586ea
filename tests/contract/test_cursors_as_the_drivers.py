"""What a cursor accepts, refuses and says of itself is the bare driver's, at the driver's moment, in each phase."""

from __future__ import annotations

import copy
import inspect
import uuid
from collections.abc import Callable
from typing import Any, Final

import bson
import pytest

from shadow.errors import UnsupportedOperation
from tests.contract.test_answers_about_the_database import answered, awaited, bare, driver, ours

__all__ = ["bare", "driver", "ours"]

pytestmark = pytest.mark.plain_options(reason="cursors do not depend on them")

MADE: Final[dict[str, Callable[[Any], Any]]] = {
    "a limit that is a flag": lambda c: c.find().sort("_id").limit(True),
    "no direction": lambda c: c.find().sort("n", "b"),
    "a collation that is none": lambda c: c.find().collation(5),
    "a text as collation": lambda c: c.find().collation("en"),
    "a UUID that is not represented": lambda c: c.find({"u": uuid.UUID(int=5)}),
    "text that is no text": lambda c: c.find({"u": "\ud800"}),
    "a negative batch": lambda c: c.find(batch_size=-1),
    "a tuple of stages": lambda c: c.aggregate(({"$match": {"_id": 1}},)),
    "a stage that is none": lambda c: c.aggregate([{"$match": {}}, 5]),
    "a first stage that is none": lambda c: c.aggregate([5, {"$match": {}}]),
}
RAW: Final[dict[str, Callable[[Any], Any]]] = {
    "raw batches": lambda c: c.find_raw_batches({}, batch_size=2).sort("_id"),
    "raw batches of a pipeline": lambda c: c.aggregate_raw_batches([{"$sort": {"_id": 1}}]),
    "raw batches of a key": lambda c: c.find_raw_batches(5),
    "raw batches of a list": lambda c: c.find_raw_batches([]),
    "raw batches of a text": lambda c: c.find_raw_batches(""),
    "raw batches of a number": lambda c: c.find_raw_batches(0),
    "raw batches of nothing": lambda c: c.find_raw_batches(None),
}


async def moment(make: Callable[[], Any], *, motor: bool) -> tuple[str, Any]:
    """When a call ends, and how: Motor's cursors of commands ask for nothing before they are read."""
    when = "call"
    try:
        made, when = make(), "read"
        if not motor and inspect.isawaitable(made):
            made = await made
        found = await made.to_list(None)
    except Exception as error:
        kind = next(each for each in type(error).__mro__ if not each.__module__.startswith("shadow."))
        return (when, (kind, getattr(error, "code", None)))
    if found and isinstance(found[0], bytes):
        found = [each for batch in found for each in bson.decode_all(batch)]
    return (when, found)


async def filled(database: Any) -> Any:
    await database.things.delete_many({})
    await database.things.insert_many([{"_id": n, "n": n % 2} for n in range(5)])
    return database.things


async def test_what_is_refused_is_refused_at_the_drivers_moment(bare: Any, ours: Any, driver: str) -> None:
    wrong = []
    theirs, mine = await filled(bare), await filled(ours)
    flipped = isinstance(await answered(lambda: mine.find_raw_batches({})), UnsupportedOperation)
    for name, make in {**MADE, **({} if flipped else RAW)}.items():
        answers = [await moment(lambda make=make, c=c: make(c), motor=driver == "motor") for c in (theirs, mine)]
        if answers[0] != answers[1]:
            wrong.append((name, *answers))
    assert wrong == []


async def test_cursors_can_be_copied_and_know_their_session(bare: Any, ours: Any, driver: str) -> None:
    for database in (bare, ours):
        things = await filled(database)
        cursor = things.find({"n": 1}).sort("_id", -1).limit(2)
        assert await cursor.to_list(1) == [{"_id": 3, "n": 1}]
        for twin in (copy.copy(cursor), copy.deepcopy(cursor), cursor.clone()):
            assert await twin.to_list(None) == [{"_id": 3, "n": 1}, {"_id": 1, "n": 1}]
        session = await awaited(database.client.start_session())
        given = things.find({}, session=session)
        under = session.delegate if driver == "motor" else session
        assert (given.session is under, things.find({}).session) == (True, None), database
        assert len(await given.to_list(None)) == 5
        await awaited(session.end_session())


async def test_no_cursor_takes_an_index(bare: Any, ours: Any) -> None:
    theirs, mine = await filled(bare), await filled(ours)
    makes = [lambda c: c.find()[1]]
    if not isinstance(await answered(lambda: mine.find_raw_batches({})), UnsupportedOperation):
        makes.append(lambda c: c.find_raw_batches()[1])
    for make in makes:
        found = [await answered(lambda make=make, c=c: make(c)) for c in (theirs, mine)]
        assert isinstance(found[1], type(found[0])), found
