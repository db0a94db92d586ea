"""Receipts: who did what to a migration, kept in the control store for good."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from shadow.control.records import MISSING, Records

__all__ = ["file", "listed"]

_LAST: Final = "receipts"
_MOST: Final = 10**10
"""Beyond every number: keys count down from here, so that the newest receipt comes first in a scan."""
_PAGE: Final = 100


def file(records: Records, kind: str, body: Mapping[str, Any], *, at: float | None = None) -> int:
    """Keeps a receipt; returns its number. `body`: 200 KB at most; what is not JSON-able is kept as its text. `at`:
    epoch seconds, now by default. Raises `ControlError`: the receipt may have been kept then."""
    value = {"kind": kind, "at": time.time() if at is None else at, "body": json.dumps(body, default=str)}
    while True:
        last = records.get(_LAST)
        number = 1 if last is None else last.value["number"] + 1
        # A process that dies before it writes leaves its number empty.
        seen = MISSING if last is None else last.revision
        if records.put(_LAST, {"number": number}, expected=seen) is not None:
            records.put(f"receipt/{_MOST - number:011}", {**value, "number": number})
            return number


def listed(records: Records, kind: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """The newest first, each with `id`, `at` (epoch seconds) and `kind` besides its body; of all kinds if None."""
    found: list[dict[str, Any]] = []
    after = ""
    while len(found) < limit and (page := records.scan("receipt/", after=after, limit=_PAGE)):
        after = page[-1].key
        for each in (record.value for record in page):
            if kind in (None, each["kind"]):
                head = {"id": each["number"], "at": each["at"], "kind": each["kind"]}
                found.append({**json.loads(each["body"]), **head})
    return found[:limit]
