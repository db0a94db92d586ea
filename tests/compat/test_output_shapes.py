"""Whatever `$out` and `$merge` are given, and wherever they are in a pipeline, DynamoDB as primary answers with the
server's code, and writes as little."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from bson import Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from tests.compat.amount import CASES, SEED
from tests.support.shims import settings_for
from tests.support.topologies import drop, root_url

pytestmark = pytest.mark.timeout(3600)

ODD: Final = (
    None, True, 0, 1, 1.5, Int64(2), "", "x", "$x", "a.b", ".", "a.", "$$new", [], {}, [1], ["x"], [[]], [{}], [None],
    {"x": 1}, {"$x": 1}, "replace", "fail", "insert",
)  # fmt: skip
INTO: Final = (
    "target", {"coll": "target"}, {"db": None, "coll": "target"}, {"db": "", "coll": "target"}, {"coll": 1},
    {"coll": ""}, {"coll": "system.views"}, {"coll": None}, {"db": 1, "coll": "target"}, {"coll": "target", "x": 1},
    {"db": "some"}, "system.x", "$cmd", "a$b", "a..b", ".a", "tar\0get", {"coll": "a\0b"}, {"db": "a.b", "coll": "c"},
    {"db": "a b", "coll": "c"}, {"db": "a$b", "coll": "c"},
)  # fmt: skip
ON: Final = (
    "_id", ["_id"], "u", ["u"], ["u", "u"], ["u", 1], [""], "$u", "u.$x", "u.", ".u", ["_id", "u"], "nothing",
)  # fmt: skip
MATCHED: Final = (
    "replace", "merge", "keepExisting", "fail", "Replace", "pipeline", "insert", "discard",
    [], [{"$set": {"v": 1}}], [{"$set": {}}], [{"$match": {}}], [{"$nothing": 1}], [{}], [1],
    [{"$set": {"v": "$$new.v"}}],
    [{"$set": {"v": "$$none"}}], [{"$set": {"v": "$$y"}}], [{"$addFields": {"v": {"$nothing": 1}}}], [{"$set": 1}],
    [{"$project": {"v": 1}}], [{"$replaceWith": "$$new"}], [{"$unset": "v"}], [{"$group": {"_id": 1}}],
    [{"$set": {"v": 1}, "$unset": "v"}],
)  # fmt: skip
UNMATCHED: Final = ("insert", "discard", "fail", "Insert", "merge", "keepExisting")
LET: Final = (
    {}, {"y": 1}, {"y": "$v"}, {"new": "$$ROOT"}, {"new": 1}, {"Y": 1}, {"$y": 1}, {"y": "$$z"}, {"y": {"$nothing": 1}},
    {"y.z": 1}, {"": 1}, {"ROOT": 1}, {"y": "$$new"},
)  # fmt: skip


NOT_ALLOWED: Final = 13
"""The code of a server with users, where these may not write: it comes before those of other faults."""


class Sides:
    def __init__(self, bare: Any, shadow: Shadow) -> None:
        self.databases = (bare, shadow)

    async def empty(self) -> None:
        for database in self.databases:
            for name in ("source", "target"):
                await database[name].delete_many({})
                await database[name].insert_many([{"_id": 1, "u": 1, "v": 1}])
            await database["source"].insert_one({"_id": 2, "u": 2, "v": 2})

    async def answers(self, pipeline: list[dict[str, Any]]) -> list[Any]:
        """Of each side the code and what is in the target; of a refusal by name "refused", with what is named."""
        made = []
        for database in self.databases:
            try:
                await database["source"].aggregate(pipeline).to_list(None)
                code: Any = None
            except UnsupportedOperation as error:
                code = f"refused: {error}"
            except OperationFailure as error:
                code = error.code
            except Exception as error:
                code = repr(error)
            made.append((code, await database["target"].find({}, sort=[("_id", 1)]).to_list(None)))
        return made


@pytest.fixture
async def sides(mongo_url: str, dynamodb_local_url: str, tmp_path: Path) -> AsyncIterator[Sides]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, name, ["source", "target"], primary=StoreName.DYNAMO
    )
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(root_url(mongo_url))
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        for database in (client[f"{name}bare"], shadow):
            await database["target"].create_index("u", unique=True)
        yield Sides(client[f"{name}bare"], shadow)
    client.close()
    drop(mongo_url, name, f"{name}bare", "some")


def out(chance: random.Random) -> Any:
    named: list[Any] = [*INTO, *ODD]
    kind = chance.random()
    if kind < 0.6:
        return chance.choice([each for each in named if each not in ("x", "a.b", "replace", "fail", "insert")])
    return {key: chance.choice(ODD[:10]) for key in chance.sample(["db", "coll", "timeseries", "x"], 2)}


def merge(chance: random.Random) -> Any:
    if chance.random() < 0.1:
        return chance.choice([each for each in ODD if each not in ("x", "a.b", "replace", "fail", "insert")])
    made: dict[str, Any] = {"into": "target"}
    choices = {"into": INTO, "on": ON, "whenMatched": MATCHED, "whenNotMatched": UNMATCHED, "let": LET}
    for key in chance.sample(list(choices), chance.choice([1, 1, 2, 2, 3])):
        odd = chance.random() < 0.3 and key != "into"
        made[key] = chance.choice(ODD if odd else choices[key])
    if chance.random() < 0.05:
        made["x"] = 1
    if chance.random() < 0.03:
        del made["into"]
    items = list(made.items())
    chance.shuffle(items)
    return dict(items)


@pytest.mark.takes_turns
async def test_any_shape_has_the_servers_code(sides: Sides) -> None:
    chance = random.Random(f"{SEED} outputs")
    wrong = []
    for _ in range(max(40, CASES // 15)):
        name = chance.choice(["$merge", "$merge", "$merge", "$out"])
        stage = {name: merge(chance) if name == "$merge" else out(chance)}
        await sides.empty()
        theirs, ours = await sides.answers([{"$sort": {"_id": 1}}, stage])
        if theirs != ours and NOT_ALLOWED not in (theirs[0], ours[0]):
            wrong.append((stage, theirs, ours))
    assert not wrong, "\n".join(map(str, [f"seed {SEED}", *wrong]))


@pytest.mark.takes_turns
async def test_wherever_else_than_at_the_end_they_are_they_have_the_servers_code(sides: Sides) -> None:
    wrong = []
    for stage in (
        {"$out": "target"},
        {"$merge": "target"},
        {"$merge": {"into": "target", "whenMatched": "x"}},
        {"$out": 1},
    ):
        nested = [{"$match": {}}, stage]
        for pipeline in (
            [stage, {"$match": {}}],
            [stage, stage],
            [{"$facet": {"a": nested}}],
            [{"$lookup": {"from": "target", "pipeline": nested, "as": "a"}}],
            [{"$unionWith": {"coll": "target", "pipeline": nested}}],
            [{"$merge": {"into": "target", "whenMatched": [stage]}}],
            [{"$nothing": 1}, stage],
            [stage, {"$nothing": 1}],
            [{**stage, "$match": {}}],
        ):
            await sides.empty()
            theirs, ours = await sides.answers(pipeline)
            if theirs != ours:
                wrong.append((pipeline, theirs, ours))
    assert not wrong, "\n".join(map(str, wrong))
