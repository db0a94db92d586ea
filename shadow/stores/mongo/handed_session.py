"""PyMongo's own sessions, whose `client` is the object that the application has in the place of its client.

A callback of `with_transaction` reaches its collections by `session.client`, so that must not be the driver's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from pymongo.asynchronous.client_session import AsyncClientSession

__all__ = ["handed"]

_HANDED: Final = "_shadow_client"
_DRIVERS: Final = "_shadow_driver_session"
"""Attributes of a session: what its `client` is, and itself as the driver made it."""


class HandedSession(AsyncClientSession):
    """Everything but `client` is the driver's."""

    @property
    def client(self) -> Any:
        """What the application has in the place of its client."""
        return vars(self)[_HANDED]


class BoundSession(HandedSession):
    """Where the driver has `bind` (since 4.17)."""

    @contextlib.asynccontextmanager
    async def bind(self, *arguments: Any, **options: Any) -> AsyncIterator[BoundSession]:  # type: ignore[override]
        """The driver compares the `client` of a bound session with itself, so it is given the session as it made it."""
        async with vars(self)[_DRIVERS].bind(*arguments, **options):
            yield self


def handed(session: AsyncClientSession, client: Any) -> AsyncClientSession:
    """The same session, with another `client`."""
    state = vars(session)
    own = object.__new__(AsyncClientSession)
    own.__dict__ = state
    state.update({_HANDED: client, _DRIVERS: own})
    session.__class__ = BoundSession if hasattr(AsyncClientSession, "bind") else HandedSession
    return session
