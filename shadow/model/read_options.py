"""Which member of MongoDB a read wants, and how durable what it shows: what `with_options` of the drivers asks for.

MongoDB's store gives it to the driver, wherever MongoDB answers the application. DynamoDB has no members: its reads of
the table are consistent, so they satisfy every preference and every concern but `snapshot`, and `linearizable` for a
read that is not by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ReadOptions"]

_NEWEST: Final = frozenset({"Primary", "PrimaryPreferred"})
"""Read preferences whose answer comes from the primary member as long as there is one."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadOptions:
    """`preference` and `concern` are the driver's objects; None: the client's. Compared by identity: the driver's
    preferences have no hash."""

    preference: Any = None
    concern: Any = None

    @property
    def level(self) -> str | None:
        """The read concern's name; None: the client's, or the server's default."""
        return None if self.concern is None else self.concern.level

    @property
    def lags(self) -> bool:
        """Whether a member that lags may answer, though there is one that does not."""
        return self.preference is not None and self.preference.name not in _NEWEST

    def of_driver(self) -> Mapping[str, Any]:
        """As the driver's `with_options` takes them."""
        given = {"read_preference": self.preference, "read_concern": self.concern}
        return {name: value for name, value in given.items() if value is not None}
