"""Dates as texts: the format specifiers of `$dateToString` and `$dateFromString`, and ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from shadow.errors import UnsupportedOperation
from shadow.mongoql.expressions.moments import DAY, Local, days_of, local_of
from shadow.mongoql.expressions.zones import UTC, Zone
from shadow.mongoql.values.failures import failure

__all__ = ["READABLE", "check_format", "formatted", "iso_text", "parsed_text"]

_ISO: Final = "%Y-%m-%dT%H:%M:%S.%LZ"


# -- writing ------------------------------------------------------------------------------------------------------


def _year(value: int) -> str:
    if not 0 <= value <= 9999:
        raise failure(18537, "Could not convert date to string: date component was outside the range of 0-9999")
    return f"{value:04}"


def _offset(local: Local) -> str:
    sign, minutes = "-" if local.offset < 0 else "+", abs(local.offset) // 60
    return f"{sign}{minutes // 60:02}{minutes % 60:02}"


_WRITTEN: Final[dict[str, Callable[[Local], str]]] = {
    "%": lambda local: "%",
    "d": lambda local: f"{local.day:02}",
    "G": lambda local: _year(local.iso_year),
    "H": lambda local: f"{local.hour:02}",
    "j": lambda local: f"{local.day_of_year:03}",
    "L": lambda local: f"{local.millisecond:03}",
    "m": lambda local: f"{local.month:02}",
    "M": lambda local: f"{local.minute:02}",
    "S": lambda local: f"{local.second:02}",
    "u": lambda local: str(local.iso_weekday),
    "U": lambda local: f"{local.week:02}",
    "V": lambda local: f"{local.iso_week:02}",
    "w": lambda local: str(local.weekday + 1),
    "Y": lambda local: _year(local.year),
    "z": _offset,
    "Z": lambda local: str(int(local.offset / 60)),
}


def check_format(format: str, known: str = "".join(_WRITTEN)) -> list[str]:
    """The pieces of a format: texts, and specifiers with their percent sign. Raises OperationFailure 18535 for a `%`
    at the end, 18536 for a specifier that does not exist."""
    pieces: list[str] = []
    at = 0
    while at < len(format):
        length = 2 if format[at] == "%" else 1
        piece = format[at : at + length]
        if length == 2 and len(piece) < 2:
            raise failure(18535, "Unmatched '%' at end of format string")
        if length == 2 and piece[1] not in known:
            raise failure(18536, f"Invalid format character '{piece}' in format string")
        pieces.append(piece)
        at += length
    return pieces


def formatted(moment: int, zone: Zone, format: str) -> str:
    """A moment in milliseconds since 1970 as text."""
    local = local_of(moment, zone)
    return "".join(_WRITTEN[piece[1]](local) if len(piece) == 2 else piece for piece in check_format(format))


def iso_text(moment: int) -> str:
    """A moment in milliseconds since 1970 as ISO 8601 in UTC."""
    return formatted(moment, UTC, _ISO)


# -- reading ------------------------------------------------------------------------------------------------------

_ISO_TEXT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r"(?:([Zz])|\s?([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_CONVERSION: Final = 241
_ONLY_ISO: Final = "only dates in the form of ISO 8601 are read here"


def parsed_text(name: str, text: str, zone: Zone | None = None) -> int:
    """The moment that a text in the form of ISO 8601 names, in milliseconds since 1970. Raises UnsupportedOperation
    for any other form: the server reads very many."""
    found = _ISO_TEXT.fullmatch(text)
    if found is None:
        raise UnsupportedOperation(f"{name} of a text", _ONLY_ISO)
    year, month, day, hour, minute, second = (int(found[i] or 0) for i in range(1, 7))
    away, more = int(found[10] or 0), int(found[11] or 0)
    if not 1 <= month <= 12 or not 1 <= day <= 31 or max(hour, away) > 23 or max(minute, second, more) > 59:
        raise UnsupportedOperation(f"{name} of a text", _ONLY_ISO)
    _check_day(year, month, day)
    micros = int(((found[7] or "") + "000000")[:6])
    local = (days_of(year, month, day) * DAY + (hour * 3600 + minute * 60 + second) * 1000) * 1000 + micros
    if found[8] is None and found[9] is None:
        return _whole(local) if zone is None else _whole((zone.moment(local // 1000) * 1000) + local % 1000)
    if zone is not None and zone.fixed != 0:
        raise failure(_CONVERSION, "a date string with time zone information cannot have a timezone argument")
    offset = (away * 60 + more) * 60_000_000
    return _whole(local + offset if found[9] == "-" else local - offset)


def _whole(micros: int) -> int:
    """Milliseconds, truncated towards 1970, as the server does."""
    return micros // 1000 if micros >= 0 else -(-micros // 1000)


def _check_day(year: int, month: int, day: int) -> None:
    if not 1 <= month <= 12 or not days_of(year, month, 1) <= days_of(year, month, day) < days_of(year, month + 1, 1):
        raise failure(_CONVERSION, "Error parsing date string: The parsed date was invalid")


_READ: Final = {
    "d": ("day", r"\d{1,2}+"),
    "m": ("month", r"\d{1,2}+"),
    "Y": ("year", r"\d{1,4}+"),
    "H": ("hour", r"\d{1,2}+"),
    "M": ("minute", r"\d\d"),
    "S": ("second", r"\d\d"),
    "L": ("millisecond", r"\d{1,3}+"),
    "z": ("zone", r"[+-]\d\d:?\d\d|[Zz]"),
}
"""The specifiers that are read here, with their patterns. They give back nothing that they have taken."""
READABLE: Final = "%dGHjLmMSuVYzZ"
"""All specifiers that the server reads."""


def parsed_format(text: str, format: str, zone: Zone | None = None) -> int:
    """The moment that a text names in a format, in milliseconds since 1970."""
    pattern, names = _pattern(format)
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None and "zone" in names:
        raise UnsupportedOperation("$dateFromString.format %z", "only Z and offsets in hours and minutes are read here")
    if found is None or not {"year", "month", "day"} <= set(names):
        raise failure(_CONVERSION, "Error parsing date string: it does not have the format")
    given = {name: found[name] for name in names}
    year, month, day, hour, minute, second = (
        int(given.get(name, "0")) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    if hour > 23 or minute > 59 or second > 59:
        raise failure(_CONVERSION, "Error parsing date string: The parsed time was invalid")
    _check_day(year, month, day)
    clock = (hour * 3600 + minute * 60 + second) * 1000 + int((given.get("millisecond", "") + "000")[:3])
    local = days_of(year, month, day) * DAY + clock
    if "zone" not in given:
        return local if zone is None else zone.moment(local)
    if zone is not None and zone.fixed != 0:
        raise failure(_CONVERSION, "a date string with time zone information cannot have a timezone argument")
    if given["zone"] in "Zz":
        return local
    minutes = int(given["zone"][1:3]) * 60 + int(given["zone"][-2:])
    return local + (minutes if given["zone"][0] == "-" else -minutes) * 60_000


def _pattern(format: str) -> tuple[str, list[str]]:
    pieces, pattern, names = check_format(format, READABLE), "", list[str]()
    for piece in pieces:
        if len(piece) == 1 or piece == "%%":
            pattern += re.escape(piece[0])
            continue
        if piece[1] not in _READ:
            raise UnsupportedOperation(f"$dateFromString.format {piece}", "it is not read here")
        name, digits = _READ[piece[1]]
        if name in names:
            raise UnsupportedOperation("$dateFromString.format", f"{piece} twice")
        names.append(name)
        pattern += f"(?P<{name}>{digits})"
    return pattern, names
