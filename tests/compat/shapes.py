"""Cases for the fuzz test over argument shapes: every supported operator, with what people and programs hand to it.

An operand is a number, a text, null, an array of none to three, a document with names that the operator knows and ones
that it does not, a nested expression, a field path good or bad, or a value of any other BSON type. Most of it is
wrong on purpose: the server refuses it with a code, and so has to everyone who answers in its place.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Any, Final

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from shadow.mongoql.expressions.date_operators import DATE_PARTS
from shadow.mongoql.values.support import Family, entries, supported

__all__ = ["DOCUMENTS", "OTHERS", "Shapes"]

_MOMENT: Final = dt.datetime(2024, 2, 29, 12, 30, 15, 123000)
_KEY: Final = ObjectId("5f0000000000000000000001")

DOCUMENTS: Final[list[dict[str, Any]]] = [
    {"_id": 0, "a": 1, "b": 2, "c": {"d": 3}, "t": _MOMENT, "s": "text", "l": [3, 1, 2]},
    {"_id": 1, "a": 1.0, "b": None, "c": [{"d": 1}, {"d": 2}], "t": None, "s": "", "l": []},
    {"_id": 2, "a": "x", "b": [1, 2], "c": {"d": {"e": 1}}, "t": _KEY, "s": "é日本", "l": [[1], {"d": 2}, None]},
    {"_id": 3, "b": True, "c": None, "s": 5, "l": "no list"},
    {
        "_id": 4,
        "a": Decimal128("1.50"),
        "b": Int64(2**40),
        "c": [],
        "t": Timestamp(4_000, 1),
        "l": [{"k": "q", "v": 1}],
    },
    {"_id": 5, "a": float("nan"), "b": -0.0, "c": {"d": []}, "t": _MOMENT, "s": "a-b-a", "l": [1, 1.0, "1"]},
]
"""A few documents with fields of many types, so that an operator meets what it takes and what it does not."""

OTHERS: Final[list[dict[str, Any]]] = [{"_id": 0, "a": 1, "x": [1]}, {"_id": 1, "a": None}, {"_id": 2, "x": {"d": 3}}]

PATHS: Final = ["a", "b", "c", "c.d", "t", "s", "l", "l.0", "x", "_id", "c.d.e", "l.d"]
BAD_PATHS: Final = ["", ".", "a.", ".a", "a..b", "$a", "a.$b", "$", "a.$", "..", "a.b.", "a.$[]", "a.$[x]", "a\0b"]
REFERENCES: Final = ["$a", "$b", "$c.d", "$t", "$s", "$l", "$x", "$$ROOT", "$$CURRENT.a", "$_id", "$l.d", "$$REMOVE"]
BAD_REFERENCES: Final = [
    "$", "$$", "$.", "$a.", "$.a", "$a..b", "$a.$b", "$$x", "$$ROOT.", "$$ROOT..a", "$$.a", "$$$a", "$$this", "$$NOW",
    "$$PRUNE", "$$A",
]  # fmt: skip
NUMBERS: Final = [
    0, 1, -1, 2, 3, 20, 2**31 - 1, Int64(1), Int64(-(2**63)), Int64(2**63 - 1), 0.0, 1.0, 1.5, -2.5, float("nan"),
    float("inf"), 1e300, Decimal128("1"), Decimal128("2.5"), Decimal128("NaN"), Decimal128("Infinity"),
    Decimal128("1E+400"),
]  # fmt: skip
OTHER_TYPES: Final = [
    True, False, _MOMENT, _KEY, Regex("a"), Regex("(", 0), Binary(b"\x01"), Binary(b"\x01" * 16, 4), Timestamp(1, 1),
    MinKey(), MaxKey(), Code("x"), DBRef("others", 1),
]  # fmt: skip
TEXTS: Final = ["", "a", "x", "text", "UTC", "America/New_York", "+02:00", "é", "int", "1", "_id", "timestamp", "i"]

KNOWN_NAMES: Final[dict[str, list[str]]] = {
    "$cond": ["if", "then", "else"],
    "$switch": ["branches", "default"],
    "$filter": ["input", "cond", "as", "limit"],
    "$map": ["input", "in", "as"],
    "$reduce": ["input", "initialValue", "in"],
    "$let": ["vars", "in"],
    "$getField": ["field", "input"],
    "$lookup": ["from", "localField", "foreignField", "as", "let", "pipeline"],
    "$unionWith": ["coll", "pipeline"],
    "$bucket": ["groupBy", "boundaries", "default", "output"],
    "$bucketAuto": ["groupBy", "buckets", "output"],
    "$graphLookup": ["from", "startWith", "connectFromField", "connectToField", "as", "maxDepth", "depthField"],
    **{name: ["sortBy", "output"] for name in ("$top", "$bottom")},
    **{name: ["n", "sortBy", "output"] for name in ("$topN", "$bottomN")},
    "$unwind": ["path", "includeArrayIndex", "preserveNullAndEmptyArrays"],
    "$replaceRoot": ["newRoot"],
    "$bit": ["and", "or", "xor"],
    "$currentDate": ["$type"],
    "$group": ["_id"],
    "$push": ["$each", "$slice", "$sort", "$position"],
    "$addToSet": ["$each"],
    **{name: ["date", "timezone"] for name in DATE_PARTS},
    "$convert": ["input", "to", "onError", "onNull"],
    "$dateToString": ["date", "format", "timezone", "onNull"],
    "$dateFromString": ["dateString", "format", "timezone", "onNull", "onError"],
    "$dateToParts": ["date", "timezone", "iso8601"],
    "$dateFromParts": ["year", "month", "day", "hour", "isoWeekYear", "timezone"],
    "$dateAdd": ["startDate", "unit", "amount", "timezone"],
    "$dateSubtract": ["startDate", "unit", "amount", "timezone"],
    "$dateDiff": ["startDate", "endDate", "unit", "timezone", "startOfWeek"],
    "$dateTrunc": ["date", "unit", "binSize", "timezone", "startOfWeek"],
    "$trim": ["input", "chars"],
    "$replaceOne": ["input", "find", "replacement"],
    "$replaceAll": ["input", "find", "replacement"],
    "$regexMatch": ["input", "regex", "options"],
    "$regexFind": ["input", "regex", "options"],
    "$regexFindAll": ["input", "regex", "options"],
    "$zip": ["inputs", "useLongestLength", "defaults"],
    "$sortArray": ["input", "sortBy"],
    **{name: ["n", "input"] for name in ("$firstN", "$lastN", "$maxN", "$minN")},
    "$setField": ["field", "input", "value"],
    "$unsetField": ["field", "input"],
}
"""The names of the fields that an operator's document may have, where it has any."""

_ARITY: Final = [0, 1, 1, 2, 2, 2, 3, 3, 4]


def _of(family: Family) -> list[str]:
    return [entry.name for entry in entries() if entry.family is family and supported(family, entry.name)]


class Shapes:
    """Draws an operator and what it is given, from one stream of chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._names = {family: _of(family) for family in Family}

    def pick(self, choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    # -- values

    def scalar(self) -> Any:
        return self.pick([self.pick(NUMBERS), self.pick(TEXTS), None, self.pick(OTHER_TYPES)])

    def path(self) -> str:
        return self.pick(PATHS if self.chance(0.8) else BAD_PATHS)

    def value(self, depth: int = 2) -> Any:
        """Any BSON value; a document may have names that begin with a dollar or hold dots."""
        kind = self.random.random()
        if depth <= 0 or kind < 0.6:
            return self.scalar()
        if kind < 0.8:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        names = ["a", "d", "k", "v"] if self.chance(0.85) else ["", "$a", "a.b", "$eq", "$each", "$literal"]
        return {self.pick(names): self.value(depth - 1) for _ in range(self.random.randrange(3))}

    def reference(self) -> str:
        return self.pick(REFERENCES if self.chance(0.85) else BAD_REFERENCES)

    def operand(self, name: str, depth: int = 1) -> Any:
        """What an expression, a stage or an accumulator is given."""
        kind = self.random.random()
        if kind < 0.2:
            return self.argument(depth)
        if kind < 0.65:
            return [self.argument(depth) for _ in range(self.pick(_ARITY))]
        if kind < 0.8 or name in KNOWN_NAMES:
            return self.named(name, depth)
        return self.value()

    def argument(self, depth: int) -> Any:
        """A value where an expression may stand."""
        kind = self.random.random()
        if kind < 0.4:
            return self.reference()
        if kind < 0.65:
            return self.scalar()
        if kind < 0.72:
            return {"$literal": self.value(1)}
        if kind < 0.8:
            return [self.reference() if self.chance(0.5) else self.scalar() for _ in range(self.random.randrange(4))]
        if kind < 0.85:
            return self.value(1)
        return self.expression(depth - 1) if depth > 0 else self.reference()

    def named(self, name: str, depth: int) -> dict[str, Any]:
        """A document with the names that the operator knows, seldom without one of them or with another one."""
        known = KNOWN_NAMES.get(name, ["a", "b"])
        made = {each: self.inner(each, depth) for each in known if self.chance(0.85)}
        if self.chance(0.08):
            made[self.pick(["unknown", "", "$x", "a.b"])] = self.argument(0)
        if self.chance(0.2):
            made = {each: made[each] for each in self.random.sample(list(made), len(made))}
        return made

    def inner(self, name: str, depth: int) -> Any:
        """What stands under a name of an operator's document: mostly what belongs there."""
        if self.chance(0.15):
            return self.argument(depth)
        match name:
            case "as":
                return self.pick(["v", "this", "x1", "a.b", "Big", "", "CURRENT", "$v", "_v"])
            case "branches":
                return [
                    {each: self.argument(0) for each in ("case", "then") if self.chance(0.9)}
                    for _ in range(self.random.randrange(3))
                ]
            case "vars":
                return {self.pick(["v", "x1", "Big", "", "a.b", "$v"]): self.argument(0)}
            case "in" | "cond":
                return self.pick(["$$this", "$$v", "$$value", {"$gt": ["$$this", 1]}, ["$$this"], self.argument(depth)])
            case "pipeline":
                return self.pick([[], [{"$match": {}}], [{"$match": {"$expr": {"$eq": ["$a", "$$v"]}}}], {}, [1], "x"])
            case "let":
                return {self.pick(["v", "v", "Big", "", "a.b", "$v"]): self.argument(0)}
            case "from" | "coll":
                return self.pick(["others", "others", "none", "", "$x"])
            case "boundaries":
                return self.pick([[0, 1, 5], [0, 5], ["a", "b"], [1, 0], [0, "x"], [0], 5, ["$a", 1]])
            case "buckets" | "maxDepth":
                return self.pick([1, 2, 3, 0, -1, 1.5, "x", Int64(2)])
            case "groupBy" | "startWith":
                return self.pick(["$a", "$_id", "$l", {"$mod": ["$_id", 2]}, "a", 5])
            case (
                "connectFromField"
                | "connectToField"
                | "depthField"
                | "localField"
                | "foreignField"
                | "field"
                | "includeArrayIndex"
            ):
                return self.path()
            case "path":
                return self.pick([self.reference(), self.path()])
            case "preserveNullAndEmptyArrays":
                return self.pick([True, False, 1, None])
            case "date" | "startDate" | "endDate":
                return self.pick(["$t", _MOMENT, _KEY, "$s"])
            case "timezone":
                return self.pick(["UTC", "America/New_York", "+02:00", "GMT", "", None, 1, "$s", "$x", "Nowhere"])
            case "to":
                return self.pick(["int", "string", "date", 1, 16, "nope", None])
            case "unit":
                return self.pick(["day", "month", "hour", "nope", 5, None])
            case "format":
                return self.pick(["%Y-%m-%d", "%H:%M", "%q", "%", 5, None])
            case "inputs":
                return [self.pick(["$l", [1, 2], None, 5]) for _ in range(self.random.randrange(3))]
            case "sortBy":
                return self.pick([1, -1, 2, {"d": 1}, {}, "x", None])
            case "$each":
                return self.pick([[self.value(1) for _ in range(self.random.randrange(4))], self.scalar()])
            case "$slice" | "$position" | "limit":
                return self.pick(NUMBERS)
            case "$sort":
                return self.pick([1, -1, 2, {"a": 1}, {"a": -1, "b": 1}, {"a.": 1}, {}, {"a": "x"}, {self.path(): 1}])
            case "$type":
                return self.pick(["date", "timestamp", "x"])
            case "and" | "or" | "xor":
                return self.pick([1, Int64(5), 1.5, "x"])
            case _:
                return self.argument(depth)

    # -- operators

    def expression(self, depth: int = 1, name: str = "") -> dict[str, Any]:
        name = name or self.pick(self._names[Family.EXPRESSION])
        return {name: self.operand(name, depth)}

    def condition(self, depth: int = 1) -> dict[str, Any]:
        """What stands under a path in a filter."""
        return {
            name: self.query_operand(name, depth) for name in self.random.sample(self._fields, self.pick([1, 1, 2]))
        }

    @property
    def _fields(self) -> list[str]:
        return [name for name in self._names[Family.QUERY] if name not in _TOP]

    def query_operand(self, name: str, depth: int) -> Any:
        if self.chance(0.25):
            return self.value()
        match name:
            case "$not" | "$elemMatch":
                return self.condition(depth - 1) if depth > 0 and self.chance(0.7) else self.filter(0)
            case "$in" | "$nin" | "$all":
                return [
                    self.value(1)
                    if self.chance(0.8)
                    else self.pick([{"$elemMatch": {"d": 1}}, {"$gt": 1}, Regex("^a")])
                    for _ in range(self.random.randrange(4))
                ]
            case "$type":
                return self.pick(
                    [self.pick(TEXTS), "number", "array", self.pick(NUMBERS), ["int", 2], [], ["nope"], -1]
                )
            case "$mod":
                return [self.pick(NUMBERS) if self.chance(0.9) else self.scalar() for _ in range(self.pick(_ARITY))]
            case "$regex":
                return self.pick(["a", "^t", "(", "[", "*", Regex("a", 2), Regex("^x"), 5, "a{2,1}", "\\"])
            case "$options":
                return self.pick(["i", "", "q", "imsx", 5, None])
            case "$bitsAllSet" | "$bitsAnySet" | "$bitsAllClear" | "$bitsAnyClear":
                return self.pick([self.pick(NUMBERS), [0, 1], [-1], ["a"], Binary(b"\x03"), [1.5], [], [70]])
            case "$size" | "$exists":
                return self.scalar()
            case _:
                return self.value(1)

    def filter(self, depth: int = 1) -> dict[str, Any]:
        kind = self.random.random()
        if kind < 0.2:
            name = self.pick(sorted(_TOP))
            return {name: self.top_operand(name, depth)}
        path = self.path()
        return {path: self.condition(depth) if self.chance(0.85) else self.value()}

    def top_operand(self, name: str, depth: int) -> Any:
        if self.chance(0.2):
            return self.value()
        match name:
            case "$and" | "$or" | "$nor":
                return [self.filter(depth - 1) if depth > 0 else {"a": 1} for _ in range(self.random.randrange(4))]
            case "$expr":
                return self.expression(1) if self.chance(0.8) else self.argument(1)
            case _:
                return self.scalar()

    def update(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """An update and its array filters."""
        name = self.pick(self._names[Family.UPDATE])
        if self.chance(0.08):
            return {name: self.value()}, []
        paths = [self.path() for _ in range(self.pick([1, 1, 1, 2]))]
        made = {name: {path: self.update_operand(name) for path in paths}}
        if "$[x]" in repr(made) and self.chance(0.8):
            return made, [
                self.pick([{"x": 1}, {"x.d": {"$gt": 0}}, {"x": {"$foo": 1}}, {}, {"x": 1, "y": 1}, {"$x": 1}])
            ]
        return made, [{"y": 1}] if self.chance(0.03) else []

    def update_operand(self, name: str) -> Any:
        if name in KNOWN_NAMES and self.chance(0.7):
            return self.named(name, 1)
        match name:
            case "$rename":
                return self.path() if self.chance(0.8) else self.value()
            case "$pull":
                return self.condition(1) if self.chance(0.4) else self.value() if self.chance(0.5) else self.filter(0)
            case "$pullAll":
                return [self.value(1) for _ in range(self.random.randrange(4))] if self.chance(0.7) else self.value()
            case "$inc" | "$mul" | "$pop":
                return self.pick(NUMBERS) if self.chance(0.7) else self.value()
            case _:
                return self.value()

    def projection(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(self.pick([1, 1, 2])):
            made[self.path()] = self.projected()
        if self.chance(0.2):
            made["_id"] = self.pick([0, 1, True, 0.0, None, "x"])
        return made

    def projected(self) -> Any:
        kind = self.random.random()
        if kind < 0.3:
            return self.pick([0, 1, True, False, 1.5, Int64(0), Decimal128("0"), None])
        if kind < 0.45:
            return {
                "$slice": self.pick([self.pick(NUMBERS), [self.pick(NUMBERS), self.pick(NUMBERS)], self.operand("")])
            }
        if kind < 0.55:
            return {"$elemMatch": self.query_operand("$elemMatch", 1)}
        if kind < 0.75:
            return self.expression(1)
        return self.argument(1)

    def stage(self) -> dict[str, Any]:
        name = self.pick([name for name in self._names[Family.STAGE] if name != "$sample"])  # whose answer is any
        return {name: self.stage_operand(name)}

    def stage_operand(self, name: str) -> Any:
        if self.chance(0.15):
            return self.operand(name)
        match name:
            case "$match":
                return self.filter()
            case "$sort":
                return {self.path(): self.pick([1, -1, 1.0, Int64(1), 2, "x", None, {"$meta": "x"}, True])}
            case "$limit" | "$skip":
                return self.pick(NUMBERS)
            case "$project":
                return self.projection()
            case "$addFields" | "$set":
                return {self.path(): self.argument(1) for _ in range(self.pick([1, 1, 2]))}
            case "$unset":
                return self.path() if self.chance(0.5) else [self.path() for _ in range(self.random.randrange(4))]
            case "$setWindowFields":
                return self.windowed()
            case "$count":
                return self.pick(["n", *BAD_PATHS, "_id", "a.b"])
            case "$sortByCount" | "$replaceWith":
                return self.argument(1)
            case "$group":
                return {"_id": self.argument(1), self.pick(["n", "n", "n", "a.b", "$n", ""]): self.accumulated()}
            case "$facet":
                return {self.pick(["n", "a.b", "$n", ""]): self.pick([[], [self.stage()], [{"$match": {}}], {}, 1])}
            case _:
                return self.named(name, 1)

    def windowed(self) -> dict[str, Any]:
        """A `$setWindowFields`, with one fault now and then."""
        name = self.pick(self._names[Family.WINDOW])
        operand = self.operand(name) if self.chance(0.3) else self.pick(["$a", {}, {"output": "$a", "by": 1}, 1])
        window = self.pick([{}, {"documents": [-1, "current"]}, {"range": [-1, 1]}, {"documents": [1, 0]}, 5, {"x": 1}])
        made: dict[str, Any] = {"output": {"x": {name: operand}}}
        if self.chance(0.4):
            made["output"]["x"]["window"] = window
        if self.chance(0.8):
            made["sortBy"] = self.pick([{"_id": 1}, {"a": 1}, {"_id": -1}, {"a": 1, "_id": 1}, 5, {"a": 2}])
        if self.chance(0.3):
            made["partitionBy"] = self.pick(["$a", "$s", {"$mod": ["$_id", 2]}, None])
        return made

    def accumulated(self) -> Any:
        name = self.pick(self._names[Family.ACCUMULATOR])
        if self.chance(0.06):
            return self.value()
        if name == "$count":
            return {name: self.pick([{}, {}, 1, {"a": 1}, None])}
        return {name: self.operand(name)}

    def expression_pipeline(self) -> list[dict[str, Any]]:
        """Each document's answer of one expression, by all ways to ask for it."""
        made = self.expression(2)
        return [self.pick([{"$project": {"x": made}}, {"$addFields": {"x": made}}, {"$project": {"x": made, "a": 1}}])]

    def group_pipeline(self) -> list[dict[str, Any]]:
        return [{"$group": {"_id": None, "x": self.accumulated()}}]


_TOP: Final = frozenset({"$and", "$or", "$nor", "$expr", "$comment", "$alwaysTrue", "$alwaysFalse"})
"""The query operators that stand where a path would."""
