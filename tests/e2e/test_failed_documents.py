"""The documents that a backfill could not copy: listed in pages and as a file, and tried again alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pymongo
import pytest

from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool

MOST = 100
"""More values of a unique path than this are refused by DynamoDB."""
TOO_MANY = 5
COUNT = 12


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    return Site(
        mongo_url,
        mongo_database,
        dynamodb_local_url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        options={"unique": ["tags"]},
    )


def fill(site: Site) -> None:
    with pymongo.MongoClient(site.mongo_url) as client:
        client[site.database][COLLECTION].insert_many(
            {"_id": n, "tags": [f"{n}-{tag}" for tag in range(MOST * 2 if n < TOO_MANY else 1)]} for n in range(COUNT)
        )


def shorten(site: Site, keys: range) -> None:
    """By a writer that goes past the library."""
    with pymongo.MongoClient(site.mongo_url) as client:
        cut = {"$push": {"tags": {"$each": [], "$slice": 1}}}
        client[site.database][COLLECTION].update_many({"_id": {"$in": list(keys)}}, cut)


async def test_they_are_listed_written_to_a_file_and_tried_again(site: Site, tmp_path: Path) -> None:
    fill(site)
    tool = Tool(site, tmp_path, collections={COLLECTION: site.options})
    assert (await tool("tables", "create")).code == 0
    copied = await tool("backfill", COLLECTION)
    assert copied.code == 1
    assert f"{TOO_MANY} not copied" in copied.out
    assert "shadow jobs failed 1" in copied.out

    pages = [(await tool("jobs", "failed", "1", "--size", "2", "--page", str(page), "--json")) for page in (1, 2, 3, 4)]
    assert [each.code for each in pages] == [1] * 4
    assert [(each.json["count"], each.json["pages"], len(each.json["documents"])) for each in pages] == [
        (TOO_MANY, 3, 2), (TOO_MANY, 3, 2), (TOO_MANY, 3, 1), (TOO_MANY, 3, 0),
    ]  # fmt: skip
    shown = [one for each in pages for one in each.json["documents"]]
    assert len({one["key"] for one in shown}) == TOO_MANY
    assert {(one["key"].partition(":")[0], one["kind"], one["reason"]) for one in shown} == {
        ("int", "failed", "WriteError 2")
    }
    plain = await tool("jobs", "failed", "1", "--keys")
    assert all(f'{{"_id": {{"$numberInt": "{n}"}}}}' in plain.out for n in range(TOO_MANY))
    assert "failed: WriteError 2: 5" in plain.out

    file = tmp_path / "failed.jsonl"
    assert (await tool("jobs", "failed", "1", "--file", str(file))).code == 1
    header, *lines = map(json.loads, file.read_text().splitlines())
    assert (header["job"], header["collection"]) == (1, COLLECTION)
    assert sorted(int(each["_id"]["$numberInt"]) for each in lines) == list(range(TOO_MANY))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    shorten(site, range(2))
    some = await tool("jobs", "failed", "1", "--retry", "--json")
    assert (some.code, some.json["outcome"], some.json["count"]) == (1, "incomplete", TOO_MANY - 2)
    shorten(site, range(TOO_MANY))
    rest = await tool("jobs", "failed", "1", "--retry")
    assert rest.code == 0, rest.out
    assert "complete; 0 documents not copied" in rest.out
    (listed,) = json.loads((await tool("jobs", "list", "--json")).out)
    assert (listed["state"], listed["issues"], listed["seen"]) == ("complete", 0, COUNT)
    assert await site.disagreements() == []


@pytest.mark.takes_turns
async def test_a_retry_that_would_prove_nothing_is_refused(site: Site, tmp_path: Path) -> None:
    fill(site)
    tool = Tool(site, tmp_path, collections={COLLECTION: site.options})
    assert (await tool("tables", "create")).code == 0
    for command in (("backfill", COLLECTION), ("backfill", COLLECTION), ("verify", COLLECTION)):
        await tool(*command)
    older = await tool.program("jobs", "failed", "1", "--retry")
    assert (older.code, "job 2 is newer" in older.err) == (2, True), older.err
    other = await tool.program("jobs", "failed", "3", "--retry")
    assert (other.code, "no backfill but a verify" in other.err) == (2, True), other.err
    gone = await tool.program("jobs", "failed", "1")
    assert (gone.code, "shadow jobs failed 2" in gone.err) == (2, True), gone.err
    none = await tool.program("jobs", "failed", "77")
    assert (none.code, "there is no job 77" in none.err) == (2, True), none.err
