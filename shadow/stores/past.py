"""Out-of-band writes, as the stream of a store tells them: what the relay needs of a store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from shadow.errors import ShadowError, UnsupportedOperation
from shadow.model.verdict import Bypass
from shadow.model.version import Key

__all__ = ["BEGUN", "TOO_OLD", "HistoryLost", "PastPage", "PastWrite", "Streaming", "TellingBareWrites", "untold"]

TOO_OLD: Final = "the stream no longer has what happened after the last position"
BEGUN: Final = "relaying began: what was written past shadow before is not known"


_UNAUTHORIZED: Final = 13
_REQUEST: Final = re.compile(r" \(request [^)]*\)")


class HistoryLost(Exception):
    """The store no longer has what happened after the cursor."""


@dataclass(frozen=True, slots=True)
class PastWrite:
    """One change that moved no version. Not `certain`: it may be shadow's own, for its event does not show a version,
    or not that it has moved. `name` identifies the event. `by_store`: the store itself has deleted the document, as one
    that has expired, so that there is no writer to find."""

    collection: str
    key: Key
    kind: Bypass
    name: str
    certain: bool
    by_store: bool = False


@dataclass(frozen=True, slots=True)
class PastPage:
    """Some changes in the order of the store, and the `cursor` after them, which BSON can hold.

    `lost`: the collections of which the stream does not tell every document (they were dropped, renamed, replaced),
    with the reason. `at`: the time up to which it has told every change, epoch seconds by the store's clock, 0 if
    that is not known. `quiet`: the stream had nothing more to tell. `unread`: the collections whose changes the store
    does not tell now, with the reason.
    """

    writes: tuple[PastWrite, ...]
    cursor: Mapping[str, Any]
    lost: tuple[tuple[str, str], ...] = ()
    at: float = 0.0
    quiet: bool = True
    unread: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class Streaming(Protocol):
    """A store that tells its changes, also those of other writers."""

    async def check_stream(self, collections: Iterable[str]) -> None:
        """Returns if it can, for these collections. Raises `UnsupportedOperation`, which names the next step, and what
        the driver raises."""

    def past_writes(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        """Pages of changes to the configured collections after `cursor`, from now on with None; empty pages where
        nothing happens. Without end, except that the stream itself may end: then it is opened again with the last
        cursor. Raises `HistoryLost`, and what the driver raises."""


@runtime_checkable
class TellingBareWrites(Protocol):
    """A store that tells the writes which moved no version, while somebody asks."""

    def bare_writes(
        self, after: Mapping[str, Any] | None
    ) -> AsyncIterator[tuple[tuple[str, Key, Bypass, str], Mapping[str, Any]]]:
        """From now on, or after a token: collection, key, kind and name of each, and its token. Ends only with an error
        of the driver."""


def untold(error: Exception) -> str:
    """Why a store tells no changes, with the next step where it is known: for people, on one line, without document
    content, and the same each time for the same cause."""
    if isinstance(error, UnsupportedOperation):
        return f"{error.reason}; {error.hint}" if error.hint else error.reason
    if isinstance(error, ShadowError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    details = getattr(error, "details", None)
    details = details if isinstance(details, Mapping) else {}
    if "awsCode" in details:  # the text is shadow's own
        return _REQUEST.sub("", str(details.get("errmsg") or error)).replace("\n  hint: ", "; ")
    code = getattr(error, "code", None)
    name = type(error).__name__ if code is None else f"{type(error).__name__} {code}"
    named = details.get("codeName")
    if code == _UNAUTHORIZED:
        return f"{name}: the user lacks `changeStream` or `find` on the database: shadow config check --connect"
    return f"{name} ({named})" if named else name
