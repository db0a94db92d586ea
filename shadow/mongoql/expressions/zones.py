"""Time zones as the server names them: UTC, offsets, and the names of the tz database."""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from shadow.errors import UnsupportedOperation
from shadow.mongoql.values.failures import described, failure

__all__ = ["UTC", "Zone", "zone_of"]

_OFFSET: Final = re.compile(r"([+-])(\d\d)(?::?(\d\d))?", re.ASCII)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST: Final = -62_135_510_400
"""Seconds: the second day of the year 1, since Python has no dates before that year."""
_CYCLE: Final = 400 * 365 * 86_400 + 97 * 86_400
"""Seconds after which the Gregorian calendar repeats, weekdays included."""
_LAST: Final = 253_370_764_800
"""Seconds: the year 9999 begins."""


@dataclass(frozen=True, slots=True)
class Zone:
    """`fixed`: the offset from UTC in seconds, east positive, of a zone that is named by it."""

    fixed: int | None = 0
    rules: ZoneInfo | None = None

    def offset(self, moment: int) -> int:
        """The offset in seconds at a moment in milliseconds since 1970, UTC."""
        return self._at(moment // 1000)

    def _at(self, seconds: int) -> int:
        return self._known(seconds)[0]

    def _known(self, seconds: int) -> tuple[int, bool]:
        """The offset in seconds, and whether it is that of a summer time."""
        if self.rules is None:
            return self.fixed or 0, False
        if seconds >= _LAST:
            seconds = _LAST - _CYCLE + (seconds - _LAST) % _CYCLE
        local = (_EPOCH + dt.timedelta(seconds=max(seconds, _FIRST))).astimezone(self.rules)
        offset = local.utcoffset()
        assert offset is not None
        return offset // dt.timedelta(seconds=1), bool(local.dst())

    def is_summer(self, moment: int) -> bool:
        """Whether clocks show a summer time at a moment in milliseconds."""
        return self._known(moment // 1000)[1]

    def moment(self, local: int, *, summer: bool = False) -> int:
        """The moment at which clocks show `local`, both in milliseconds. Of a time that they show twice, it is the
        second, or with `summer` the first; a time that they skip counts with the offset before the change."""
        seconds = local // 1000
        current, is_summer = self._known(seconds)
        actual = self._at(seconds - current)
        if current == actual:
            other = current
            if current <= 0 and is_summer and not summer:
                other = self._at(seconds - current + 7_200)
            elif current >= 0 and summer and not is_summer:
                other = self._at(seconds - current - 7_200)
            used = other if self._at(seconds - other) == other else current
        else:
            used = current if actual > current and self._at(seconds - actual) != actual else actual
        return local - used * 1000


UTC: Final = Zone(None)


def zone_of(value: Any, code: int) -> Zone:
    """The zone that an operator was given. Raises OperationFailure with `code` for another type than text, and 40485
    for a name that does not exist."""
    if type(value) is not str:
        raise failure(code, f"timezone must evaluate to a string, found {described(value)}")
    return _zone(value)


@functools.lru_cache(maxsize=256)
def _zone(text: str) -> Zone:
    if text in ("UTC", "GMT"):
        return UTC
    found = _OFFSET.fullmatch(text)
    if found is not None:
        seconds = int(found[2]) * 3600 + int(found[3] or 0) * 60
        return Zone(seconds if found[1] == "+" else -seconds)
    if text not in _names():
        raise failure(40485, f"unrecognized time zone identifier: {text!r}")
    try:
        return Zone(None, ZoneInfo(text))
    except ZoneInfoNotFoundError as error:  # pragma: no cover - the names come from the same place
        raise UnsupportedOperation("timezone", f"no rules for {text}") from error


@functools.cache
def _names() -> frozenset[str]:
    """The names of the tz database of this host. Raises UnsupportedOperation if there is none."""
    names = available_timezones() - {"localtime"}
    if not names:
        raise UnsupportedOperation("timezone", "this host has no tz database; install the package tzdata")
    return frozenset(names)
