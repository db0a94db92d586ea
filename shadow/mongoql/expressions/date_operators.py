"""The expression operators over dates: their parts, their texts, and arithmetic in a time zone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bson import Int64
from pymongo.errors import OperationFailure

from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.date_texts import READABLE, check_format, formatted, parsed_format, parsed_text
from shadow.mongoql.expressions.moments import DAY, Local, date_of, days_of, local_of, moment_of
from shadow.mongoql.expressions.named import ABSENT, Compile, Evaluate, Names, named
from shadow.mongoql.expressions.zones import UTC, Zone, zone_of
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truncated

__all__ = ["DATE_OPERATORS", "DATE_PARTS", "LENGTHS", "UNITS", "shifted"]

_CONVERSION: Final = 241


def _zone(value: Any, code: int = 40517) -> Zone:
    """The zone of an argument that is not null; UTC without one."""
    return UTC if value is ABSENT else zone_of(value, code)


# -- parts --------------------------------------------------------------------------------------------------------

DATE_PARTS: Final[dict[str, Callable[[Local], Any]]] = {
    "$year": lambda local: local.year,
    "$month": lambda local: local.month,
    "$dayOfMonth": lambda local: local.day,
    "$hour": lambda local: local.hour,
    "$minute": lambda local: local.minute,
    "$second": lambda local: local.second,
    "$millisecond": lambda local: local.millisecond,
    "$dayOfWeek": lambda local: local.weekday + 1,
    "$dayOfYear": lambda local: local.day_of_year,
    "$week": lambda local: local.week,
    "$isoWeek": lambda local: local.iso_week,
    "$isoWeekYear": lambda local: Int64(local.iso_year),
    "$isoDayOfWeek": lambda local: local.iso_weekday,
}
"""The operators that take a date, or an object of `date` and `timezone`."""


def _part(name: str) -> Callable[[Any, Compile], Evaluate]:
    take = DATE_PARTS[name]

    def compiled(operand: Any, compile: Compile) -> Evaluate:
        given = _date_and_zone(name, operand)
        parts = [compile(value) for value in given]

        def evaluate(document: Any, variables: Mapping[str, Any]) -> Any:
            values = [part(document, variables) for part in parts]
            if any(nullish(value) for value in values):
                return None
            moment = moment_of(values[0])
            return take(local_of(moment, zone_of(values[1], 40533) if len(values) > 1 else UTC))

        return evaluate

    return compiled


def _date_and_zone(name: str, operand: Any) -> list[Any]:
    """The arguments of a date part: the date, and the time zone if there is one."""
    if type(operand) is list:
        if len(operand) != 1:
            raise failure(40536, f"{name} accepts exactly one argument if given an array, but was given {len(operand)}")
        return operand
    if type(operand) is not dict or next(iter(operand), "").startswith("$"):
        return [operand]
    for field in operand:
        if field not in ("date", "timezone"):
            raise failure(40535, f"unrecognized option to {name}: {field!r}")
    if "date" not in operand:
        raise failure(40539, f"missing 'date' argument to {name}")
    return [operand[field] for field in ("date", "timezone") if field in operand]


def _to_parts(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    zone, iso = given["timezone"], given["iso8601"]
    if nullish(zone) or nullish(iso):
        return None
    if type(iso) is not bool:
        raise failure(40521, f"iso8601 must evaluate to a bool, found {described(iso)}")
    found = _zone(zone)
    if nullish(given["date"]):
        return None
    local = local_of(moment_of(given["date"]), found)
    if iso:
        day = {"isoWeekYear": local.iso_year, "isoWeek": local.iso_week, "isoDayOfWeek": local.iso_weekday}
    else:
        day = {"year": local.year, "month": local.month, "day": local.day}
    clock = {"hour": local.hour, "minute": local.minute, "second": local.second, "millisecond": local.millisecond}
    return {**day, **clock}


_NATURAL: Final = {"year": 1970, "month": 1, "day": 1}
_ISO: Final = {"isoWeekYear": 1970, "isoWeek": 1, "isoDayOfWeek": 1}
_CLOCK: Final = {"hour": 0, "minute": 0, "second": 0, "millisecond": 0}


def _from_parts(operand: Any, compile: Compile) -> Evaluate:
    iso = type(operand) is dict and "isoWeekYear" in operand
    calendar = _ISO if iso else _NATURAL
    defaults = {**_NATURAL, **_ISO, **_CLOCK}
    names = Names({}, (*defaults, "timezone"), 40519, 40518, defaults)
    evaluate = named("$dateFromParts", names, operand, compile, lambda d, v, given: _moment(given, calendar))
    if not iso and "year" not in operand:
        raise failure(40516, "$dateFromParts requires either 'year' or 'isoWeekYear' to be present")
    if any(name in operand for name in (_NATURAL if iso else _ISO)):
        raise failure(40525 if iso else 40489, "$dateFromParts does not allow mixing natural dates with ISO dates")
    return evaluate


def _moment(given: Mapping[str, Any], calendar: Mapping[str, int]) -> Any:
    found: dict[str, int] = {}
    zone = given["timezone"]
    first, *others = calendar
    for name in (*calendar, *_CLOCK):
        if nullish(given[name]):
            return None
        found[name] = _part_of(name, given[name])
        if name == first and not 1 <= found[name] <= 9999:
            code = 40523 if name == "year" else 31095
            raise failure(code, f"'{name}' must evaluate to an integer in the range 1 to 9999")
        if name in (*others, "hour", "minute") and not -32_768 <= found[name] <= 32_767:
            raise failure(31034, f"'{name}' must evaluate to a value in the range [-32768, 32767]")
    if nullish(zone):
        return None
    where = _zone(zone)
    year, second, third = (found[name] for name in calendar)
    if "year" in calendar:
        days = days_of(year, second, 1) + third - 1
    else:
        fourth = days_of(year, 1, 4)
        days = fourth - (fourth + 3) % 7 + (second - 1) * 7 + third - 1
    clock = (found["hour"] * 3600 + found["minute"] * 60 + found["second"]) * 1000 + found["millisecond"]
    return date_of(where.moment(days * DAY + clock))


def _part_of(name: str, value: Any) -> int:
    whole = truncated(value) if is_number(value) else None
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT64:
        raise failure(40515, f"'{name}' must evaluate to an integer, found {described(value)}")
    return whole


# -- texts --------------------------------------------------------------------------------------------------------


def _to_string(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    format, zone = given["format"], given["timezone"]
    if format is not ABSENT and not nullish(format) and type(format) is not str:
        raise failure(18533, f"$dateToString requires that 'format' be a string, found: {described(format)}")
    if type(format) is str:
        check_format(format)
    if nullish(zone):
        return None
    where = _zone(zone)
    if nullish(given["date"]):
        return given["onNull"]
    if nullish(format):
        return None
    return formatted(moment_of(given["date"]), where, format)


def _from_string(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    text, format, zone = given["dateString"], given["format"], given["timezone"]
    if format is not ABSENT and not nullish(format) and type(format) is not str:
        raise failure(40684, f"$dateFromString requires that 'format' be a string, found: {described(format)}")
    if type(format) is str:
        check_format(format, READABLE)
    where = None if zone is ABSENT or nullish(zone) else zone_of(zone, 40517)
    if nullish(text):
        return given["onNull"]
    try:
        if type(text) is not str:
            raise failure(_CONVERSION, f"$dateFromString requires that 'dateString' be a string: {described(text)}")
        if nullish(zone) or nullish(format):
            return None
        if format is ABSENT:
            return date_of(parsed_text("$dateFromString", text, where))
        return date_of(parsed_format(text, format, where))
    except OperationFailure as error:
        if error.code != _CONVERSION or given["onError"] is _RAISE:
            raise
        return given["onError"]


_RAISE: Final = object()

# -- arithmetic ---------------------------------------------------------------------------------------------------

_MONTHS: Final = {"year": 12, "quarter": 3, "month": 1}
LENGTHS: Final = {
    "week": 7 * DAY,
    "day": DAY,
    "hour": 3_600_000,
    "minute": 60_000,
    "second": 1_000,
    "millisecond": 1,
}
_ADDING: Final = ("$dateAdd", "$dateSubtract")
UNITS: Final = (*_MONTHS, *LENGTHS)
_WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


def _unit(name: str, value: Any) -> str:
    if type(value) is not str:
        raise failure(
            5166404 if name in _ADDING else 5439013,
            f"{name} requires 'unit' to be a string, but got {described(value)}",
        )
    if value not in UNITS:
        raise failure(9 if name in _ADDING else 5439014, f"{name}: unknown time unit value: {value}")
    return value


def _week_start(name: str, value: Any) -> int:
    """0 for Sunday to 6 for Saturday."""
    if type(value) is not str:
        raise failure(5439015, f"{name} requires 'startOfWeek' to be a string, but got {described(value)}")
    day = value.lower()
    short = [each for each in _WEEKDAYS if each == day or each[:3] == day]
    if not short:
        raise failure(5439016, f"{name}: unknown day of week value: {value}")
    return _WEEKDAYS.index(short[0])


def shifted(moment: int, unit: str, amount: int, zone: Zone) -> int:
    """A moment later by a number of units; days and longer are counted on the local calendar."""
    if moment < 0 and moment % 1000 and unit != "millisecond":
        # Of a moment before 1970 that is between two seconds, the server goes back to the earlier one twice.
        return shifted(moment - moment % 1000, unit, amount, zone) + moment % 1000 - 1000
    if unit in LENGTHS and LENGTHS[unit] < DAY:
        return moment + amount * LENGTHS[unit]
    local, summer = local_of(moment, zone), zone.is_summer(moment)
    clock = (moment + local.offset * 1000) % DAY
    if unit in LENGTHS:
        return zone.moment((local.days + amount * LENGTHS[unit] // DAY) * DAY + clock, summer=summer)
    months = local.year * 12 + local.month - 1 + amount * _MONTHS[unit]
    first = days_of(months // 12, months % 12 + 1, 1)
    last = days_of(months // 12, months % 12 + 2, 1) - first
    return zone.moment((first + min(local.day, last) - 1) * DAY + clock, summer=summer)


def _added(name: str, sign: int) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    def call(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
        start, unit, amount, zone = (given[each] for each in ("startDate", "unit", "amount", "timezone"))
        if nullish(start) or nullish(unit) or nullish(amount) or nullish(zone):
            return None
        where = _zone(zone)
        moment = moment_of(start, 5166403)
        length = _unit(name, unit)
        if not is_number(amount) or (whole := truncated(amount)) is None or numbers.decimal_of(amount) != whole:
            raise failure(5166405, f"{name} expects integer amount of time units")
        return date_of(shifted(moment, length, sign * whole, where))

    return call


def _difference(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    values = [given[each] for each in ("startDate", "endDate", "unit")]
    if any(map(nullish, (*values, given["timezone"]))):
        return None
    zone = _zone(given["timezone"])
    start, end = moment_of(given["startDate"], 5166307), moment_of(given["endDate"], 5166307)
    unit = _unit("$dateDiff", given["unit"])
    week_start = 0
    if unit == "week" and given["startOfWeek"] is not ABSENT:
        if nullish(given["startOfWeek"]):
            return None
        week_start = _week_start("$dateDiff", given["startOfWeek"])
    return Int64(_between(start, end, unit, zone, week_start))


def _between(start: int, end: int, unit: str, zone: Zone, week_start: int) -> int:
    """How many boundaries of a unit lie between two moments."""
    one, other = local_of(start, zone), local_of(end, zone)
    if unit in _MONTHS:
        months = [(each.year * 12 + each.month - 1) // _MONTHS[unit] for each in (one, other)]
        return months[1] - months[0]
    if unit == "day":
        return other.days - one.days
    if unit == "week":
        return (other.days + 4 - week_start) // 7 - (one.days + 4 - week_start) // 7
    if unit == "millisecond":
        return end - start
    length = LENGTHS[unit]
    local = [(moment + each.offset * 1000) // length for moment, each in ((start, one), (end, other))]
    return local[1] - local[0] + int((one.offset - other.offset) * 1000 / length)


_REFERENCE: Final = days_of(2000, 1, 1)


def _truncated(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
    zone, size, start = given["timezone"], given["binSize"], given["startOfWeek"]
    if nullish(given["date"]) or nullish(given["unit"]) or nullish(size) or nullish(zone):
        return None
    where = _zone(zone)
    moment = moment_of(given["date"], 5439012)
    unit = _unit("$dateTrunc", given["unit"])
    bins = 1 if size is ABSENT else _bin_size(size)
    week_start = 0
    if unit == "week" and start is not ABSENT:
        if nullish(start):
            return None
        week_start = _week_start("$dateTrunc", start)
    return date_of(_floor(moment, unit, bins, where, week_start))


def _bin_size(value: Any) -> int:
    whole = truncated(value) if is_number(value) else None
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT64:
        raise failure(5439017, "$dateTrunc requires 'binSize' to be a 64-bit integer")
    if whole <= 0:
        raise failure(5439018, "$dateTrunc requires 'binSize' to be greater than 0")
    return whole


def _floor(moment: int, unit: str, bins: int, zone: Zone, week_start: int) -> int:
    """The start of the bin of a moment. Bins are counted from 2000-01-01 of the zone, those of weeks from the first
    week that begins then or later."""
    if unit in _MONTHS:
        local = local_of(moment, zone)
        size = bins * _MONTHS[unit]
        months = local.year * 12 + local.month - 1
        months -= (months - 24_000) % size
        summer = zone.is_summer(zone.moment(_REFERENCE * DAY))
        return zone.moment(days_of(months // 12, months % 12 + 1, 1) * DAY, summer=summer)
    reference = zone.moment(_REFERENCE * DAY)
    if LENGTHS[unit] >= DAY:
        days = _REFERENCE + ((week_start - (_REFERENCE + 4)) % 7 if unit == "week" else 0)
        local = local_of(moment, zone)
        start = local.days - (local.days - days) % (bins * LENGTHS[unit] // DAY)
        return zone.moment(start * DAY, summer=zone.is_summer(reference))
    return moment - (moment - reference) % (bins * LENGTHS[unit])


def _of(name: str, names: Names, call: Callable[..., Any]) -> Callable[[Any, Compile], Evaluate]:
    return lambda operand, compile: named(name, names, operand, compile, call)


def _adding(name: str, sign: int) -> Callable[[Any, Compile], Evaluate]:
    needed = dict.fromkeys(("startDate", "unit", "amount"), 5166402)
    return _of(name, Names(needed, ("timezone",), 5166400, 5166401), _added(name, sign))


_DIFFERENCE: Final = {"startDate": 5166303, "endDate": 5166304, "unit": 5166305}

DATE_OPERATORS: Final[dict[str, Callable[[Any, Compile], Evaluate]]] = {
    **{name: _part(name) for name in DATE_PARTS},
    "$dateToParts": _of(
        "$dateToParts", Names({"date": 40522}, ("timezone", "iso8601"), 40524, 40520, {"iso8601": False}), _to_parts
    ),
    "$dateFromParts": _from_parts,
    "$dateToString": _of(
        "$dateToString",
        Names(
            {"date": 18628},
            ("format", "timezone", "onNull"),
            18629,
            18534,
            {"format": "%Y-%m-%dT%H:%M:%S.%LZ", "onNull": None},
        ),
        _to_string,
    ),
    "$dateFromString": _of(
        "$dateFromString",
        Names(
            {"dateString": 40542},
            ("format", "timezone", "onNull", "onError"),
            40540,
            40541,
            {"onNull": None, "onError": _RAISE},
        ),
        _from_string,
    ),
    "$dateAdd": _adding("$dateAdd", 1),
    "$dateSubtract": _adding("$dateSubtract", -1),
    "$dateDiff": _of("$dateDiff", Names(_DIFFERENCE, ("timezone", "startOfWeek"), 5166301, 5166302), _difference),
    "$dateTrunc": _of(
        "$dateTrunc",
        Names({"date": 5439009, "unit": 5439010}, ("binSize", "timezone", "startOfWeek"), 5439007, 5439008),
        _truncated,
    ),
}
