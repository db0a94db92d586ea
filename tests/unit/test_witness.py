"""Tokens that several processes replace: none of them takes another's for that of a restored backup, and a backup is
still found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.control.sqlite import SqliteRecords
from shadow.control.witness import Tokens


class Place:
    """Where the token is. `held`: a process whose writes wait here until they are let go."""

    def __init__(self) -> None:
        self.now = ""
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()


class Seen:
    """The place as one process sees it."""

    def __init__(self, place: Place, *, held: bool = False) -> None:
        self._place, self._held = place, held

    async def token(self) -> str:
        return self._place.now

    async def set_token(self, token: str) -> None:
        if self._held:
            self._place.reached.set()
            await self._place.let_go.wait()
        self._place.now = token


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    made = SqliteRecords(tmp_path / "control.db")
    yield made
    made.close()


def tokens(records: SqliteRecords, place: Place, *, held: bool = False) -> Tokens:
    return Tokens(records, "mongo users", Seen(place, held=held), own=True)


async def test_a_slow_process_is_no_restored_backup(records: SqliteRecords) -> None:
    place = Place()
    slow, quick = tokens(records, place, held=True), tokens(records, place)
    await quick.replace()
    replacing = asyncio.create_task(slow.replace())
    await place.reached.wait()
    await quick.replace()
    assert await quick.agrees(), "while the slow one has its token still to write"
    place.let_go.set()
    await replacing
    assert await quick.agrees(), "when it has written it"
    assert await slow.agrees()


async def test_a_restored_backup_is_found_beside_a_slow_process(records: SqliteRecords) -> None:
    place = Place()
    slow, quick = tokens(records, place, held=True), tokens(records, place)
    await quick.replace()
    backup = place.now
    replacing = asyncio.create_task(slow.replace())
    await place.reached.wait()
    await quick.replace()
    await quick.replace()
    place.let_go.set()
    await replacing
    place.now = backup
    assert not await quick.agrees()


async def test_what_was_under_way_once_is_not_valid_for_ever(records: SqliteRecords) -> None:
    place = Place()
    slow, quick = tokens(records, place, held=True), tokens(records, place)
    replacing = asyncio.create_task(slow.replace())
    await place.reached.wait()
    await quick.replace()
    place.let_go.set()
    await replacing
    late = place.now
    await quick.replace()
    await quick.replace()
    place.now = late
    assert not await quick.agrees()
