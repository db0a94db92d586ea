"""DynamoDB's limits on what it is asked and given, and the budget of an expression. Pure.

Every expression of a request goes through a `Budget`: those whose parts the caller chooses take them one by one and
leave the rest to be matched here; the others are small, and held to it all the same (`expressions.Expression`).

Sources: Amazon DynamoDB Developer Guide, "Quotas" and "Constraints in Amazon DynamoDB" (keys, names, items, expression
parameters, transactions, API-specific constraints), "PartiQL" for statements; the API's reference for requests. What
DynamoDB Local refuses beyond these is said at the constant. An `IN`, of which 100 operands are allowed, is never
written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "EXPANDED",
    "HASH_LIMIT",
    "ITEM_LIMIT",
    "LARGEST_PAGE",
    "LONGEST_NAME_ASKED",
    "MOST_ACTIONS",
    "MOST_KEYS",
    "MOST_STATEMENTS",
    "NAME_LIMIT",
    "OPERATORS",
    "RANGE_LIMIT",
    "STATEMENT_TEXT",
    "TEXT",
    "TRANSACTION",
    "Budget",
    "at_most",
    "operators",
]

HASH_LIMIT: Final = 2_048
"""The most bytes of a partition key, of a table or an index; at least 1."""
RANGE_LIMIT: Final = 1_024
"""The most bytes of a sort key; at least 1."""
NAME_LIMIT: Final = 65_535
"""The most bytes of an attribute's name."""
LONGEST_NAME_ASKED: Final = 255
"""The most bytes of a name that is put into an expression or a projection: what a key's name may have. Longer ones are
read with the whole item."""
ITEM_LIMIT: Final = 409_600
"""The most bytes of an item, its names counted; no value of an attribute is larger."""

TEXT: Final = 4_096
"""The most bytes of one expression."""
OPERATORS: Final = 300
"""The most operators and functions in one expression. DynamoDB Local counts comparators, AND, OR and functions."""
EXPANDED: Final = 900_000
"""The most bytes of all names and values of a request's expressions. 2 MB are documented; DynamoDB Local refuses an
expression of over 1 MB, its names and values put in, and a name may be put in more than once."""

MOST_KEYS: Final = 100
"""Of one BatchGetItem."""
MOST_ACTIONS: Final = 100
"""Of one transaction."""
TRANSACTION: Final = 3_500_000
"""The most bytes of the documents in one transaction, which may have 4 MB; the rest is room for unique values."""
MOST_STATEMENTS: Final = 25
"""Of one BatchExecuteStatement."""
STATEMENT_TEXT: Final = 8_192
"""The most characters of one statement."""
LARGEST_PAGE: Final = 10_000
"""A page of no more items than this is asked for by `Limit`, which is a signed 32-bit integer; an answer of 1 MB
seldom has as many."""

_OPERATOR: Final = re.compile(r"<>|<=|>=|[=<>+-]|\b(?:AND|OR|NOT|BETWEEN|IN)\b|\w+\(")


def operators(text: str) -> int:
    """How many operators and functions an expression has; the AND of a BETWEEN is one too, to be on the safe side."""
    return len(_OPERATOR.findall(text))


def at_most(items: int) -> dict[str, int]:
    """The parameter that reads no more than so many items in one answer; 0: as many as it holds."""
    return {"Limit": items} if 0 < items < LARGEST_PAGE else {}


@dataclass(slots=True)
class Budget:
    """What is left for one expression, which has nothing but ASCII: names and values are placeholders in it."""

    text: int = TEXT
    operators: int = OPERATORS

    def take(self, text: str) -> bool:
        """Takes a part of the expression, with what joins it to the parts before, if there is room for it."""
        count = operators(text)
        if len(text) > self.text or count > self.operators:
            return False
        self.text -= len(text)
        self.operators -= count
        return True
