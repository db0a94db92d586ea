"""Whether journal and stores are still those that the control store knows, and none is a restored backup.

A backup lacks what was written after it was made, and nothing in it says so. So the control store keeps what a restored
backup would lack:

- A *token* in the journal, and one in MongoDB's database for each collection, which are replaced every minute. Where
  another one is found than was noted, journal or database are older, or belong to another control store by now.
- The *identity* of each collection on each store: the UUID of a collection, the id of a table. A collection that was
  restored by itself has another one.

Whatever does not agree invalidates what was proven. It is noted only after that, so that it is found again if the
invalidation failed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from shadow.control.records import MISSING, Record, Records
from shadow.model.version import fresh_id

__all__ = [
    "Identified",
    "Identities",
    "JournalToken",
    "Noted",
    "StoreToken",
    "TokenSource",
    "Tokened",
    "Tokens",
    "forget_token",
    "journal_token",
]

_BY: Final = " of "
_UNDER_WAY: Final = 8
"""Tokens of other processes that are kept valid at most."""
_ROW: Final = "$witness"
"""The name under which a journal keeps its token, among the primaries: no collection has such a name."""


class TokenSource(Protocol):
    async def token(self) -> str:
        """The one that was set last; "" if there is none."""

    async def set_token(self, token: str) -> None: ...


@runtime_checkable
class Tokened(Protocol):
    """A store that keeps a token for each collection, apart from it."""

    async def token(self, collection: str) -> str: ...

    async def set_token(self, collection: str, token: str) -> None: ...


class StoreToken:
    def __init__(self, store: Tokened, collection: str) -> None:
        self._store = store
        self._collection = collection

    async def token(self) -> str:
        return await self._store.token(self._collection)

    async def set_token(self, token: str) -> None:
        await self._store.set_token(self._collection, token)


@runtime_checkable
class Identified(Protocol):
    """A store whose collections have identities."""

    async def identity(self, collection: str) -> str:
        """Another one than before if the collection was created again; "" if there is none."""


class Noted(Protocol):
    """The part of a journal in which a token is kept."""

    async def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]: ...

    async def set_primary(self, collection: str, primary: str) -> None: ...


class JournalToken:
    def __init__(self, journal: Noted) -> None:
        self._journal = journal

    async def token(self) -> str:
        return (await self._journal.primaries({})).get(_ROW, "")

    async def set_token(self, token: str) -> None:
        await self._journal.set_primary(_ROW, token)


class Tokens:
    """One token. `own`: only this control store writes it, so that one that is found without being noted is another
    control store's. Does I/O in threads; raises `ControlError` and what the token's place raises."""

    def __init__(self, records: Records, name: str, place: TokenSource, *, own: bool, by: str = "") -> None:
        """`by`: says, in each token, whose it is; for people."""
        self._by = by
        self._records = records
        self._key = f"witness/{_digest(name)}"
        self._place = place
        self._own = own

    async def agrees(self) -> bool:
        """Whether the token there is the noted one, or none was noted and nothing can be wrong."""
        noted, found = await self._seen()
        if noted is None:
            return not (self._own and found)
        return found in (noted.value["current"], noted.value["next"], *noted.value.get("under_way", ()))

    async def _seen(self) -> tuple[Record | None, str]:
        """The noted token, and the one that was there while nobody changed it."""
        noted = await asyncio.to_thread(self._records.get, self._key)
        while True:
            found = await self._place.token()
            again = await asyncio.to_thread(self._records.get, self._key)
            if (noted and noted.revision) == (again and again.revision):
                return noted, found
            noted = again

    async def by(self) -> str:
        """Who wrote the token that is there, if it says so."""
        return (await self._place.token()).partition(_BY)[2]

    async def _is_at(self, revision: object) -> bool:
        noted = await asyncio.to_thread(self._records.get, self._key)
        return noted is not None and noted.revision == revision

    async def is_noted(self) -> bool:
        return await asyncio.to_thread(self._records.get, self._key) is not None

    async def replace(self) -> None:
        """Writes a fresh token; where several processes do so at once, the last to note one does.

        A process that has noted its token may be slow to write it. A later one keeps that token valid until a
        replacement begins with nothing under way: else what the slow one writes would look like another store.
        """
        noted = await asyncio.to_thread(self._records.get, self._key)
        found, token = await self._place.token(), f"{fresh_id()}{_BY}{self._by}" if self._by else fresh_id()
        seen = MISSING if noted is None else noted.revision
        # Both count until the new one is known to be there, which may never be: an account may only have read rights.
        under_way = [] if noted is None else _under_way(noted.value)
        value = {"current": found, "next": token, "under_way": under_way}
        revision = await asyncio.to_thread(lambda: self._records.put(self._key, value, expected=seen))
        if revision is not None and await self._is_at(revision):
            await self._place.set_token(token)
            value = {"current": token, "next": token, "under_way": under_way}
            await asyncio.to_thread(lambda: self._records.put(self._key, value, expected=revision))


def _under_way(noted: Mapping[str, Any]) -> list[str]:
    """The tokens that other processes have noted and may still write."""
    if noted["current"] == noted["next"]:
        return []
    return [*noted.get("under_way", ()), noted["next"]][-_UNDER_WAY:]


def journal_token(journal: str) -> str:
    """The name of a journal's token."""
    return f"journal {journal}"


def forget_token(records: Records, name: str) -> None:
    """Forgets a token: a new journal may have the name from now on."""
    records.delete(f"witness/{_digest(name)}")


class Identities:
    """Those of one collection. Does I/O in threads; raises `ControlError`."""

    def __init__(self, records: Records, collection: str) -> None:
        self._records = records
        self._collection = collection
        self._key = f"identity/{_digest(collection)}"

    async def agree(self, found: Mapping[str, str]) -> bool:
        """`found`: by name of store; a store that did not answer is missing."""
        noted = await self._noted()
        return all(noted.get(store, "") in ("", identity) for store, identity in found.items())

    async def note(self, found: Mapping[str, str]) -> None:
        noted = await self._noted()
        if any(noted.get(store) != identity for store, identity in found.items()):
            value = {"collection": self._collection, "stores": {**noted, **found}}
            await asyncio.to_thread(self._records.put, self._key, value)

    async def _noted(self) -> Mapping[str, str]:
        found = await asyncio.to_thread(self._records.get, self._key)
        return {} if found is None else found.value["stores"]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]
