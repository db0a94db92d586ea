"""Cases for the differential tests: documents of every BSON type, filters, updates, sorts, projections, pipelines.

All of it comes from one `random.Random`, so that a seed is a whole run. Names and values are drawn from small pools on
purpose: what a filter asks for has to occur now and then.
"""

from __future__ import annotations

import datetime as dt
import random
from typing import Any, ClassVar

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from tests.compat.expression_cases import EXPRESSIONS

NAMES = ["a", "b", "c", "d"]
PATHS = [
    "a",
    "b",
    "c",
    "a.b",
    "a.c",
    "b.a",
    "c.d",
    "a.b.c",
    "a.0",
    "a.1",
    "a.0.b",
    "a.b.0",
    "a.0.0",
    "b.0",
    "c.d.a",
    "a.1.c",
]
TEXTS = ["", "a", "b", "ab", "abc", "B", "é", "a\nb", "x.y", "7", "ß", "Ab_1", "日本"]
WHOLE = [0, 1, 2, 3, -1, 7, 10, 2**31 - 1, -(2**31)]
LONGS = [0, 1, 2, 5, -3, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 1.0, 2.0, 1.5, -2.5, 0.1, 1e300, 2.0**53, float("nan"), float("inf"), float("-inf"), 1e-310]
DECIMALS = [
    "0",
    "1",
    "1.0",
    "2.50",
    "-3",
    "0.1",
    "0.1000000000000000055511151231257827",
    "NaN",
    "Infinity",
    "-Infinity",
    "1E+400",
    "9007199254740993",
    "-0",
    "1E-20",
]
DATES = [
    dt.datetime(1970, 1, 1),
    dt.datetime(2024, 2, 29, 12, 30, 15, 123000),
    dt.datetime(1960, 5, 5),
    dt.datetime(2030, 1, 1),
]
OIDS = [ObjectId("5f" + "0" * 21 + c) for c in "123"]
BINARIES = [b"", b"\x01", b"\x01\x02", Binary(b"\x01", 5), Binary(b"\xff\x00", 0), Binary(b"\x05\x01", 2)]
REGEXES = [Regex("a"), Regex("^a", 2), Regex("b$", 8)]
RARE = [MinKey(), MaxKey(), Timestamp(1, 1), Timestamp(4_000_000_000, 2), Code("x"), Code("x", {"a": 1})]


class Generator:
    """Draws values and operations from one stream of chance."""

    def __init__(self, seed: int, *, plain: bool = False) -> None:
        """`plain` leaves out MinKey, MaxKey and code, which mongod's second engine garbles in $group and $lookup."""
        self.random = random.Random(seed)
        self.rare = [Timestamp(1, 1), Timestamp(4_000_000_000, 2)] if plain else RARE

    def pick(self, choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def faulty(self) -> bool:
        """Rarely enough that a case seldom has two faults, of which the server may name either."""
        return self.chance(0.02)

    # -- values

    def number(self) -> Any:
        kind = self.random.random()
        if kind < 0.4:
            return self.pick(WHOLE)
        if kind < 0.6:
            return Int64(self.pick(LONGS))
        if kind < 0.85:
            return self.pick(DOUBLES)
        return Decimal128(self.pick(DECIMALS))

    def small(self) -> Any:
        """A number that arithmetic seldom overflows."""
        return self.pick([0, 1, 2, -1, 3, Int64(2), Int64(-5), 1.5, 0.5, -2.0, 0.1, Decimal128("1.5"), Decimal128("2")])

    def scalar(self) -> Any:
        kind = self.random.random()
        if kind < 0.4:
            return self.number()
        if kind < 0.6:
            return self.pick(TEXTS)
        if kind < 0.7:
            return None
        if kind < 0.76:
            return self.pick([True, False])
        if kind < 0.82:
            return self.pick(DATES)
        if kind < 0.88:
            return self.pick(OIDS)
        if kind < 0.93:
            return self.pick(BINARIES)
        if kind < 0.96:
            return self.pick(REGEXES)
        return self.pick(self.rare)

    def value(self, depth: int = 3) -> Any:
        kind = self.random.random()
        if depth <= 0 or kind < 0.5:
            return self.scalar()
        if kind < 0.75:
            return [self.value(depth - 1) for _ in range(self.pick([0, 1, 1, 2, 2, 3]))]
        return self.object(depth - 1)

    def object(self, depth: int = 2) -> dict[str, Any]:
        names = self.random.sample([*NAMES, "0", "1"] if self.chance(0.1) else NAMES, self.pick([0, 1, 1, 2, 2, 3]))
        return {name: self.value(depth) for name in names}

    def document(self, key: Any) -> dict[str, Any]:
        names = self.random.sample(NAMES, self.pick([1, 2, 3, 3, 4]))
        return {"_id": key, **{name: self.value() for name in names}}

    def path(self) -> str:
        return self.pick(PATHS)

    # -- filters

    def filter(self, depth: int = 2) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(self.pick([1, 1, 1, 2, 2])):
            kind = self.random.random()
            if depth > 0 and kind < 0.2:
                made[self.pick(["$and", "$or", "$nor"])] = [self.filter(depth - 1) for _ in range(self.pick([1, 2, 3]))]
            elif kind < 0.25:
                made["$expr"] = self.expression(2)
            elif kind < 0.26:
                made["$foo" if self.faulty() else self.pick(["$comment", "$alwaysTrue", "$alwaysFalse"])] = 1
            else:
                made[self.path()] = self.condition(depth)
        return made

    def condition(self, depth: int = 2) -> Any:
        if self.chance(0.15):
            return self.value(2)
        made: dict[str, Any] = {}
        for _ in range(self.pick([1, 1, 1, 2])):
            name = self.pick(list(self._conditions))
            made[name] = self._conditions[name](self, depth)
            if name == "$regex" and self.chance(0.3):
                made["$options"] = "q" if self.faulty() else self.pick(["i", "m", "s", "x", "im"])
        return made

    def operand(self) -> Any:
        return self.value(2)

    def _in(self, depth: int) -> Any:
        return self.scalar() if self.faulty() else [self.value(1) for _ in range(self.pick([0, 1, 1, 2, 3]))]

    def _all(self, depth: int) -> Any:
        if self.chance(0.2):
            return [{"$elemMatch": self.elem(depth)} for _ in range(self.pick([1, 2]))]
        return [self.value(1) for _ in range(self.pick([0, 1, 1, 2, 2]))]

    def elem(self, depth: int) -> dict[str, Any]:
        if self.chance(0.5):
            condition = self.condition(depth - 1)
            return condition if isinstance(condition, dict) else {"$eq": condition}
        return self.filter(depth - 1)

    def _not(self, depth: int) -> Any:
        if self.faulty():
            return self.pick([{}, 1])
        condition = self.condition(depth - 1)
        return (
            condition if isinstance(condition, dict) and str(next(iter(condition), "")).startswith("$") else Regex("a")
        )

    def _mod(self, depth: int) -> Any:
        return [self.number(), self.number()] if self.faulty() else [self.pick([2, 3, -2, 2.5]), self.pick([0, 1, -1])]

    def _type(self, depth: int) -> Any:
        if self.faulty():
            return self.pick([99, "x", [], 0, 1.5, None])
        return self.pick(
            [
                "int",
                "long",
                "double",
                "decimal",
                "number",
                "string",
                "object",
                "array",
                "null",
                "bool",
                "date",
                "regex",
                "binData",
                "objectId",
                "timestamp",
                "minKey",
                1,
                2,
                16,
                4.0,
                -1,
                127,
                ["int", 2],
                ["array", "null"],
                "undefined",
                "javascript",
            ]
        )

    def _bits(self, depth: int) -> Any:
        if self.faulty():
            return self.pick([-1, 1.5, "x", [-1], None])
        return self.pick([0, 1, 5, [0], [1, 3], [0, 63, 70], b"\x01", Int64(2**40), 1.0, []])

    _conditions: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), lambda g, d: g.operand()),
        "$in": _in,
        "$nin": _in,
        "$exists": lambda g, d: g.pick([True, False, 1, 0, None, "x", 0.0]),
        "$type": _type,
        "$size": lambda g, d: (
            g.pick([-1, 1.5, "x"]) if g.faulty() else g.pick([0, 1, 2, 3, 1.0, Int64(2), Decimal128("1")])
        ),
        "$all": _all,
        "$elemMatch": lambda g, d: 5 if g.faulty() else g.elem(d),
        "$mod": _mod,
        "$not": _not,
        "$regex": lambda g, d: (
            "(" if g.faulty() else g.pick(["a", "^a", "b$", "A", ".", "a.b", "^$", "[ab]+", r"\w\d", "é", "É", r"^\W"])
        ),
        "$bitsAllSet": _bits,
        "$bitsAnySet": _bits,
        "$bitsAllClear": _bits,
        "$bitsAnyClear": _bits,
    }

    # -- updates

    def update(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for _ in range(self.pick([1, 1, 1, 2, 3])):
            name = self.pick(list(self._updates))
            paths = [self.update_path() for _ in range(self.pick([1, 1, 2]))]
            made.setdefault(name, {}).update({path: self._updates[name](self, path) for path in paths})
        return made

    def update_path(self) -> str:
        if self.chance(0.8):
            return self.pick(["a", "b", "c", "d", "e", "a.b", "b.c", "c.d", "a.x", "n.m", "n.b", "e.10", "e.9", "z"])
        if self.chance(0.1):
            return self.pick(["_id", "_id.x", "a..b", "", "$a", "a.$b", "$.a"])
        return self.pick(
            [
                *PATHS,
                "a.$",
                "b.$.c",
                "a.$[]",
                "a.$[].b",
                "a.$[f]",
                "b.$[f].c",
                "a.$[g].b",
                "a.00",
                "a.3",
                "a.-1",
                "c.$[].$[]",
                "a.b.$[]",
                "a.$[f].$[g]",
            ]
        )

    def _push(self, path: str) -> Any:
        if self.chance(0.4):
            return self.value(2)
        made: dict[str, Any] = {"$each": [self.value(1) for _ in range(self.pick([0, 1, 2, 3]))]}
        if self.faulty():
            made["$each"] = self.scalar()
        if self.chance(0.4):
            made["$slice"] = self.pick([1.5, "x"]) if self.faulty() else self.pick([0, 1, 2, -1, -2, 5, Int64(1), 1.0])
        if self.chance(0.4):
            made["$sort"] = (
                self.pick([2, {}, {"a": 2}, "x", {"": 1}])
                if self.faulty()
                else self.pick([1, -1, {"a": 1}, {"a.b": -1, "b": 1}, 1.0, {"a.0": 1}])
            )
        if self.chance(0.4):
            made["$position"] = 1.5 if self.faulty() else self.pick([0, 1, -1, 2, 10, -10, Int64(1)])
        if self.chance(0.03):
            made["$foo"] = 1
        return made

    def _pull(self, path: str) -> Any:
        kind = self.random.random()
        if kind < 0.4:
            return self.value(2)
        return self.condition(1) if kind < 0.7 else self.filter(1)

    _updates: ClassVar[dict[str, Any]] = {
        "$set": lambda g, p: g.value(2),
        "$unset": lambda g, p: g.pick([1, "", True]),
        "$inc": lambda g, p: g.scalar() if g.faulty() else g.number(),
        "$mul": lambda g, p: g.scalar() if g.faulty() else g.number(),
        "$min": lambda g, p: g.value(1),
        "$max": lambda g, p: g.value(1),
        "$rename": lambda g, p: (
            g.pick(["a.$", "_id", p, p + ".y", 5]) if g.faulty() else g.pick(["e", "b", "f.g", "a.b", "c.0", "x"])
        ),
        "$setOnInsert": lambda g, p: g.value(1),
        "$push": _push,
        "$addToSet": lambda g, p: g.value(1) if g.chance(0.5) else {"$each": [g.value(1) for _ in range(3)]},
        "$pull": _pull,
        "$pullAll": lambda g, p: [g.value(1) for _ in range(3)] if g.chance(0.98) else g.scalar(),
        "$pop": lambda g, p: g.pick([2, "x", 1.5]) if g.faulty() else g.pick([1, -1, 1.0, Int64(-1)]),
        "$bit": lambda g, p: (
            g.pick([{}, {"and": 1.5}, 1, {"nor": 1}])
            if g.faulty()
            else g.pick([{"and": 5}, {"or": Int64(8)}, {"xor": 3}, {"and": 7, "or": 8}])
        ),
    }

    def array_filters(self, update: dict[str, Any]) -> list[dict[str, Any]]:
        text = repr(update)
        made = []
        if "$[f]" in text or self.chance(0.02):
            made.append({"f": self.condition(1)} if self.chance(0.6) else {f"f.{self.pick(NAMES)}": self.condition(1)})
        if "$[g]" in text or self.chance(0.02):
            made.append({"g": self.condition(1)})
        return made

    def update_pipeline(self) -> list[dict[str, Any]]:
        return [self.document_stage() for _ in range(self.pick([1, 1, 2]))]

    def document_stage(self) -> dict[str, Any]:
        kind = self.pick(["$set", "$addFields", "$unset", "$project", "$replaceWith", "$replaceRoot"])
        if kind in ("$set", "$addFields"):
            return {kind: self.added()}
        if kind == "$unset":
            return {
                kind: self.pick(["", [], 5])
                if self.faulty()
                else self.pick(["a", ["a", "b.c"], "a.b", ["c.d"], "_id", "a.0"])
            }
        if kind == "$project":
            return {kind: self.projection(find=False)}
        source = self.pick(
            ["$a", "$b", "$$ROOT", {"a": "$b", "c": "$a.b"}, {"$mergeObjects": ["$$ROOT", {"x": 1}]}, "$a.b"]
        )
        return {kind: source if kind == "$replaceWith" else {"newRoot": source}}

    def added(self) -> dict[str, Any]:
        paths = [self.pick(["a", "b", "x", "a.b", "a.x", "b.c", "n.m.o", "a.0"]) for _ in range(self.pick([1, 1, 2]))]
        return {path: self.expression(2) if self.chance(0.9) else {"y": self.expression(1)} for path in paths}

    # -- sorts, projections

    def sort(self) -> list[tuple[str, int]]:
        paths = dict.fromkeys(self.path() for _ in range(self.pick([1, 1, 2, 3])))
        return [(path, self.pick([1, -1])) for path in paths] + [("_id", self.pick([1, -1]))]

    def projection(self, *, find: bool = True) -> dict[str, Any]:
        style = self.random.random()
        made: dict[str, Any] = {}
        if self.chance(0.25):
            made["_id"] = self.pick([0, 1, False, True, 0.0])
        for _ in range(self.pick([1, 2, 2, 3])):
            path = self.pick(["a", "b", "c", "d", "a.b", "a.c", "b.a", "c.d", "a.b.c", "a.0", "x"])
            if style < 0.4:
                made[path] = self.pick([1, True, 1.0, 5])
            elif style < 0.75:
                made[path] = self.pick([0, False, 0.0])
            else:
                made[path] = self.pick([1, 1, 0])
            if self.chance(0.12):
                made[path] = {name: self.pick([1, 1, 0]) for name in self.random.sample(NAMES, self.pick([0, 1, 2]))}
            elif self.chance(0.2):
                made[path] = self.expression(1)
            elif find and self.chance(0.15):
                made[path] = {
                    "$slice": self.pick([[1, 0], "x", [1]])
                    if self.faulty()
                    else self.pick([1, 2, -1, 0, [0, 1], [1, 2], [-1, 1], 1.5, Int64(2)])
                }
            elif find and self.chance(0.15):
                made[path] = {"$elemMatch": 5 if self.faulty() else self.elem(1)}
        return made

    def positional(self) -> dict[str, Any]:
        """A projection with one `.$`."""
        made: dict[str, Any] = {self.pick(["a.$", "a.$", "b.$", "c.$", "a.b.$", "b.a.$", "c.d.$"]): 1}
        if self.faulty():
            made[self.pick(["d.$", "d.$.x", ".$"])] = self.pick([1, 0, "x", {"$add": [1, 2]}])
        if self.chance(0.3):
            made[self.pick(["d", "x"])] = self.pick([1, True, {"$slice": 1}])
        if self.chance(0.2):
            made["_id"] = 0
        return made

    def documents_of(self, documents: list[Any]) -> list[Any]:
        """Some of the documents, so that an error over one does not hide the answers over all others."""
        chosen = self.random.sample(range(len(documents)), 4)
        return [documents[i] for i in sorted(chosen)]

    def object_filter(self) -> dict[str, Any]:
        """A filter of which some condition is mostly about an element of an array."""
        made = {self.path(): self.pick([self.scalar(), self.condition(1), {"$exists": True}])}
        if self.chance(0.3):
            made = {**made, **self.filter(1)}
        return made

    # -- expressions, pipelines

    def expression(self, depth: int = 2) -> Any:
        kind = self.random.random()
        if depth <= 0 or kind < 0.35:
            return self.pick(["$a", "$b", "$c", "$a.b", "$b.a", "$c.d", "$a.b.c", "$x", "$$ROOT.a", "$a.0", "$_id"])
        if kind < 0.5:
            return self.pick(
                [{"$literal": self.value(1)}, self.small(), self.pick([t for t in TEXTS if t]), None, True]
            )
        if kind < 0.55:
            return [self.expression(depth - 1) for _ in range(self.pick([0, 1, 2]))]
        if kind < 0.58:
            return {"k": self.expression(depth - 1)}
        name = self.pick(list(self._expressions))
        return {name: self._expressions[name](self, depth - 1)}

    def several(self, depth: int, counts: tuple[int, ...] = (1, 2, 2, 3)) -> list[Any]:
        return [self.expression(depth) for _ in range(self.pick(counts))]

    def numeric(self, depth: int) -> Any:
        return self.pick([self.small(), self.number(), self.expression(depth), {"$size": self.arrayish(depth)}])

    def arrayish(self, depth: int) -> Any:
        return self.pick(
            ["$a", "$b", {"$ifNull": ["$a", []]}, self.expression(depth), [1, "$a"], {"$literal": [1, 2, 3]}]
        )

    def textish(self, depth: int) -> Any:
        return self.pick(["$a", "$b", "abc", "é", "日本", {"$literal": ""}, {"$literal": "Ab"}, self.expression(depth)])

    def _pair(self, depth: int) -> list[Any]:
        return [self.expression(depth), self.expression(depth)]

    _expressions: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$cmp"), _pair),
        "$and": lambda g, d: g.several(d),
        "$or": lambda g, d: g.several(d),
        "$not": lambda g, d: [g.expression(d)],
        "$toBool": lambda g, d: g.expression(d),
        **dict.fromkeys(("$add", "$multiply"), lambda g, d: [g.numeric(d) for _ in range(g.pick([1, 2, 2, 3]))]),
        **dict.fromkeys(("$subtract", "$divide", "$mod"), lambda g, d: [g.numeric(d), g.numeric(d)]),
        **dict.fromkeys(("$abs", "$ceil", "$floor", "$trunc"), lambda g, d: g.numeric(d)),
        **dict.fromkeys(
            ("$sum", "$avg", "$min", "$max"), lambda g, d: [g.arrayish(d)] if g.chance(0.5) else g.several(d)
        ),
        "$cond": lambda g, d: [g.expression(d), g.expression(d), g.expression(d)],
        "$ifNull": lambda g, d: [g.expression(d), g.expression(d)],
        "$switch": lambda g, d: {
            "branches": [{"case": g.expression(d), "then": g.expression(d)}],
            "default": g.expression(d),
        },
        "$concat": lambda g, d: [g.textish(d), g.textish(d)],
        **dict.fromkeys(("$toUpper", "$toLower", "$strLenCP", "$strLenBytes"), lambda g, d: g.textish(d)),
        "$substrCP": lambda g, d: [g.textish(d), g.pick([0, 1, 2]), g.pick([0, 1, 5])],
        "$split": lambda g, d: [g.textish(d), g.pick(["b", "a", ".", "$a"])],
        "$size": lambda g, d: g.arrayish(d),
        "$arrayElemAt": lambda g, d: [g.arrayish(d), g.pick([0, 1, -1, 5, 1.0, "$b"])],
        "$first": lambda g, d: g.arrayish(d),
        "$last": lambda g, d: g.arrayish(d),
        "$in": lambda g, d: [g.expression(d), g.arrayish(d)],
        "$slice": lambda g, d: [g.arrayish(d), g.pick([1, -1, 2])] + ([g.pick([1, 2])] if g.chance(0.4) else []),
        "$filter": lambda g, d: {"input": g.arrayish(d), "cond": {"$gt": ["$$this", g.small()]}},
        "$map": lambda g, d: {
            "input": g.arrayish(d),
            "as": "v",
            "in": g.pick(["$$v", "$$v.b", {"k": "$$v"}, {"$type": "$$v"}]),
        },
        "$reduce": lambda g, d: {
            "input": g.arrayish(d),
            "initialValue": [],
            "in": {"$concatArrays": ["$$value", ["$$this"]]},
        },
        "$concatArrays": lambda g, d: [g.arrayish(d), g.arrayish(d)],
        "$reverseArray": lambda g, d: g.arrayish(d),
        "$isArray": lambda g, d: [g.expression(d)],
        "$isNumber": lambda g, d: g.expression(d),
        "$type": lambda g, d: g.expression(d),
        "$mergeObjects": lambda g, d: [g.pick(["$a", "$b", "$$ROOT", {"q": "$a"}, {}, None]) for _ in range(2)],
        "$objectToArray": lambda g, d: g.pick(["$a", "$b", "$$ROOT", {"q": "$a"}]),
        "$arrayToObject": lambda g, d: g.pick(["$a", {"$objectToArray": "$$ROOT"}, {"$literal": [["x", 1], ["y", 2]]}]),
        **dict.fromkeys(
            ("$setUnion", "$setIntersection", "$setDifference", "$setEquals", "$setIsSubset"),
            lambda g, d: [g.arrayish(d), g.arrayish(d)],
        ),
        "$allElementsTrue": lambda g, d: [g.arrayish(d)],
        "$anyElementTrue": lambda g, d: [g.arrayish(d)],
        "$indexOfArray": lambda g, d: [g.arrayish(d), g.expression(d)],
        "$range": lambda g, d: [g.pick([0, 1]), g.pick([0, 3, "$b"]), g.pick([1, 2, -1])],
        "$let": lambda g, d: {"vars": {"v": g.expression(d)}, "in": g.pick(["$$v", ["$$v", "$a"], {"$type": "$$v"}])},
        "$getField": lambda g, d: g.pick(["a", "b", {"field": "a", "input": "$b"}, {"field": "x", "input": "$$ROOT"}]),
        "$literal": lambda g, d: g.value(1),
        "$const": lambda g, d: g.value(1),
        **dict.fromkeys(
            (
                "$year",
                "$month",
                "$dayOfMonth",
                "$hour",
                "$minute",
                "$second",
                "$millisecond",
                "$dayOfWeek",
                "$dayOfYear",
            ),
            lambda g, d: g.pick(["$a", "$b", DATES[1], OIDS[0], DATES[2]]),
        ),
    }

    _expressions.update(EXPRESSIONS)

    def pipeline(self) -> list[dict[str, Any]]:
        """Sorted first; a stage that leaves no order is the last one."""
        stages: list[dict[str, Any]] = []
        for _ in range(self.pick([1, 2, 2, 3])):
            stages.append(self.stage())
            if "$group" in repr(stages[-1]) or "$sortByCount" in repr(stages[-1]):
                break
        return [*([{"$match": self.filter(1)}] if self.chance(0.2) else []), {"$sort": {"_id": 1}}, *stages]

    def stage(self) -> dict[str, Any]:
        kind = self.random.random()
        if kind < 0.15:
            return {"$match": self.filter(1)}
        if kind < 0.25:
            # By no position: a later stage that needs the field makes mongod drop the elements before it sorts.
            return {"$sort": {path: way for path, way in [*self.sort()[:-1], ("_id", 1)] if "." not in path}}
        if kind < 0.32:
            return self.pick(
                [
                    {"$limit": self.pick([0, -1, "x"]) if self.faulty() else self.pick([1, 3, 5, 2.0])},
                    {"$skip": self.pick([-1, 1.5]) if self.faulty() else self.pick([0, 2, 100])},
                ]
            )
        if kind < 0.55:
            return self.document_stage()
        if kind < 0.7:
            return {"$unwind": self.unwind()}
        if kind < 0.85:
            return {"$group": self.group()}
        if kind < 0.9:
            return {"$lookup": self.joined() if self.chance(0.5) else self.lookup()}
        if kind < 0.915:
            return {"$unionWith": self.pick(["others", {"coll": "others", "pipeline": self.inner_pipeline()}])}
        if kind < 0.925:
            return self.pick([self.bucket, self.redact, self.windowed, self.curve, self.gaps])()
        if kind < 0.93:
            return {"$facet": {"x": [self.stage()], "y": [{"$count": "n"}]}}
        if self.faulty():
            return self.pick([{"$foo": 1}, {"$count": "$n"}, {"$sortByCount": "a"}])
        return self.pick([{"$count": "n"}, {"$sortByCount": self.pick(["$a", "$b.c"])}])

    def lookup(self) -> dict[str, Any]:
        """`as` is not over `localField`: mongod's analysis of what a later stage needs then loses the local value."""
        local = self.path()
        target = self.pick([name for name in ("j", "n.j", "b") if name[0] != local[0]])
        return {"from": "others", "localField": local, "foreignField": self.path(), "as": target}

    def joined(self) -> dict[str, Any]:
        """A `$lookup` by a pipeline over variables, sometimes by fields too."""
        made: dict[str, Any] = {"from": "others", "as": "j"}
        made["let"] = {"v": self.expression(1), "w": self.pick(["$a", "$b", "$c.d", "$_id", "$$ROOT"])}
        if self.chance(0.3):
            made.update(localField=self.pick(["a", "b", "c.d"]), foreignField=self.pick(["a", "b", "_id"]))
        made["pipeline"] = self.inner_pipeline("v", "w")
        return made

    def inner_pipeline(self, *variables: str, depth: int = 1) -> list[dict[str, Any]]:
        """In the order of the keys, so that the answer is one."""
        made: list[dict[str, Any]] = [{"$sort": {"_id": 1}}]
        first, second = (f"$${each}" for each in (variables or ("ROOT", "CURRENT")))
        for _ in range(self.pick([0, 1, 1, 2])):
            made.append(
                self.pick(
                    [
                        {"$match": {"$expr": {"$eq": [self.expression(1), first]}}},
                        {"$match": {"$expr": {"$eq": ["$_id", second]}}},
                        {"$match": {"$expr": {"$and": [{"$gte": ["$a", first]}, {"$ne": ["$b", second]}]}}},
                        {"$project": {"x": first, "y": f"{second}.b", "a": 1}},
                        {"$set": {"z": {"$type": first}}},
                        {"$replaceWith": {"q": first, "id": "$_id"}},
                        {"$limit": 2},
                        {"$group": {"_id": None, "n": {"$sum": 1}, "m": {"$max": first}}},
                    ]
                )
            )
        if depth and variables and self.chance(0.2):
            inner = [*self.inner_pipeline(*variables, depth=0), {"$match": {"$expr": {"$eq": ["$_id", "$$u"]}}}]
            made.append({"$lookup": {"from": "documents", "let": {"u": "$a"}, "pipeline": inner, "as": "n"}})
        return made

    def unwind(self) -> Any:
        path = "$" + self.pick(["a", "b", "a.b", "c", "c.d", "x"])
        if self.chance(0.4):
            return path
        made: dict[str, Any] = {"path": path}
        if self.chance(0.5):
            made["preserveNullAndEmptyArrays"] = 1 if self.faulty() else self.pick([True, True, False])
        if self.chance(0.4):
            made["includeArrayIndex"] = self.pick(["$i", ""]) if self.faulty() else self.pick(["i", "a.i", "n.i"])
        return made

    def group(self) -> dict[str, Any]:
        made: dict[str, Any] = {"_id": self.pick([None, "$a", "$b", {"x": "$a", "y": "$b"}, self.expression(1)])}
        for name in self.random.sample(["p", "q", "r"], self.pick([0, 1, 2])):
            accumulator = self.pick(
                ["$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet", "$count", "$mergeObjects"]
            )
            made[name] = {accumulator: {} if accumulator == "$count" else self.expression(1)}
        if self.chance(0.3):
            made["r"] = self.counted()
        return made

    def counted(self) -> dict[str, Any]:
        """An accumulator that keeps several values, or those of certain documents; or a standard deviation."""
        name = self.pick(["$firstN", "$lastN", "$maxN", "$minN", "$top", "$bottom", "$topN", "$bottomN", "$stdDevPop"])
        if name == "$stdDevPop":
            return {self.pick([name, "$stdDevSamp"]): self.pick(["$_id", {"$add": ["$_id", self.small()]}])}
        if name.startswith(("$top", "$bottom")):
            sort = self.pick([{"a": 1}, {"b": -1}, {"a": -1, "b": 1}, {"c.d": 1}, {"_id": -1}])
            made = {"sortBy": sort, "output": self.pick(["$_id", ["$a", "$_id"], "$b", "$c.d"])}
        else:
            made = {"input": self.pick(["$a", "$b", "$_id", self.expression(1)])}
        if name.endswith("N"):
            made["n"] = self.pick([0, 1.5, "x", None]) if self.faulty() else self.pick([1, 2, 3, 20])
        return {name: made}

    def bucket(self) -> dict[str, Any]:
        output = {"output": {"n": {"$sum": 1}, "i": {"$push": "$_id"}}} if self.chance(0.5) else {}
        by = self.pick(["$a", "$b", "$_id", "$c.d", {"$mod": ["$_id", 5]}])
        if self.chance(0.5):
            return {"$bucketAuto": {"groupBy": by, "buckets": self.pick([1, 2, 3, 5, 7, 30]), **output}}
        bounds = self.pick([[0, 3, 7], [0, 2.5, Int64(9)], ["a", "b"], [0, 100]])
        return {"$bucket": {"groupBy": by, "boundaries": bounds, "default": self.pick(["other", None, 100]), **output}}

    def windowed(self) -> dict[str, Any]:
        """A function over whole numbers, or a sum of doubles."""
        name = self.pick(
            [
                "$sum",
                "$avg",
                "$stdDevPop",
                "$min",
                "$push",
                "$first",
                "$last",
                "$count",
                "$rank",
                "$denseRank",
                "$shift",
            ]
        )
        ranks = name in ("$rank", "$denseRank")
        output: dict[str, Any] = {name: {} if ranks or name == "$count" else self.pick(["$_id", {"$mod": ["$_id", 3]}])}
        if name in ("$sum", "$avg", "$stdDevPop") and self.chance(0.5):
            output[name] = {"$multiply": ["$_id", 0.7]}
        if name == "$shift":
            output[name] = {"output": self.pick(["$a", "$_id"]), "by": self.pick([1, -1, 0, 3])}
        elif not ranks and self.chance(0.7):
            documents = [["unbounded", "current"], [-1, 0], [-1, 1], [0, 2], ["current", "unbounded"], [1, 3], [-5, -2]]
            ranges = [[-1, 1], ["unbounded", "current"], [-3, 0], [2, "unbounded"]]
            key, kinds = self.pick([("documents", documents), ("range", ranges)])
            output["window"] = {key: self.pick(kinds)}
        spec: dict[str, Any] = {"sortBy": {"_id": 1}, "output": {self.pick(["o", "x.y"]): output}}
        if self.chance(0.5):
            spec["partitionBy"] = self.pick(["$x", {"$mod": ["$_id", 3]}, {"$type": "$a"}])
        return {"$setWindowFields": spec}

    def curve(self) -> dict[str, Any]:
        """A window function over a curve, of whole numbers where its window slides."""
        name = self.pick(["$derivative", "$integral", "$expMovingAvg", "$locf", "$linearFill"])
        if name in ("$locf", "$linearFill"):
            made: dict[str, Any] = {name: self.pick(["$a", "$c.d", {"$cond": [{"$mod": ["$_id", 2]}, "$_id", None]}])}
        elif name == "$expMovingAvg":
            more = self.pick([{"N": 2}, {"N": 5.0}, {"alpha": 0.3}, {"alpha": Decimal128("0.25")}, {"N": 0}, {}])
            made = {name: {"input": self.pick(["$a", "$_id"]), **more}}
        else:
            made = {name: {"input": self.pick(["$_id", "$_id", "$a", {"$mod": ["$_id", 5]}])}}
            made["window"] = {"documents": self.pick([[-1, 0], ["unbounded", "current"], [1, 3], [-2, -1]])}
        return {"$setWindowFields": {"sortBy": {self.pick(["_id", "_id", "a"]): 1}, "output": {"o": made}}}

    def gaps(self) -> dict[str, Any]:
        """A `$densify` without partitions, whose order is open, or a `$fill` of one field."""
        if self.chance(0.5):
            bounds = self.pick(["full", [2, 9], [-3, 4], "partition", [3, 1]])
            return {
                "$densify": {"field": self.pick(["_id", "n.v"]), "range": {"step": self.pick([1, 2]), "bounds": bounds}}
            }
        output = self.pick([{"value": self.pick([0, "$_id", "$b"])}, {"method": "locf"}, {"method": "linear"}])
        made: dict[str, Any] = {"sortBy": {"_id": 1}, "output": {self.pick(["a", "x"]): output}}
        return {"$fill": {**made, **self.pick([{}, {}, {"partitionByFields": ["c"]}])}}

    def redact(self) -> dict[str, Any]:
        choices = ["$$DESCEND", "$$KEEP", "$$PRUNE"]
        conditions = [{"$eq": ["$a", self.small()]}, {"$eq": [{"$type": "$b"}, "missing"]}, {"$lt": ["$$ROOT._id", 7]}]
        return {"$redact": {"$cond": [self.pick(conditions), self.pick(choices), self.pick(choices)]}}

    def graph(self) -> dict[str, Any]:
        made = {"from": "others", "startWith": self.pick(["$_id", "$a", "$b", 1, [1, 2], "$x", "$c.d"]), "as": "j"}
        made["connectFromField"] = self.pick(["a", "b", "a.b", "_id"])
        made["connectToField"] = self.pick(["a", "b", "_id", "c.d"])
        if self.chance(0.4):
            made["maxDepth"] = self.pick([0, 1, 2])
        if self.chance(0.4):
            made["depthField"] = self.pick(["d", "x.y"])
        return {"$graphLookup": made}
