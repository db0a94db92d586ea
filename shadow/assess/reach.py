"""Counts documents that are close to a limit of either store, which refuses them when they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shadow.assess.model import BoundsReached, Remark, RemarkKind, Severity
from shadow.model.version import Document
from shadow.stores.dynamo.client.limits import MOST_ACTIONS
from shadow.stores.mongo.limits import LARGEST, LEVELS, ROOM, depth

__all__ = ["ReachMeter", "remarks_of"]

_MOST_VALUES: Final = MOST_ACTIONS - 1


@dataclass
class ReachMeter:
    """Counts documents within a tenth of a limit, and those beyond it."""

    near_size: int = 0
    no_room: int = 0
    near_depth: int = 0
    near_values: int = 0
    too_many_values: int = 0
    dollar: int = 0

    def add(self, document: Document, bson_bytes: int, values: int) -> None:
        """One document without its version, with its bytes of BSON and number of unique values."""
        self.near_size += LARGEST * 9 // 10 < bson_bytes <= LARGEST - ROOM
        self.no_room += bson_bytes > LARGEST - ROOM
        self.near_depth += depth(document, LEVELS) > LEVELS * 9 // 10
        self.near_values += _MOST_VALUES * 9 // 10 < values <= _MOST_VALUES
        self.too_many_values += values > _MOST_VALUES
        self.dollar += any(name.startswith("$") for name in document)

    def report(self) -> BoundsReached:
        return BoundsReached(
            self.near_size, self.no_room, self.near_depth, self.near_values, self.too_many_values, self.dollar
        )


def remarks_of(name: str, reach: BoundsReached) -> Iterator[Remark]:
    """Remarks about the counts, the worst first."""
    note, mend = Severity.NOTE, "make them smaller before writes go to both stores"
    if reach.no_room:
        text = (
            f"without room for a version in MongoDB's 16 MB ({ROOM} bytes): {reach.no_room}; their writes are refused"
        )
        yield Remark(Severity.BLOCKER, RemarkKind.LARGE, name, text, mend)
    if reach.too_many_values:
        text = f"with more than {_MOST_VALUES} unique values, which DynamoDB cannot hold: {reach.too_many_values}"
        yield Remark(Severity.BLOCKER, RemarkKind.LARGE, name, text, mend)
    if reach.near_size:
        text = f"within a tenth of 16 MB: {reach.near_size}; what makes one of them larger is refused"
        yield Remark(note, RemarkKind.LARGE, name, text)
    if reach.near_values:
        text = f"within a tenth of {_MOST_VALUES} unique values in one document: {reach.near_values}"
        yield Remark(note, RemarkKind.LARGE, name, text)
    if reach.near_depth:
        text = f"within a tenth of {LEVELS} levels of nesting, MongoDB's limit: {reach.near_depth}"
        yield Remark(note, RemarkKind.NESTED, name, text)
    if reach.dollar:
        text = f"with a name that begins with $ at the top: {reach.dollar}; MongoDB takes no replacement that has one"
        yield Remark(note, RemarkKind.NAME, name, text)
