"""What the processes of a fleet have left to MongoDB alone, by collection and operator: a record for each collection.

It outlives the processes, so that a flip knows of the job that runs once a week. An operator is forgotten when it was
not used for `keep` seconds, or by command. Names of operators are from a fixed list, so a record cannot grow for ever.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.control.records import MISSING, Record, Records
from shadow.control.shared_record import SharedRecord
from shadow.model.uses import Uses, merged

__all__ = ["forget", "listed", "note"]

_PREFIX: Final = "portability/"
_MOST: Final = 500
"""Operators in a record: those that were used last."""


@dataclass(frozen=True, slots=True)
class _Used:
    collection: str
    operators: Mapping[str, Uses] = field(default_factory=dict)
    revision: str = MISSING

    def kept(self, since: float) -> dict[str, Uses]:
        """Those that were used since then (epoch seconds)."""
        return {name: uses for name, uses in self.operators.items() if uses.last >= since}


def _last(operators: Mapping[str, Uses]) -> dict[str, Uses]:
    return dict(sorted(operators.items(), key=lambda each: -each[1].last)[:_MOST])


def note(records: Records, collection: str, found: Mapping[str, Uses], *, now: float, keep: float) -> None:
    """Adds uses of some operators. `now`: epoch seconds; `keep`: seconds after which an operator that was not used is
    forgotten. Does I/O; raises `ControlError`: they may have been added then."""

    def added(seen: _Used) -> _Used:
        # What was forgotten does not come back with its old count.
        total = merged({collection: seen.kept(now - keep)}, {collection: found})[collection]
        return dataclasses.replace(seen, operators=_last(total))

    _record(collection).change(records, added)


def listed(records: Records, *, now: float, keep: float) -> dict[str, dict[str, Uses]]:
    """By collection and operator, without what is forgotten. Does I/O; raises `ControlError`."""
    found = {each.collection: each.kept(now - keep) for each in map(_read, records.scan(_PREFIX))}
    return {collection: operators for collection, operators in found.items() if operators}


def forget(records: Records, collection: str, operator: str | None = None) -> list[str]:
    """Forgets one operator of a collection, or all of them: which they were. Does I/O; raises `ControlError`."""
    gone: list[str] = []

    def without(seen: _Used) -> _Used | None:
        gone[:] = sorted(name for name in seen.operators if operator in (None, name))
        left = {name: uses for name, uses in seen.operators.items() if name not in gone}
        return dataclasses.replace(seen, operators=left) if gone else None

    _record(collection).change(records, without)
    return gone


def _record(collection: str) -> SharedRecord[_Used]:
    # Names of collections may be longer than a key, and hold what no key may.
    key = f"{_PREFIX}{hashlib.sha256(collection.encode()).hexdigest()[:24]}"
    return SharedRecord(key, lambda: _Used(collection), _encoded, _decoded)


def _read(record: Record) -> _Used:
    return _decoded(record.value, record.revision)


def _encoded(used: _Used) -> dict[str, Any]:
    # Names of operators begin with a dollar, which not every store takes in names of fields.
    rows = [
        {"name": name, "first": uses.first, "last": uses.last, "verbs": [[verb, n] for verb, n in uses.verbs.items()]}
        for name, uses in used.operators.items()
    ]
    return {"collection": used.collection, "operators": rows}


def _decoded(value: Mapping[str, Any], revision: str) -> _Used:
    operators = {
        row["name"]: Uses(row["first"], row["last"], {verb: int(n) for verb, n in row["verbs"]})
        for row in value["operators"]
    }
    return _Used(value["collection"], operators, revision)
