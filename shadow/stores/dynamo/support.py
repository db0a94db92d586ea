"""How the DynamoDB store answers each supported operator: the word in the README's table of operations."""

from __future__ import annotations

import enum
from typing import Final

from shadow.model.matching.support import Entry, Family, Support

__all__ = ["How", "how"]


class How(enum.StrEnum):
    NATIVE = "native"
    """DynamoDB decides it: a key, an index, a condition of its own; the rest of a filter is still checked here."""
    RESIDUAL = "residual"
    """The documents are read and the meaning is checked here, exactly."""
    COMPUTED = "computed"
    """The new document, or the answer, is computed here; a write goes back on the condition that nothing moved."""
    REFUSED = "refused"
    """Refused by name, before any store is touched."""


NATIVE: Final = {
    Family.QUERY: frozenset({"$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$and", "$exists"}),
    Family.STAGE: frozenset({"$match"}),
}
"""What `plan` turns into keys, key conditions or filter expressions. `$match` only where it leads the pipeline."""


def how(entry: Entry) -> How:
    if entry.status is Support.REFUSED:
        return How.REFUSED
    if entry.name in NATIVE.get(entry.family, ()):
        return How.NATIVE
    return How.RESIDUAL if entry.family is Family.QUERY else How.COMPUTED
