"""The table of every argument of every verb: complete by the driver's signatures, and true by calls."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo.asynchronous.collection import AsyncCollection

from shadow.errors import UnsupportedOperation
from shadow.surface.calls.argument_table import ARGUMENTS, VERBS, Fate, by_name, fate_of, names_of
from tests.support.pair import Pair

UPDATE: Final = {"$set": {"x": 1}}
CALLS: Final[dict[str, tuple[Any, ...]]] = {
    "aggregate": ([],),
    "bulk_write": ([pymongo.DeleteOne({"_id": "none"})],),
    "count_documents": ({},),
    "delete_many": ({"_id": "none"},),
    "delete_one": ({"_id": "none"},),
    "distinct": ("_id",),
    "drop": (),
    "estimated_document_count": (),
    "find": ({},),
    "find_one": ({},),
    "find_one_and_delete": ({"_id": "none"},),
    "find_one_and_replace": ({"_id": 1}, {"x": 1}),
    "find_one_and_update": ({"_id": 1}, UPDATE),
    "insert_many": ([{}],),
    "insert_one": ({},),
    "options": (),
    "replace_one": ({"_id": 1}, {"x": 1}),
    "update_many": ({"_id": 1}, UPDATE),
    "update_one": ({"_id": 1}, UPDATE),
}
"""The arguments without which a verb is nothing. Those of indexes are tried by the tests of indexes."""
VALUES: Final[dict[str, Any]] = {
    "upsert": True, "ordered": False, "bypass_document_validation": True, "session": object(), "comment": "c",
    "collation": {"locale": "sv"}, "array_filters": [], "hint": "_id_", "let": {"a": 1}, "sort": {"_id": 1},
    "projection": ["_id"], "return_document": True, "skip": 1, "limit": 1, "no_cursor_timeout": True, "cursor_type": 2,
    "allow_partial_results": True, "oplog_replay": True, "batch_size": 5, "max_scan": 1, "max_time_ms": 100,
    "max": [("_id", 1)], "min": [("_id", 1)], "return_key": True, "show_record_id": True, "snapshot": True,
    "allow_disk_use": True, "maxTimeMS": 100, "allowDiskUse": True, "batchSize": 5, "bypassDocumentValidation": True,
    "cursor": {}, "maxAwaitTimeMS": 5, "readConcern": {"level": "local"}, "filter": {}, "encrypted_fields": {},
}  # fmt: skip
_ELSEWHERE: Final = {"session"}
"""Arguments with tests of their own."""


def test_the_table_has_every_argument_of_the_driver() -> None:
    assert set().union(*map(names_of, VERBS)) <= ARGUMENTS.keys()
    assert all(any(name in names_of(verb) for verb in VERBS) for name in ARGUMENTS)
    public = {name for name in dir(AsyncCollection) if not name.startswith("_")}
    assert set(VERBS) <= public


def test_motors_verbs_have_the_same_arguments() -> None:
    from pymongo.collection import Collection  # Motor's own collections call this one

    for verb in VERBS:
        if verb not in ("find", "find_one"):
            assert inspect.signature(getattr(Collection, verb)).parameters.keys() == (
                inspect.signature(getattr(AsyncCollection, verb)).parameters.keys()
            ), verb


@pytest.mark.parametrize("verb", CALLS)
async def test_each_argument_has_the_fate_of_the_table(verb: str, tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        given = by_name(verb, CALLS[verb], {})
        for name in sorted(names_of(verb) - given.keys() - _ELSEWHERE):
            fate = fate_of(verb, name)

            async def call(name: str = name) -> None:
                made = getattr(pair.things, verb)(**copy.deepcopy(given), **{name: VALUES[name]})
                made = await made if inspect.isawaitable(made) else made
                if hasattr(made, "to_list"):
                    await made.to_list()

            if fate in (Fate.HONOURED, Fate.ON_MONGO, Fate.NO_EFFECT):
                await call()
            else:
                with pytest.raises(UnsupportedOperation, match=name):
                    await call()


@pytest.mark.parametrize("verb", CALLS)
async def test_an_argument_by_position_is_the_drivers(verb: str, tmp_path: Path) -> None:
    """As many as the driver takes, each with its default."""
    of = "find" if verb == "find_one" else verb
    signature = inspect.signature(
        pymongo.asynchronous.cursor.AsyncCursor.__init__ if of == "find" else getattr(AsyncCollection, of)
    )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    known = [each for each in signature.parameters.values() if each.kind is kind and each.name != "self"]
    defaults = [each.default for each in known if each.default is not each.empty and each.name != "filter"]
    async with Pair(tmp_path) as pair:
        call = getattr(pair.things, verb)
        arguments = [*copy.deepcopy(CALLS[verb]), *([{}] if verb == "distinct" else []), *defaults]
        made = call(*arguments)
        made = await made if inspect.isawaitable(made) else made
        if hasattr(made, "to_list"):
            await made.to_list()
        with pytest.raises(TypeError):
            call(*arguments, 1, 2, 3)


def test_a_name_that_the_driver_does_not_have_is_its_typeerror() -> None:
    with pytest.raises(TypeError, match="wrong"):
        by_name("insert_one", ({},), {"wrong": 1})
    assert by_name("aggregate", ([], None), {"allowDiskUse": True}) == {
        "pipeline": [], "session": None, "allowDiskUse": True
    }  # fmt: skip
