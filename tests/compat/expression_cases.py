"""What the generators of the differential tests hand to the operators over numbers, texts, dates and lists.

Values are awkward on purpose: the edges of 32 and 64 bits, halves, NaN, infinities, decimals; texts that look like
numbers; dates before 1970 and far ahead, and those at which clocks change.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId, Regex, Timestamp

if TYPE_CHECKING:
    from tests.compat.generators import Generator

__all__ = ["EXPRESSIONS"]

ODD: Final = [None, "$a", "$x", True, "", "x", [], [1], {"$literal": {}}, ObjectId("5f" + "0" * 22), 5]
NUMBERS: Final = [
    0, 1, -1, 2, 3, 7, -8, 10, 15, 25, 35, -15, 123456, 2**31 - 1, -(2**31), Int64(0), Int64(2), Int64(2**31),
    Int64(2**53 + 1), Int64(2**63 - 1), Int64(-(2**63)), 0.0, -0.0, 0.5, 1.5, 2.5, -2.5, 0.1, 2.675, 1.005, 1234.5678,
    0.3, 1e-7, 1e15, 123456789.125, 1e21, 1e300, -1e300, 5e-324, 9.3e18, 2147483647.5, float("nan"), float("inf"),
    float("-inf"),
]  # fmt: skip
DECIMALS: Final = [
    Decimal128(text)
    for text in (
        "0", "-0", "1", "2.5", "3.5", "-2.50", "0.1", "1E+3", "1E-7", "123456.789", "9223372036854775807.5",
        "9223372036854775808", "2147483647.9", "NaN", "Infinity", "-Infinity", "1E+400", "1E-400", "0E+3", "1.005",
    )
]  # fmt: skip
TEXT_NUMBERS: Final = [
    "1", "-1", "+5", " 1", "1 ", "0x10", "-0x1F", "1.5", "1.", ".5", "1e3", "1E-7", "1e400", "1e-400", "inf", "NaN",
    "-Infinity", "nan(1)", "1_0", "2147483648", "9223372036854775808", "-9223372036854775808", "010", "", "-", "abc",
    "true", "1E+6144", "1E-6177", "12345678901234567890123456789012345678", "5f0000000000000000000001", "5F" * 12,
    "5f000000000000000000000g", "0.1", "1e",
]  # fmt: skip
DATES: Final = [
    dt.datetime(1970, 1, 1), dt.datetime(2024, 2, 29, 12, 30, 15, 123000), dt.datetime(1960, 5, 5, 1, 2, 3, 4000),
    dt.datetime(2023, 12, 31, 23, 59, 59, 999000), dt.datetime(2021, 1, 3), dt.datetime(2020, 12, 28),
    dt.datetime(2024, 3, 10, 6, 59), dt.datetime(2024, 3, 10, 7), dt.datetime(2024, 11, 3, 5, 30),
    dt.datetime(2024, 11, 3, 6, 30), dt.datetime(2024, 3, 31, 0, 59), dt.datetime(2024, 3, 31, 1, 30),
    dt.datetime(2024, 10, 27, 0, 30), dt.datetime(2024, 10, 27, 1, 30), dt.datetime(1969, 12, 31, 23, 59, 59, 1000),
    dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999000), dt.datetime(2100, 2, 28, 12),
    dt.datetime(1900, 1, 1), dt.datetime(2000, 1, 1), dt.datetime(1999, 12, 31), dt.datetime(2016, 1, 31, 10),
    dt.datetime(2045, 7, 1, 4, 5, 6), dt.datetime(2038, 1, 19, 3, 14, 8), dt.datetime(1582, 10, 10),
]  # fmt: skip
FAR: Final = [DatetimeMS(-(2**62)), DatetimeMS(253402300800000), DatetimeMS(-62167219200001)]
ZONES: Final = [
    "UTC", "GMT", "+00:00", "-05:30", "+0530", "+14", "-1145", "America/New_York", "Europe/Berlin", "Asia/Kolkata",
    "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Europe/London", "America/Sao_Paulo", "Etc/GMT+5",
]  # fmt: skip
"""Zones whose rules no tz database of the last years has changed."""
BAD_ZONES: Final = ["Nowhere", "utc", "+5", "", 5, None, "$x", "PST"]
UNITS: Final = ["year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond"]
WORDS: Final = ["", "a", " a b ", "abcabc", "é日本é", "Ab-aB", "\u2003x\t", "aaa", "a.b.c", "ß", "x\ny", "AbC", "日本"]
PATTERNS: Final = ["a", "^a", "b$", "(a)(b)?", "[ab]+", "a*", "", ".", "(?i)A", "é", "x|(b)", r"\d", "a.c", "(", "A"]
FORMATS: Final = [
    "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S.%LZ", "%d/%m/%Y %H:%M", "%G-W%V-%u", "%j %U %w", "%z %Z %%", "é %Y", "%H%M", "",
]  # fmt: skip
ISO_TEXTS: Final = [
    "2024-02-29", "2024-02-30", "2023-02-29T10:11:12", "2024-02-29T10:11:12.123Z", "2024-02-29T10:11:12.5+05:30",
    "1969-12-31T23:59:59.9999", "2024-02-29 10:11", "2024-03-10T02:30:00", "2024-11-03T01:30:00",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2024-02-29T10:11:12-0800", "2024-02-29T10:11:12 +01",
]  # fmt: skip

Draw = Callable[["Generator", int], Any]


def number(g: Generator, d: int) -> Any:
    if g.chance(0.12):
        return g.pick([*ODD, g.expression(d)])
    return g.pick([*NUMBERS, g.number()])


def any_number(g: Generator, d: int) -> Any:
    return g.pick(DECIMALS) if g.chance(0.3) else number(g, d)


def text(g: Generator, d: int) -> Any:
    if g.chance(0.12):
        return g.pick([*ODD, g.expression(d)])
    return {"$literal": g.pick(WORDS)} if g.chance(0.8) else g.pick([5, 1.5, Decimal128("1E+3"), DATES[1], "$a", "$b"])


def word(g: Generator, d: int) -> Any:
    return g.pick(ODD) if g.chance(0.07) else {"$literal": g.pick(WORDS)}


def date(g: Generator, d: int) -> Any:
    if g.chance(0.12):
        return g.pick([*ODD, g.expression(d), Timestamp(4_000, 1), ObjectId("ff" + "0" * 22), g.pick(FAR)])
    return g.pick(DATES)


def convertible(g: Generator, d: int) -> Any:
    kind = g.random.random()
    if kind < 0.3:
        return {"$literal": g.pick(TEXT_NUMBERS)}
    if kind < 0.6:
        return any_number(g, d)
    if kind < 0.75:
        return g.pick(DATES + FAR)
    return g.pick([*ODD, False, Binary(b"a"), Regex("a"), Code("x"), Timestamp(4, 1), g.expression(d)])


def zoned(g: Generator, made: dict[str, Any]) -> dict[str, Any]:
    if g.chance(0.6):
        made["timezone"] = g.pick(BAD_ZONES) if g.chance(0.06) else g.pick(ZONES)
    return made


def part(g: Generator, d: int) -> Any:
    return g.pick([date(g, d), [date(g, d)], zoned(g, {"date": date(g, d)})])


def list_of(g: Generator, d: int) -> Any:
    if g.chance(0.15):
        return g.pick([*ODD, g.arrayish(d)])
    return [
        g.pick([1, 2, 1.0, "$a", "$b", None, "x", "$x", {"k": g.small()}, [1]]) for _ in range(g.pick([0, 1, 2, 3]))
    ]


def _convert(g: Generator, d: int) -> Any:
    made: dict[str, Any] = {"input": convertible(g, d)}
    names = ["int", "long", "double", "decimal", "string", "bool", "date", "objectId", 1, 2, 7, 8, 9, 16, 18, 19.0]
    made["to"] = g.pick([None, "nope", "array", 3, 99, 1.5, "$x", True]) if g.chance(0.12) else g.pick(names)
    if g.chance(0.4):
        made["onError"] = g.pick(["failed", "$a", None, "$x"])
    if g.chance(0.3):
        made["onNull"] = g.pick(["none", "$a", "$x"])
    return made


def _to_string(g: Generator, d: int) -> Any:
    made = zoned(g, {"date": date(g, d)})
    if g.chance(0.7):
        made["format"] = g.pick([5, None, "%q", "%", "$x"]) if g.chance(0.08) else g.pick(FORMATS)
    if g.chance(0.2):
        made["onNull"] = g.pick(["none", "$x"])
    return made


def _from_string(g: Generator, d: int) -> Any:
    made = zoned(g, {"dateString": g.pick([5, None, "$x", True]) if g.chance(0.1) else g.pick(ISO_TEXTS)})
    if g.chance(0.2):
        made["onNull"] = "none"
    if g.chance(0.3):
        made["onError"] = g.pick(["failed", "$x"])
    if g.chance(0.4):
        texts = ["2024-02-29", "2023-2-9", "2024-13-01", "29/02/2024 10:11", "2024-02-29T10:11:12.123+0530", "24-02-29"]
        formats = ["%Y-%m-%d", "%d/%m/%Y %H:%M", "%Y-%m-%dT%H:%M:%S.%L%z", "%Y-%m", "%q"]
        made.update(dateString=g.pick(texts), format=g.pick(formats))
    return made


def _from_parts(g: Generator, d: int) -> Any:
    iso = g.chance(0.3)
    made: dict[str, Any] = {"isoWeekYear" if iso else "year": g.pick([2024, 2021, 1969, 1, 9999, 2000.0, Int64(1600)])}
    for name in ("isoWeek", "isoDayOfWeek") if iso else ("month", "day"):
        if g.chance(0.6):
            made[name] = g.pick([1, 2, 7, 12, 31, 0, -5, 60, 400, 32768])
    for name in ("hour", "minute", "second", "millisecond"):
        if g.chance(0.4):
            made[name] = g.pick([0, 1, 2, 23, 24, 59, 60, -1, 100_000, 999, 2])
    if g.chance(0.06):
        made[g.pick(list(made))] = g.pick([None, "x", 1.5, "$x", 10_000, float("nan")])
    return zoned(g, made)


def _added(g: Generator, d: int) -> Any:
    amount = g.pick([None, "x", 1.5, "$x"]) if g.chance(0.06) else g.pick([0, 1, -1, 5, 13, -25, 100, Int64(7), 2.0])
    return zoned(g, {"startDate": date(g, d), "unit": _unit(g), "amount": amount})


def _unit(g: Generator) -> Any:
    return g.pick([None, 5, "years", "", "$x"]) if g.chance(0.05) else g.pick(UNITS)


def _difference(g: Generator, d: int) -> Any:
    made = zoned(g, {"startDate": date(g, d), "endDate": date(g, d), "unit": _unit(g)})
    if g.chance(0.3):
        made["startOfWeek"] = g.pick(
            ["monday", "Sun", "FRIDAY", "nope", 5, None] if g.chance(0.2) else ["monday", "sat"]
        )
    return made


def _truncated(g: Generator, d: int) -> Any:
    made = zoned(g, {"date": date(g, d), "unit": _unit(g)})
    if g.chance(0.5):
        made["binSize"] = g.pick([0, -1, 1.5, "x", None]) if g.chance(0.06) else g.pick([1, 2, 3, 5, 7, 10, 24, 2.0])
    if g.chance(0.3):
        made["startOfWeek"] = g.pick(["monday", "tue", "Sunday", "nope", None] if g.chance(0.2) else ["monday", "sat"])
    return made


def _regex(g: Generator, d: int) -> Any:
    made: dict[str, Any] = {"input": word(g, d), "regex": g.pick(PATTERNS) if g.chance(0.9) else Regex("b", 2)}
    if g.chance(0.3):
        made["options"] = g.pick(["i", "", "x", "s", None, 5, "q"] if g.chance(0.2) else ["i", "m", "s"])
    return made


def _trimmed(g: Generator, d: int) -> Any:
    made: dict[str, Any] = {"input": word(g, d)}
    if g.chance(0.5):
        made["chars"] = g.pick(["a", " ", "ab", "é", "\t\u2003", {"$literal": ""}, None, 5])
    return made


def _sorted(g: Generator, d: int) -> Any:
    ways = [1, -1, 1, -1, 1.0, {"k": 1}, {"k": -1, "b": 1}, {"a.b": 1}]
    return {"input": list_of(g, d), "sortBy": g.pick([2, {}, "x", {"k": 2}, None]) if g.chance(0.05) else g.pick(ways)}


def _zipped(g: Generator, d: int) -> Any:
    made: dict[str, Any] = {"inputs": [list_of(g, d) for _ in range(g.pick([1, 2, 2, 3]))]}
    if g.chance(0.5):
        made["useLongestLength"] = True
        if g.chance(0.5):
            made["defaults"] = [g.pick([0, "$a", "$x"]) for _ in made["inputs"]]
    return made


def _picked(g: Generator, d: int) -> Any:
    return {
        "n": g.pick([0, -1, 1.5, "x", None, "$x"]) if g.chance(0.06) else g.pick([1, 2, 3, 2.0]),
        "input": list_of(g, d),
    }


_ANGLES: Final = (
    "$sin",
    "$cos",
    "$tan",
    "$asin",
    "$acos",
    "$atan",
    "$sinh",
    "$cosh",
    "$tanh",
    "$asinh",
    "$acosh",
    "$atanh",
)
_PARTS: Final = ("$week", "$isoWeek", "$isoWeekYear", "$isoDayOfWeek", "$year", "$month", "$dayOfMonth", "$hour")
_MORE_PARTS: Final = ("$minute", "$second", "$millisecond", "$dayOfWeek", "$dayOfYear")
_CONVERSIONS: Final = ("$toInt", "$toLong", "$toDouble", "$toDecimal", "$toString", "$toBool", "$toDate", "$toObjectId")

EXPRESSIONS: Final[dict[str, Draw]] = {
    **dict.fromkeys(_CONVERSIONS, convertible),
    "$convert": _convert,
    **dict.fromkeys(
        ("$round", "$trunc"),
        lambda g, d: [
            any_number(g, d),
            g.pick([101, 1.5, "x", None, "$x"]) if g.chance(0.05) else g.pick([0, 1, 2, -1, -3, 20]),
        ],
    ),
    "$sqrt": any_number,
    **dict.fromkeys(("$exp", "$ln", "$log10", "$degreesToRadians", "$radiansToDegrees", *_ANGLES), number),
    "$atan2": lambda g, d: [number(g, d), number(g, d)],
    "$log": lambda g, d: [number(g, d), number(g, d)],
    "$pow": lambda g, d: [number(g, d), g.pick([number(g, d), 2, 3, -1, 0, 0.5, 63, Int64(31)])],
    **dict.fromkeys(("$stdDevPop", "$stdDevSamp"), lambda g, d: [[number(g, d) for _ in range(g.pick([0, 1, 2, 4]))]]),
    **dict.fromkeys(("$trim", "$ltrim", "$rtrim"), _trimmed),
    **dict.fromkeys(
        ("$replaceOne", "$replaceAll"),
        lambda g, d: {"input": word(g, d), "find": word(g, d), "replacement": word(g, d)},
    ),
    **dict.fromkeys(("$regexMatch", "$regexFind", "$regexFindAll"), _regex),
    "$strcasecmp": lambda g, d: [text(g, d), text(g, d)],
    **dict.fromkeys(("$toUpper", "$toLower"), text),
    **dict.fromkeys(
        ("$substr", "$substrBytes", "$substrCP"),
        lambda g, d: [text(g, d), g.pick([0, 1, 2, 3, 1.7, Int64(1), -1, 50]), g.pick([0, 1, 2, 4, -1, 2.9, Int64(2)])],
    ),
    **dict.fromkeys(
        ("$indexOfBytes", "$indexOfCP"),
        lambda g, d: [
            word(g, d),
            word(g, d),
            *g.pick([[], [], [g.pick([0, 1, 3, 9])], [0, g.pick([1, 2, 9])], [-1], [1.5]]),
        ],
    ),
    "$binarySize": lambda g, d: g.pick([word(g, d), Binary(b"abc", 0), Binary(b"abc", 2), b"", "$a"]),
    "$bsonSize": lambda g, d: g.pick(["$a", "$$ROOT", {"k": "$b"}, None, 5]),
    **dict.fromkeys(_PARTS + _MORE_PARTS, part),
    "$dateToString": _to_string,
    "$dateFromString": _from_string,
    "$dateToParts": lambda g, d: zoned(
        g, {"date": date(g, d), **({"iso8601": g.pick([True, False])} if g.chance(0.4) else {})}
    ),
    "$dateFromParts": _from_parts,
    **dict.fromkeys(("$dateAdd", "$dateSubtract"), _added),
    "$dateDiff": _difference,
    "$dateTrunc": _truncated,
    "$zip": _zipped,
    "$sortArray": _sorted,
    **dict.fromkeys(("$firstN", "$lastN", "$maxN", "$minN"), _picked),
    "$setField": lambda g, d: {
        "field": g.pick(["a", "x.y"]),
        "input": g.pick(["$$ROOT", "$a", None]),
        "value": g.expression(d),
    },
    "$unsetField": lambda g, d: {"field": g.pick(["a", "x.y"]), "input": g.pick(["$$ROOT", "$a", None])},
    "$tsSecond": lambda g, d: g.pick([Timestamp(5, 6), None, 5, "$x"]),
    "$tsIncrement": lambda g, d: g.pick([Timestamp(5, 6), None, 5, "$x"]),
}
"""Name of an operator to a function that draws its operand, from the generator and the depth that is left."""
