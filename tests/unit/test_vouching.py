"""What a process is told of its stores when it vouches for them: what they raise is reported, and a check that is
cancelled before it begins leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shadow.control.sqlite import SqliteRecords
from shadow.control.vouching import Vouching, VouchingContext
from shadow.errors import JournalError


class Store:
    """A store and a journal that raise `error`, or never answer (None)."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def _asked(self) -> Any:
        if self.error is None:
            await asyncio.Event().wait()
        assert self.error is not None
        raise self.error

    async def token(self, collection: str) -> str:
        return str(await self._asked())

    async def set_token(self, collection: str, token: str) -> None:
        await self._asked()

    async def identity(self, collection: str) -> str:
        return str(await self._asked())

    async def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        raise JournalError("no journal")

    async def set_primary(self, collection: str, primary: str) -> None:
        raise JournalError("no journal")


class Site:
    def __init__(self, records: SqliteRecords, error: Exception | None, patience: float = 0.05) -> None:
        self.faults: list[str] = []
        store = Store(error)
        self.vouching = Vouching(
            VouchingContext(
                records,
                store,
                "a journal",
                stores=lambda: {"mongo": store},
                both=lambda: ["things"],
                interrupt=self._interrupt,
                patience=patience,
                on_fault=lambda error: self.faults.append(type(error).__name__),
            )
        )

    async def _interrupt(self, collections: Any) -> None: ...


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    made = SqliteRecords(tmp_path / "control.db")
    made.prepare()
    yield made
    made.close()


async def test_what_a_store_or_the_journal_raises_is_reported_and_stops_nothing(records: SqliteRecords) -> None:
    denied = Site(records, PermissionError("not allowed"))
    assert await denied.vouching.tokens(["things"]) == set()
    assert denied.faults == ["JournalError", "PermissionError"]
    assert denied.vouching.silent == {"the journal"}, "a store that answers, whatever, is not silent"
    denied.faults.clear()
    assert await denied.vouching.identities(["things"]) == set()
    assert await denied.vouching.spoil("things") is False
    assert denied.faults == ["PermissionError", "PermissionError"]


async def test_a_store_that_does_not_answer_is_silent_and_no_fault(records: SqliteRecords) -> None:
    hanging = Site(records, None, patience=0.3)
    assert await hanging.vouching.tokens(["things"]) == set()
    assert hanging.faults == ["JournalError"]
    assert hanging.vouching.silent == {"the journal", "things"}


async def test_a_check_that_is_cancelled_before_it_begins_leaves_no_coroutine(records: SqliteRecords) -> None:
    """The checks of the places are tasks: when they are cancelled with the round that made them, none has begun."""
    hanging = Site(records, None)
    hanging.vouching._both = list  # the journal is not asked: the next step makes the tasks
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        round_ = asyncio.ensure_future(hanging.vouching.tokens(["things"]))
        asyncio.get_running_loop().call_soon(round_.cancel)
        with pytest.raises(asyncio.CancelledError):
            await round_
        gc.collect()
    assert [str(each.message) for each in said] == []
