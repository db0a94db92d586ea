"""What MongoDB can do and DynamoDB cannot: the name under which it is counted and reported.

Names come from a fixed list, the server's operators and the drivers' options: a metric has one series for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from shadow.errors import UnsupportedOperation
from shadow.mongoql.values.support import TABLE

__all__ = ["NAMES", "OTHER", "name_of"]

OTHER: Final = "other"
"""For everything that is not in the list."""

_OPTIONS: Final = frozenset({
    "allow_partial_results", "collation", "cursor_type", "hint", "let", "max", "min", "oplog_replay", "readConcern",
    "read_concern", "return_key", "show_record_id", "explain", "find_raw_batches", "aggregate_raw_batches",
})  # fmt: skip
"""The drivers' options that change a result on MongoDB alone, and verbs that only MongoDB has."""

NAMES: Final = frozenset({*_OPTIONS, OTHER, *(name for family in TABLE.values() for name in family)})

_PARTS: Final = re.compile(r"\$?\w+")


def name_of(refusal: UnsupportedOperation) -> str:
    """The operator or the option that was refused, `OTHER` if it is not in the list."""
    return next(_listed(refusal.name), OTHER)


def _listed(text: str) -> Iterator[str]:
    """The names in the text of a refusal (`$where`, `find(collation=...)`, `sort by $natural`), operators first."""
    parts = _PARTS.findall(text)
    found = [part for part in parts if part in NAMES]
    yield from sorted(found, key=lambda part: not part.startswith("$"))
