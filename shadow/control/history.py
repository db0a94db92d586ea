"""What the processes of a fleet have compared, by hour: a record for each process and hour, kept for some days.

    history/<hour since the epoch>/<writer>    the counts of one process by collection

The counts in a record are those of the whole hour, so a record that is written twice is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shadow.control.records import Records
from shadow.model.compared import Compared, together

__all__ = ["DAYS", "compared_by_hour", "forget_before", "note"]

DAYS: Final = 14
"""How long the counts of an hour are kept."""

_PREFIX: Final = "history/"
_PAGE: Final = 500
_FIELDS: Final = ("verdicts", "rules", "noise")


def note(records: Records, writer: str, hour: int, collections: Mapping[str, Compared]) -> None:
    """Keeps what one process has compared in an hour (hours since the epoch). Idempotent. Does I/O; raises
    `ControlError`."""
    records.put(f"{_PREFIX}{hour:010}/{writer}", {"collections": [_row(*each) for each in collections.items()]})


def compared_by_hour(records: Records, collection: str, since: int) -> dict[int, Compared]:
    """What all processes have compared of a collection, by hour from `since` on; hours without any are missing. Does
    I/O; raises `ControlError`."""
    found: dict[int, list[Compared]] = {}
    after = f"{_PREFIX}{since:010}"
    while page := records.scan(_PREFIX, after=after, limit=_PAGE):
        after = page[-1].key
        for each in page:
            rows = [row for row in each.value["collections"] if row["name"] == collection]
            if rows:
                found.setdefault(_hour(each.key), []).extend(map(_compared, rows))
    return {hour: together(each) for hour, each in sorted(found.items())}


def forget_before(records: Records, hour: int) -> int:
    """Deletes the counts of earlier hours, some at a time; how many records. Does I/O; raises `ControlError`."""
    old = [each.key for each in records.scan(_PREFIX, limit=_PAGE) if _hour(each.key) < hour]
    return sum(records.delete(key) for key in old)


def _hour(key: str) -> int:
    return int(key.removeprefix(_PREFIX).partition("/")[0])


def _row(name: str, compared: Compared) -> dict[str, Any]:
    return {"name": name, **{each: dict(getattr(compared, each)) for each in _FIELDS}}


def _compared(row: Mapping[str, Any]) -> Compared:
    return Compared(
        *({name: int(count) for name, count in row[part].items()} for part in ("verdicts", "rules", "noise"))
    )
