"""One contract, three control stores: a record changes only if it is still the one that was seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bson
import pytest
from bson import ObjectId

from shadow.control.dynamo import DynamoRecords
from shadow.control.mongo import MongoRecords
from shadow.control.records import MISSING, Records
from shadow.control.sqlite import SqliteRecords
from shadow.errors import ControlError
from shadow.journal.server.dynamo_table import Access
from tests.support.drawn import in_one_deployment

pytestmark = in_one_deployment("open_records")


@pytest.fixture
def records(open_records: Callable[[], Records]) -> Records:
    return open_records()


def test_a_record_is_read_as_it_was_written_by_every_process(
    records: Records, open_records: Callable[[], Records]
) -> None:
    value = {"n": 1, "id": ObjectId(), "deep": {"list": [1, 2.5, None, b"x"]}, "text": "ä/€"}
    revision = records.put("a/1", value)
    found = open_records().get("a/1")
    assert found is not None
    assert (found.key, found.value, found.revision) == ("a/1", value, revision)
    assert records.get("a/2") is None


def test_a_write_on_a_condition_wants_the_revision_that_was_seen(records: Records) -> None:
    first = records.put("k", {"n": 1}, expected=MISSING)
    assert first is not None
    assert records.put("k", {"n": 2}, expected=MISSING) is None
    second = records.put("k", {"n": 2}, expected=first)
    assert second not in (None, first)
    assert records.put("k", {"n": 3}, expected=first) is None
    found = records.get("k")
    assert found is not None
    assert (found.value, found.revision) == ({"n": 2}, second)


def test_a_record_that_was_deleted_and_made_again_is_another_one(records: Records) -> None:
    first = records.put("k", {"n": 1}, expected=MISSING)
    assert not records.delete("k", expected="other")
    assert records.delete("k", expected=first)
    assert not records.delete("k")
    assert records.put("k", {"n": 1}, expected=first) is None
    again = records.put("k", {"n": 1}, expected=MISSING)
    assert again not in (None, first)
    assert records.put("k", {"n": 2}, expected=first) is None


def test_a_scan_shows_the_records_of_a_prefix_in_order(records: Records) -> None:
    keys = ["a", "a/1", "a/10", "a/2", "a/ä", "ab/1", "b/1"]
    records.put_many({key: {"key": key} for key in reversed(keys)})
    assert [each.key for each in records.scan("a/")] == ["a/1", "a/10", "a/2", "a/ä"]
    assert [each.value["key"] for each in records.scan("a/", limit=2)] == ["a/1", "a/10"]
    assert [each.key for each in records.scan("a/", after="a/10")] == ["a/2", "a/ä"]
    assert [each.key for each in records.scan("a/", after="a/10", limit=1)] == ["a/2"]
    assert [each.key for each in records.scan("")] == sorted(keys)
    assert records.scan("c/") == []


def test_many_records_are_written_scanned_and_deleted(records: Records) -> None:
    records.put("y", {})
    records.put_many({f"x/{n:04}": {"n": n, "pad": "-" * 3000} for n in range(500)})
    assert [each.value["n"] for each in records.scan("x/")] == list(range(500))
    assert records.delete_all("x/") == 500
    assert [each.key for each in records.scan("")] == ["y"]
    records.put_many({})


def test_of_writers_on_one_condition_exactly_one_wins(open_records: Callable[[], Records]) -> None:
    stores = [open_records() for _ in range(4)]
    stores[0].put("n", {"n": 0})
    start = threading.Barrier(len(stores))

    def count(store: Records) -> int:
        start.wait()
        won = 0
        while won < 15:
            seen = store.get("n")
            assert seen is not None
            won += store.put("n", {"n": seen.value["n"] + 1}, expected=seen.revision) is not None
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        assert sum(pool.map(count, stores)) == 60
    found = stores[1].get("n")
    assert found is not None
    assert found.value == {"n": 60}


def test_a_value_of_some_size_fits(records: Records) -> None:
    value = {"bytes": b"x" * 300_000}
    records.put("big", value)
    found = records.get("big")
    assert found is not None
    assert bson.encode(found.value) == bson.encode(value)


def test_it_can_be_closed_twice(records: Records) -> None:
    records.close()
    records.close()


@pytest.mark.parametrize("kind", ["sqlite", "mongo", "dynamo"])
def test_a_store_that_is_out_of_reach_says_so(kind: str, tmp_path: Path) -> None:
    if kind == "sqlite":
        (tmp_path / "file").write_text("")
        broken: Records = SqliteRecords(tmp_path / "file" / "control.db")
    elif kind == "mongo":
        broken = MongoRecords("mongodb://127.0.0.1:9/?directConnection=true", "db", "control", patience=0.3)
    else:
        broken = DynamoRecords(Access("us-east-1", "http://127.0.0.1:9", "local", "local"), "control", patience=0.3)
    with pytest.raises(ControlError) as caught:
        broken.get("k")
    assert caught.value.hint
    broken.close()
