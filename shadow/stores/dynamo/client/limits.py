"""DynamoDB's limits on requests and items, and the budget of an expression. Pure.

Every expression of a request has a `Budget`: expressions whose parts the caller chooses take parts while there is room
and leave the rest to be matched here; the others are small, and are checked too (`expressions.Expression`).

Sources: Amazon DynamoDB Developer Guide, "Quotas" and "Constraints in Amazon DynamoDB" (keys, names, items, expression
parameters, transactions, API-specific constraints), "PartiQL" for statements; the API's reference for requests.
Stricter limits of DynamoDB Local are mentioned at the constant. An `IN`, of which 100 operands are allowed, is never
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
"""The maximum bytes of a partition key, of a table or an index; at least 1."""
RANGE_LIMIT: Final = 1_024
"""The maximum bytes of a sort key; at least 1."""
NAME_LIMIT: Final = 65_535
"""The maximum bytes of an attribute's name."""
LONGEST_NAME_ASKED: Final = 255
"""The maximum bytes of a name in an expression or a projection: the limit for the name of a key. Longer ones are read
with the whole item."""
ITEM_LIMIT: Final = 409_600
"""The maximum bytes of an item, including its names; no attribute's value is larger."""

TEXT: Final = 4_096
"""The maximum bytes of one expression."""
OPERATORS: Final = 300
"""The maximum operators and functions of one expression. DynamoDB Local counts comparators, AND, OR and functions."""
EXPANDED: Final = 900_000
"""The maximum bytes of all names and values of a request's expressions. 2 MB are documented; DynamoDB Local rejects an
expression of over 1 MB after substitution of names and values, and a name may be substituted more than once."""

MOST_KEYS: Final = 100
"""Of one BatchGetItem."""
MOST_ACTIONS: Final = 100
"""Of one transaction."""
TRANSACTION: Final = 3_500_000
"""The maximum bytes of the documents in one transaction, which may have 4 MB; the rest is room for unique values."""
MOST_STATEMENTS: Final = 25
"""Of one BatchExecuteStatement."""
STATEMENT_TEXT: Final = 8_192
"""The maximum characters of one statement."""
LARGEST_PAGE: Final = 10_000
"""Larger pages are not requested by `Limit`, which is a signed 32-bit integer; a response of 1 MB rarely has more
items."""

_OPERATOR: Final = re.compile(r"<>|<=|>=|[=<>+-]|\b(?:AND|OR|NOT|BETWEEN|IN)\b|\w+\(")


def operators(text: str) -> int:
    """The number of operators and functions of an expression; to be safe, the AND of a BETWEEN counts as one."""
    return len(_OPERATOR.findall(text))


def at_most(items: int) -> dict[str, int]:
    """The parameter that limits one response to this many items; 0: as many as fit."""
    return {"Limit": items} if 0 < items < LARGEST_PAGE else {}


@dataclass(slots=True)
class Budget:
    """The remaining room of one expression, which is ASCII only: its names and values are placeholders."""

    text: int = TEXT
    operators: int = OPERATORS

    def take(self, text: str) -> bool:
        """Reserves room for a part of the expression and its joint; returns False if there is none."""
        count = operators(text)
        if len(text) > self.text or count > self.operators:
            return False
        self.text -= len(text)
        self.operators -= count
        return True
