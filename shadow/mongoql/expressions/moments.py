"""Dates as whole numbers: the proleptic Gregorian calendar over any range, in milliseconds since 1970.

Python's `datetime` ends at the years 1 and 9999; BSON dates do not.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from bson import DatetimeMS, ObjectId, Timestamp

from shadow.model.order import millis
from shadow.mongoql.expressions.zones import Zone
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure

__all__ = ["DAY", "Local", "civil", "date_of", "days_of", "is_date", "local_of", "moment_of"]

DAY: Final = 86_400_000
"""Milliseconds."""
_HOUR: Final = 3_600_000
_MINUTE: Final = 60_000


def is_date(value: Any) -> bool:
    return type(value) in (dt.datetime, DatetimeMS)


def date_of(moment: int) -> Any:
    """The date at a number of milliseconds, as Python's type if it is in range."""
    if moment not in numbers.INT64:
        raise failure(15, "date overflow")
    try:
        return dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=moment)
    except OverflowError:
        return DatetimeMS(moment)


def days_of(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date. `month` may be out of 1 to 12, `day` out of the month."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    # Years that begin in March have the leap day at their end.
    shifted = year - (month <= 2)
    era_day = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + era_day - 719_468


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, day


@dataclass(frozen=True, slots=True)
class Local:
    """What a calendar and a clock of a zone show. `days`: since 1970, local; `offset`: seconds east of UTC."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    millisecond: int
    days: int
    offset: int

    @property
    def day_of_year(self) -> int:
        return self.days - days_of(self.year, 1, 1) + 1

    @property
    def weekday(self) -> int:
        """0 for Sunday to 6 for Saturday."""
        return (self.days + 4) % 7

    @property
    def iso_weekday(self) -> int:
        """1 for Monday to 7 for Sunday."""
        return (self.weekday + 6) % 7 + 1

    @property
    def week(self) -> int:
        """Weeks begin on Sundays; the days before the first one are week 0."""
        return (self.day_of_year - 1 + 7 - self.weekday) // 7

    @property
    def iso_year(self) -> int:
        return civil(self.days - self.iso_weekday + 4)[0]

    @property
    def iso_week(self) -> int:
        thursday = self.days - self.iso_weekday + 4
        return (thursday - days_of(self.iso_year, 1, 1)) // 7 + 1


def local_of(moment: int, zone: Zone) -> Local:
    """What clocks of a zone show at a moment in milliseconds since 1970."""
    offset = zone.offset(moment)
    days, rest = divmod(moment + offset * 1000, DAY)
    year, month, day = civil(days)
    return Local(
        year,
        month,
        day,
        rest // _HOUR,
        rest // _MINUTE % 60,
        rest // 1000 % 60,
        rest % 1000,
        days,
        offset,
    )


def moment_of(value: Any, code: int = 16006) -> int:
    """A date, the time of an ObjectId or that of a timestamp, in milliseconds since 1970. Raises OperationFailure with
    `code` for any other type."""
    if type(value) is ObjectId:
        return int.from_bytes(value.binary[:4], "big", signed=True) * 1000
    if type(value) is Timestamp:
        return value.time * 1000
    if is_date(value):
        return millis(value)
    raise failure(code, f"can't convert from BSON type {described(value)} to Date")
