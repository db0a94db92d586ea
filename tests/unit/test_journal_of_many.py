"""The intents of a call for many documents in the journal's file: few statements, and the same entries."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from bson import ObjectId

from shadow.host.process import this_process
from shadow.journal.base import Entry
from shadow.journal.sqlite.tables import JournalTask, Ledger, Work

COUNTS = (1, 2, 3, 5, 24, 137, 1000)


class Counting(sqlite3.Connection):
    """Notes what it executes; each row of `executemany` is a statement of its own to SQLite."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.statements: list[str] = []

    def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:
        self.statements.append(statement)
        return super().execute(statement, *given)

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        rows = list(rows)
        self.statements += [statement] * len(rows)
        return super().executemany(statement, rows)


class Things:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None, factory=Counting)
        self.ledger = Ledger(self.db, this_process(), limit=30, now=lambda: 1_000_000.0)
        self.ledger.enter()

    @property
    def statements(self) -> list[str]:
        return self.db.statements

    def do(self, *works: Work) -> list[JournalTask]:
        tasks = [JournalTask(work) for work in works]
        self.statements.clear()
        self.ledger.commit(tasks)
        return tasks

    def close(self, op_ids: list[str], *between: tuple[int, Work]) -> None:
        """Closes in this order, with other work before the places that are named."""
        tasks = [JournalTask(partial(Ledger.close, op_id=each), closes=each) for each in op_ids]
        for place, work in sorted(between, key=lambda each: -each[0]):
            tasks.insert(place, JournalTask(work))
        self.statements.clear()
        self.ledger.commit(tasks)
        assert not any(task.error for task in tasks)

    def open(self) -> set[str]:
        return {row[0] for row in self.db.execute("SELECT op_id FROM intents")}


@pytest.fixture
def things() -> Iterator[Things]:
    made = Things()
    yield made
    made.db.close()


def entries(count: int, name: str = "op") -> list[Entry]:
    return [Entry(f"{name}{number:06}", "abc"[number % 3], ObjectId(f"{number:024x}")) for number in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_as_many_intents_as_one_call_has_documents_are_opened_and_closed_in_few_statements(
    things: Things, count: int
) -> None:
    asked = entries(count)
    assert [task.error for task in things.do(lambda ledger: ledger.open(asked, 1_000_000.0))] == [None]
    assert len(things.statements) < 25
    shown = {(each.op_id, each.collection, each.key) for each in things.ledger.entries(2000, None, None)}
    assert shown == {(each.op_id, each.collection, each.key) for each in asked}
    assert things.ledger.stats().open == count

    kept = {each.op_id for each in asked[::3]}
    things.close([each.op_id for each in reversed(asked) if each.op_id not in kept])
    assert len(things.statements) < 25
    assert things.open() == kept
    assert things.ledger.stats().open == len(kept)
    assert sum(things.ledger.stats().passed.values()) == count


def test_closes_keep_their_order_with_the_work_between_them(things: Things) -> None:
    first, second = entries(100), entries(2, "late")
    things.do(lambda ledger: ledger.open(first, 1_000_000.0))
    ids = [each.op_id for each in first]
    things.close(
        [*ids[:50], second[0].op_id, *ids[50:]],
        (25, lambda ledger: ledger.defer(ids[60], unknown=False)),  # closed later: nothing is left to close
        (50, lambda ledger: ledger.open(second, 1_000_000.0)),  # before its close
        (75, lambda ledger: ledger.defer(ids[10], unknown=False)),  # closed before: nothing is left to defer
    )
    assert things.open() == {second[1].op_id}
    assert [due.key for due in things.ledger.due(10, 10)] == [first[60].key]


def test_of_a_call_with_an_id_that_is_taken_nothing_is_opened_and_the_others_are_done(things: Things) -> None:
    things.do(lambda ledger: ledger.open(entries(300)[250:251], 1_000_000.0))
    wrong, right = things.do(
        lambda ledger: ledger.open(entries(300), 1_000_000.0),
        lambda ledger: ledger.open(entries(300, "other"), 1_000_000.0),
    )
    assert isinstance(wrong.error, sqlite3.IntegrityError)
    assert right.error is None
    assert things.open() == {each.op_id for each in (entries(300)[250], *entries(300, "other"))}
