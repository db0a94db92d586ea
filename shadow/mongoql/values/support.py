"""The table of every operator in MongoDB's reference, 6.0 to 8.0: supported exactly, or refused.

The compilers call `require`. The manual's table is generated from `TABLE`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shadow.errors import UnsupportedOperation
from shadow.mongoql.values.failures import unknown_operator, write_failure

__all__ = ["LITERALS", "TABLE", "Family", "Support", "SupportEntry", "entries", "require", "supported"]


class Support(enum.StrEnum):
    """LAST: at the end of a pipeline of a configured collection."""

    SUPPORTED = "supported"
    LAST = "last"
    REFUSED = "refused"


class Family(enum.StrEnum):
    """The kind of place where an operator is used."""

    QUERY = "query"
    UPDATE = "update"
    MODIFIER = "update modifier"
    PROJECTION = "projection"
    STAGE = "stage"
    ACCUMULATOR = "accumulator"
    EXPRESSION = "expression"
    WINDOW = "window function"


@dataclass(frozen=True, slots=True)
class SupportEntry:
    name: str
    family: Family
    status: Support
    reason: str = ""


def _names(text: str) -> list[str]:
    return ["$" + name for name in text.split()]


LITERALS: Final = frozenset({"$literal", "$const"})
"""Two names of one operator, whose operand is no expression."""

_SERVER = "it runs code or keeps state inside the server"
_GEO = "it needs a geospatial index"
_TEXT = "it needs a text index"
_EXPRESSION = "it is an expression, and needs `$expr` in a filter"
_CONDITION = "it is a condition of a filter, and no expression"
_UNORDERED = "DynamoDB keeps no order of insertion or of storage"
_ADMIN = "it reports on, or writes to, the deployment"
_NOT_EXACT = "an answer equal to the server's in every case is not assured"
_NEWER = "MongoDB has it from 6.3 or a later version on; what this library computes is held to 6.0"

_SUPPORTED: Final[dict[Family, str]] = {
    Family.QUERY: """eq ne gt gte lt lte in nin and or nor not exists type regex options size all elemMatch mod expr
        jsonSchema sampleRate comment alwaysTrue alwaysFalse bitsAllSet bitsAnySet bitsAllClear bitsAnyClear""",
    Family.UPDATE: """set unset inc mul min max rename setOnInsert push addToSet pull pullAll pop bit currentDate""",
    Family.MODIFIER: "each slice sort position",
    Family.PROJECTION: "slice elemMatch",
    Family.STAGE: """match sort limit skip project addFields set unset unwind group count sortByCount facet lookup
        replaceRoot replaceWith unionWith bucket bucketAuto sample redact graphLookup
        setWindowFields densify fill""",
    Family.ACCUMULATOR: """sum avg min max first last push addToSet count mergeObjects firstN lastN maxN minN
        topN bottomN top bottom stdDevPop stdDevSamp""",
    Family.EXPRESSION: """literal const eq ne gt gte lt lte cmp and or not add subtract multiply divide mod abs ceil
        floor trunc cond ifNull switch concat toUpper toLower substrCP strLenCP strLenBytes size arrayElemAt in first
        last slice filter map reduce concatArrays reverseArray isArray type isNumber mergeObjects
        objectToArray arrayToObject setUnion setIntersection setDifference setEquals setIsSubset
        allElementsTrue anyElementTrue indexOfArray range min max sum avg let year month dayOfMonth hour
        minute second millisecond dayOfWeek dayOfYear toBool getField split
        week isoWeek isoWeekYear isoDayOfWeek dateAdd dateDiff dateFromParts dateFromString dateSubtract dateToParts
        dateToString dateTrunc convert toString toInt toLong toDouble toDecimal toObjectId toDate
        acos acosh asin asinh atan atan2 atanh cos cosh sin sinh tan tanh degreesToRadians radiansToDegrees
        exp ln log log10 pow sqrt round regexFind regexFindAll regexMatch replaceOne replaceAll trim ltrim rtrim
        strcasecmp substr substrBytes indexOfBytes indexOfCP zip sortArray setField unsetField binarySize bsonSize
        firstN lastN maxN minN stdDevPop stdDevSamp tsIncrement tsSecond rand""",
    Family.WINDOW: """sum avg min max first last push addToSet count firstN lastN maxN minN topN bottomN top bottom
        stdDevPop stdDevSamp rank denseRank documentNumber shift derivative integral expMovingAvg locf linearFill
        covariancePop covarianceSamp""",
}

_LAST: Final = "merge out"
_AT_THE_END: Final = "it is for the end of a pipeline of a configured collection"

_REFUSED: Final[dict[Family, dict[str, str]]] = {
    Family.QUERY: {
        _SERVER: "where",
        _GEO: """geoIntersects geoWithin near nearSphere box center centerSphere geometry maxDistance minDistance
            polygon""",
        _TEXT: "text meta",
        _EXPRESSION: "rand",
        _UNORDERED: "natural",
    },
    Family.UPDATE: {},
    Family.MODIFIER: {},
    Family.PROJECTION: {_TEXT: "meta"},
    Family.STAGE: {
        _ADMIN: """changeStream collStats currentOp indexStats listLocalSessions listSessions planCacheStats
            shardedDataDistribution changeStreamSplitLargeEvent listClusterCatalog listSampledQueries queryStats""",
        _GEO: "geoNear",
        _TEXT: "search searchMeta vectorSearch rankFusion listSearchIndexes",
        _NOT_EXACT: "documents",
    },
    Family.ACCUMULATOR: {
        _SERVER: "accumulator",
        _NEWER: "median percentile",
    },
    Family.EXPRESSION: {
        _SERVER: "function accumulator",
        _CONDITION: "sampleRate",
        _TEXT: "meta",
        _NEWER: "bitAnd bitNot bitOr bitXor median percentile toHashedIndexKey toUUID",
    },
    Family.WINDOW: {
        _NEWER: "median percentile minMaxScaler",
    },
}


def _table() -> dict[Family, dict[str, SupportEntry]]:
    table: dict[Family, dict[str, SupportEntry]] = {family: {} for family in Family}
    for family, text in _SUPPORTED.items():
        for name in _names(text):
            table[family][name] = SupportEntry(name, family, Support.SUPPORTED)
    for family, reasons in _REFUSED.items():
        for reason, text in reasons.items():
            for name in _names(text):
                table[family][name] = SupportEntry(name, family, Support.REFUSED, reason)
    for name in _names(_LAST):
        table[Family.STAGE][name] = SupportEntry(name, Family.STAGE, Support.LAST, _AT_THE_END)
    return table


TABLE: Final = _table()


def entries() -> Iterator[SupportEntry]:
    """Every operator, family by family."""
    for family in Family:
        yield from TABLE[family].values()


def supported(family: Family, name: str) -> bool:
    entry = TABLE[family].get(name)
    return entry is not None and entry.status is Support.SUPPORTED


def require(family: Family, name: str) -> None:
    """Accepts a supported operator. Raises UnsupportedOperation for a refused one, the server's error otherwise."""
    entry = TABLE[family].get(name)
    if entry is None:
        raise _unknown(family, name)
    if entry.status is not Support.SUPPORTED:
        raise UnsupportedOperation(name, entry.reason)


def _unknown(family: Family, name: str) -> Exception:
    match family:
        case Family.UPDATE:
            return write_failure(9, f"Unknown modifier: {name}")
        case Family.MODIFIER:
            return write_failure(2, f"Unrecognized clause in $push: {name}")
        case Family.STAGE:
            return unknown_operator(40324, f"Unrecognized pipeline stage name: '{name}'", name)
        case Family.ACCUMULATOR:
            return unknown_operator(15952, f"unknown group operator '{name}'", name)
        case Family.WINDOW:
            return unknown_operator(9, f"Unrecognized window function, {name}", name)
        case Family.EXPRESSION:
            return unknown_operator(168, f"Unrecognized expression '{name}'", name)
        case Family.PROJECTION:
            return unknown_operator(31325, f"Unknown expression {name}", name)
        case Family.QUERY:
            return unknown_operator(2, f"unknown operator: {name}", name)
