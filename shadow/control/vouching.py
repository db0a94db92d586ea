"""How one process uses `witness`: it checks journal and stores when it starts, from time to time, and before it takes
part in a flip."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from shadow.control.records import Records
from shadow.control.witness import (
    Identified,
    Identities,
    JournalToken,
    Noted,
    StoreToken,
    Tokened,
    Tokens,
    journal_token,
)
from shadow.errors import ControlError, JournalError
from shadow.model.version import fresh_id

__all__ = ["Vouching", "VouchingContext"]

T = TypeVar("T")

_JOURNAL: Final = "the journal"


def _ignore(place: str, by: str) -> None: ...


def _pass(error: Exception) -> None: ...


@dataclass(frozen=True)
class VouchingContext:
    """What a process vouches with."""

    records: Records
    journal: Noted
    journal_name: str
    stores: Callable[[], Mapping[Any, object]]
    """Those of the running event loop, by name."""
    both: Callable[[], Collection[str]]
    """The collections that are to be written to both."""
    interrupt: Callable[[Collection[str]], Awaitable[None]]
    """Ends what was proven of some."""
    patience: float
    """Seconds to wait for a store. One that does not answer is left for the next time: nothing of it is known to be
    wrong."""
    by: str = ""
    """The control store and the process, which a token says beside itself."""
    on_stranger: Callable[[str, str], None] = _ignore
    """Called with a place that has a token which this control store has not noted, and with what that says."""
    on_fault: Callable[[Exception], None] = _pass
    """Called with what a store or the journal raised in place of an answer."""


class Vouching:
    """Raises `ControlError`."""

    def __init__(self, context: VouchingContext) -> None:
        self._by = by = context.by
        self._on_stranger = context.on_stranger
        self._records = records = context.records
        token = JournalToken(context.journal)
        self._journal = Tokens(records, journal_token(context.journal_name), token, own=False, by=by)
        self._stores = context.stores
        self._both = context.both
        self._interrupt = context.interrupt
        self._patience = context.patience
        self._on_fault = context.on_fault
        self.silent: set[str] = set()
        """What did not answer in time when the tokens were last checked: collections, and the journal by its name."""

    async def tokens(self, collections: Iterable[str], *, fresh: bool = False) -> set[str]:
        """The collections whose journal or database has another token than was noted, or one that was never noted here:
        what was proven of them is invalidated, and the token is replaced. `fresh`: replaces those that agree too."""
        both, names = self._both(), list(collections)
        mismatched: set[str] = set()
        due: list[Tokens] = []
        self.silent = set()
        if both:
            found = await self._asked(lambda: self._state(self._journal, wanted=True), _JOURNAL)
            if found == "wrong":
                mismatched.update(both)
                await self._ask_who(_JOURNAL, self._journal)
            if found in ("wrong", "new") or (found == "right" and fresh):
                due.append(self._journal)
        places = [(name, place) for name in names for place in self._places(name)]
        states = await asyncio.gather(
            *(self._asked(functools.partial(self._state, place, wanted=name in both), name) for name, place in places)
        )
        for (name, place), found in zip(places, states, strict=True):
            if found == "wrong":
                mismatched.add(name)
                await self._ask_who(name, place)
            if found in ("wrong", "new") or (found == "right" and fresh):
                due.append(place)
        if mismatched:
            await self._interrupt(sorted(mismatched))
        for place in due:
            await self._asked(place.replace)
        return mismatched

    async def _ask_who(self, what: str, place: Tokens) -> None:
        by = await self._asked(place.by)
        if by:
            self._on_stranger(what, by)

    async def identities(self, collections: Iterable[str]) -> set[str]:
        """The collections that were created again on a store: what was proven of them is invalidated."""
        mismatched: set[str] = set()
        found: dict[str, dict[str, str]] = {}
        for name in collections:
            found[name] = {
                str(key): identity
                for key, store in self._stores().items()
                if isinstance(store, Identified)
                and (identity := await self._asked(functools.partial(store.identity, name))) is not None
            }
            if not await Identities(self._records, name).agree(found[name]):
                mismatched.add(name)
        if mismatched:
            await self._interrupt(sorted(mismatched))
        for name, each in found.items():
            await Identities(self._records, name).note(each)
        return mismatched

    async def spoil(self, collection: str) -> bool:
        """Writes a token that no control store has noted, so that the next check fails once this store answers again.
        False: that could not be done either."""
        spoilt = False
        for store in self._stores().values():
            if isinstance(store, Tokened):
                spoilt |= await self._asked(functools.partial(_set, store, collection)) is not None
        return spoilt

    def _places(self, collection: str) -> list[Tokens]:
        return [
            Tokens(self._records, f"{key} {collection}", StoreToken(store, collection), own=True, by=self._by)
            for key, store in self._stores().items()
            if isinstance(store, Tokened)
        ]

    async def _state(self, tokens: Tokens, *, wanted: bool) -> str:
        """right, wrong, new (there is none yet, and one is `wanted`), or "" (there is none)."""
        if not await tokens.agrees():
            return "wrong"
        if await tokens.is_noted():
            return "right"
        return "new" if wanted else ""

    async def _asked(self, ask: Callable[[], Awaitable[T]], what: str = "") -> T | None:
        """None: there was no answer; `what` counts as silent then. `ask` is called here: this may be a task, and one
        that is cancelled before it begins would leave a coroutine that nobody awaits."""
        try:
            async with asyncio.timeout(self._patience):
                return await ask()
        except (ControlError, asyncio.CancelledError):
            raise
        except (JournalError, TimeoutError) as error:
            if what:
                self.silent.add(what)
            if not (what and isinstance(error, TimeoutError)):  # a busy host is no fault, and silence is told
                self._on_fault(error)
        except Exception as error:
            # Whatever a driver raises: an account without the right to read is no reason to stop.
            self._on_fault(error)
        return None


async def _set(store: Tokened, collection: str) -> bool:
    await store.set_token(collection, fresh_id())
    return True
