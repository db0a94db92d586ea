"""The journals beside each other: what an intent costs in a file, in MongoDB and in DynamoDB."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shadow.journal.base import Entry, Journal
from shadow.journal.server.remote import RemoteJournal
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.version import fresh_id
from tests.bench.harness import Bench, Closed, Contender, Line
from tests.bench.reads import key
from tests.bench.sites import NOTES
from tests.support.journals import dynamo_journal, mongo_journal

__all__ = ["journals_beside_each_other"]


@contextmanager
def journals_beside_each_other(
    mongo_url: str, database: str, endpoint: str, folder: Path, calls: int
) -> Iterator[list[Bench]]:
    """Opening an intent and closing it again, with 1, 16 and 64 writers; each server beside the file."""
    journals: dict[str, SqliteJournal | RemoteJournal] = {
        "SQLite": SqliteJournal(FileSettings(folder / "beside.db")),
        "MongoDB": mongo_journal(mongo_url, database),
        "DynamoDB": dynamo_journal(endpoint, f"{database}-journal"),
    }
    try:
        yield [_bench(journals, tasks, calls) for tasks in (1, 16, 64)]
    finally:
        for each in journals.values():
            each.shut()


def _bench(journals: dict[str, SqliteJournal | RemoteJournal], tasks: int, calls: int) -> Bench:
    return Bench(
        f"journals {tasks}",
        [Contender(name, _intent(each), each.flush) for name, each in journals.items()],
        Closed(max(calls // 2, 20 * tasks), tasks),
        [
            Line(f"an intent made durable in {name}, {tasks} at once", metric, name, "SQLite")
            for name in ("MongoDB", "DynamoDB")
            for metric in ("p50", "p99", "cpu")
        ],
    )


def _intent(journal: Journal) -> Callable[[int], Awaitable[None]]:
    async def intent(number: int) -> None:
        op_id = fresh_id()
        await journal.open([Entry(op_id, NOTES, key(number))])
        journal.close(op_id)

    return intent
