"""Every operator of MongoDB's reference, 6.0 to 8.0, is supported, or refused by its name, through the collection
itself: before any store is asked."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import pytest
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.schema import CollectionSpec
from shadow.mongoql.values.support import Family, supported
from shadow.surface.calls.options import ClientDefaults, kept_by_url
from shadow.surface.collections.collection import Collection
from shadow.traces.spans import NO_TRACES
from tests.support.cases import each_of
from tests.unit.test_support import OPERANDS, TOP_LEVEL


def names(text: str) -> list[str]:
    return [f"${name}" for name in text.split()]


# The headings of the manual's reference, version 6.0: "Query and Projection Operators", "Update Operators",
# "Aggregation Pipeline Stages", "Aggregation Pipeline Operators" (its accumulators in $group).
# `NEWER`: what 7.0 and 8.0 add to them.
QUERY: Final = names(
    """eq gt gte in lt lte ne nin and not nor or exists type expr jsonSchema mod regex text where geoIntersects
    geoWithin near nearSphere box center centerSphere geometry maxDistance minDistance polygon all elemMatch
    size bitsAllClear bitsAllSet bitsAnyClear bitsAnySet comment rand natural options meta"""
)
PROJECTION: Final = names("elemMatch meta slice")
UPDATE: Final = names("currentDate inc min max mul rename set setOnInsert unset addToSet pop pull push pullAll bit")
MODIFIER: Final = names("each position slice sort")
STAGE: Final = names(
    """addFields bucket bucketAuto changeStream collStats count currentOp densify documents facet fill geoNear
    graphLookup group indexStats limit listLocalSessions listSessions lookup match merge out planCacheStats
    project redact replaceRoot replaceWith sample search searchMeta set setWindowFields shardedDataDistribution
    skip sort sortByCount unionWith unset unwind"""
)
ACCUMULATOR: Final = names(
    """accumulator addToSet avg bottom bottomN count first firstN last lastN max maxN mergeObjects min minN push
    stdDevPop stdDevSamp sum top topN"""
)
EXPRESSION: Final = names(
    """abs accumulator acos acosh add allElementsTrue and anyElementTrue arrayElemAt arrayToObject asin asinh atan
    atan2 atanh avg binarySize bsonSize ceil cmp concat concatArrays cond const convert cos cosh dateAdd dateDiff
    dateFromParts dateFromString dateSubtract dateToParts dateToString dateTrunc dayOfMonth dayOfWeek dayOfYear
    degreesToRadians divide eq exp filter first firstN floor function getField gt gte hour ifNull in
    indexOfArray indexOfBytes indexOfCP isArray isNumber isoDayOfWeek isoWeek isoWeekYear last lastN let literal
    ln log log10 lt lte ltrim map max maxN mergeObjects meta millisecond min minN minute mod month multiply ne
    not objectToArray or pow radiansToDegrees rand range reduce regexFind regexFindAll regexMatch replaceAll
    replaceOne reverseArray round rtrim sampleRate second setDifference setEquals setField setIntersection
    setIsSubset setUnion sin sinh size slice sortArray split sqrt stdDevPop stdDevSamp strLenBytes strLenCP
    strcasecmp substr substrBytes substrCP subtract sum switch tan tanh toBool toDate toDecimal toDouble toInt
    toLong toLower toObjectId toString toUpper trim trunc tsIncrement tsSecond type unsetField week year zip"""
)
NEWER: Final = {
    Family.STAGE: names(
        """changeStreamSplitLargeEvent listClusterCatalog listSampledQueries listSearchIndexes queryStats rankFusion
        vectorSearch"""
    ),
    Family.ACCUMULATOR: names("median percentile"),
    Family.EXPRESSION: names("bitAnd bitNot bitOr bitXor median percentile toHashedIndexKey toUUID"),
}


class Asked(Exception):
    """The arguments were accepted: the router was asked for."""


class Nobody:
    """A handle without stores."""

    database_name = "nowhere"

    def current(self) -> NoReturn:
        raise Asked

    traces = NO_TRACES

    def kept(self) -> ClientDefaults:
        return kept_by_url("mongodb://127.0.0.1/")

    def get_collection(self, name: str) -> NoReturn:
        raise AssertionError(name)


@pytest.fixture
def users() -> Collection:
    return Collection(CollectionSpec("users", passes_on=False), Nobody())  # type: ignore[arg-type]


def _cases() -> list[Any]:
    listed = {
        Family.QUERY: QUERY,
        Family.PROJECTION: PROJECTION,
        Family.UPDATE: UPDATE,
        Family.MODIFIER: MODIFIER,
        Family.STAGE: STAGE,
        Family.ACCUMULATOR: ACCUMULATOR,
        Family.EXPRESSION: EXPRESSION,
    }
    return [
        pytest.param(family, name, id=f"{family.value}-{name}".replace(" ", "_"))
        for family, found in listed.items()
        for name in (*found, *NEWER.get(family, ()))
    ]


async def _ask(users: Collection, family: Family, name: str) -> Any:
    operand = OPERANDS[family].get(name, 1)
    match family:
        case Family.QUERY if name in TOP_LEVEL:
            return await users.find_one({name: operand})
        case Family.QUERY if name == "$options":
            return await users.find_one({"a": {"$regex": "a", "$options": operand}})
        case Family.QUERY:
            return await users.find_one({"a": {name: operand}})
        case Family.PROJECTION:
            return await users.find_one({}, {"a": {name: operand}})
        case Family.UPDATE:
            return await users.update_one({"_id": 1}, {name: {"a": operand}})
        case Family.MODIFIER:
            return await users.update_one({"_id": 1}, {"$push": {"a": {"$each": [1], name: operand}}})
        case Family.STAGE:
            return await users.aggregate([{name: operand}]).to_list(None)
        case Family.ACCUMULATOR:
            return await users.aggregate([{"$group": {"_id": 1, "a": {name: operand}}}]).to_list(None)
        case Family.EXPRESSION:
            return await users.aggregate([{"$project": {"b": {name: operand}}}]).to_list(None)


@each_of(("family", "name"), _cases())
async def test_an_operator_is_supported_or_refused_by_its_name(users: Collection, family: Family, name: str) -> None:
    if supported(family, name):
        with pytest.raises(Asked):
            await _ask(users, family, name)
        return
    with pytest.raises(UnsupportedOperation) as refused:
        await _ask(users, family, name)
    assert refused.value.name == name
    assert refused.value.code == 115


async def test_the_positional_projection_is_supported(users: Collection) -> None:
    with pytest.raises(Asked):
        await users.find_one({"a": 1}, {"a.$": 1})
    with pytest.raises(Asked):
        await users.find_one_and_update({"a": 1}, {"$set": {"b": 2}}, {"a.$": 1})


async def test_a_positional_projection_that_cannot_be_is_refused_before_anything_is_written(users: Collection) -> None:
    for filter, projection, after, code in (
        ({"a": 1}, {"a.$": 1}, True, 2),
        ({"a": 1, "$expr": True}, {"a.$": 1}, False, 224),
        ({"a": 1}, {"$": 1}, False, 16410),
    ):
        with pytest.raises(OperationFailure) as refused:
            await users.find_one_and_update(filter, {"$set": {"b": 2}}, projection, return_document=after)
        assert refused.value.code == code


@pytest.mark.parametrize("path", ["a.$", "a.$[]", "a.$[f]"])
async def test_the_positional_updates_are_supported(users: Collection, path: str) -> None:
    filters = [{"f": 1}] if "f" in path else None
    with pytest.raises(Asked):
        await users.update_one({"_id": 1, "a": 1}, {"$set": {path: 2}}, array_filters=filters)


@pytest.mark.parametrize("stage", ["$set", "$addFields", "$unset", "$project", "$replaceRoot", "$replaceWith"])
async def test_the_stages_of_an_update_by_pipeline_are_supported(users: Collection, stage: str) -> None:
    with pytest.raises(Asked):
        await users.update_one({"_id": 1}, [{stage: OPERANDS[Family.STAGE][stage]}])


async def test_what_is_in_no_reference_has_the_servers_error(users: Collection) -> None:
    with pytest.raises(OperationFailure) as unknown:
        await users.find_one({"a": {"$foo": 1}})
    assert unknown.value.code == 2
    assert not isinstance(unknown.value, UnsupportedOperation)
