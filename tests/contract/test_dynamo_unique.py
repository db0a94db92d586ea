"""Unique constraints of DynamoDB tables: raced for by processes, and put on tables that have documents already."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.errors import DuplicateKeyError

from shadow.model.operation import Delete, Insert, Query, Update
from shadow.model.order import key_digest
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.version import Document, Image, Version, fresh_id
from shadow.stores.dynamo.store import DynamoStore
from tests.support.claimants import EMAIL, USERS, claim, store_at
from tests.support.writer import spawn

PLAIN: Final = CollectionSpec("users")
PAIRS: Final = CollectionSpec(
    "users", (), (UniqueSpec("email_1", ("email",), True), UniqueSpec("a_b", ("a", "b"), True))
)


@pytest.fixture(params=["dynamodb_local_url", "ministack_url"])
def url(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def store(url: str, fresh_name: str) -> AsyncIterator[DynamoStore]:
    made = store_at(url, f"{fresh_name}-", PLAIN)
    yield made
    await made.drop("users")
    await made.close()


async def insert(store: DynamoStore, document: Document) -> None:
    assert await store.apply("users", Insert(document["_id"], document, fresh_id()), fresh_id()) is not None


async def items_of(store: DynamoStore, kind: str) -> dict[str, str]:
    """Key to owner of the auxiliary items of one kind ("" for documents)."""
    name = store._table("users").name
    answer = await store._gateway.call("scan", name, TableName=name, ConsistentRead=True)
    stamps = {item["_id"]["S"]: item["_shadow"]["M"] for item in answer["Items"]}
    return {
        key: stamp.get("w", {}).get("S", "") for key, stamp in stamps.items() if stamp.get("k", {}).get("S", "") == kind
    }


async def test_of_two_hundred_inserts_by_four_processes_one_succeeds(
    store: DynamoStore, url: str, fresh_name: str, tmp_path: Path
) -> None:
    """The rest get DuplicateKeyError, and there is one document with one uniqueness item, and nothing else."""
    await store.prepare([USERS])
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    processes = [spawn(claim, url, f"{fresh_name}-", str(number), 50, str(log)) for number, log in enumerate(logs)]
    for process in processes:
        await asyncio.to_thread(process.join, 120)
        assert process.exitcode == 0
    outcomes: Counter[str] = Counter()
    for log in logs:
        outcomes.update(
            {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in log.read_text().splitlines()}
        )
    assert outcomes == {"inserted": 1, "duplicate": 199}
    (winner,) = await items_of(store, "")
    assert list((await items_of(store, "unique")).values()) == [winner]
    assert len(await items_of(store, "constraint")) == 1
    image = await store.image("users", winner)
    assert image.document is not None
    assert image.document["email"] == EMAIL
    await store.apply("users", Delete(winner, {"_id": winner}, "t"), fresh_id())
    assert await items_of(store, "unique") == {}


async def test_a_constraint_on_a_filled_table_holds_for_what_is_there(store: DynamoStore) -> None:
    """Compound, sparse and over arrays; what it claims it lets go again; preparing again reads nothing."""
    await store.prepare([PLAIN])
    rows: list[Document] = [{"_id": n, "email": f"e{n}", "a": n % 3, "b": n // 3} for n in range(30)]
    rows += [{"_id": "many", "email": [f"m{n}" for n in range(150)]}, {"_id": "none"}, {"_id": "nor this"}]
    await asyncio.gather(*(insert(store, row) for row in rows))
    await store.apply("users", Delete(29, {"_id": 29}, "t"), fresh_id())
    await store.prepare([PAIRS])
    assert len(await items_of(store, "unique")) == 29 * 2 + 150
    assert len(await items_of(store, "constraint")) == 2
    for document in ({"_id": "x", "email": "e7"}, {"_id": "x", "email": "m149"}, {"_id": "x", "a": 1, "b": 2}):
        with pytest.raises(DuplicateKeyError):
            await insert(store, document)
    await insert(store, {"_id": "x", "email": "e29"})
    await store.apply("users", Update(7, {"_id": 7}, {"$set": {"email": "new"}}, fresh_id()), fresh_id())
    await insert(store, {"_id": "y", "email": "e7"})
    before = await items_of(store, "unique")
    await store.prepare([PAIRS])
    await store.check_unique("users")
    assert await items_of(store, "unique") == before


async def test_duplicates_are_reported_before_a_constraint_is_accepted(store: DynamoStore) -> None:
    """How many values are held by how many documents, and which by the digest of their key; no value, no change."""
    await store.prepare([PLAIN])
    rows: list[Document] = [{"_id": n, "email": f"secret{n}"} for n in range(20)]
    rows += [{"_id": "again", "email": "secret3"}, {"_id": "list", "email": ["secret3", "secret4"]}]
    await asyncio.gather(*(insert(store, row) for row in rows))
    with pytest.raises(DuplicateKeyError) as caught:
        await store.prepare([PAIRS])
    text = str(caught.value)
    assert "email_1" in text
    assert "4 documents share 2 values" in text
    assert f"string:{key_digest('again')[:12]}" in text
    assert "secret" not in text + str(caught.value.details)
    assert caught.value.code == 11000
    assert await items_of(store, "unique") == {}
    assert await items_of(store, "constraint") == {}
    await store.apply("users", Delete("again", {}, "t"), fresh_id())
    await store.apply("users", Delete("list", {}, "t"), fresh_id())
    await store.prepare([PAIRS])
    assert len(await items_of(store, "unique")) == 20


async def test_documents_of_a_writer_that_did_not_know_are_found_when_it_is_checked(
    store: DynamoStore, url: str, fresh_name: str
) -> None:
    """They take their values; where a value is taken already, that is said."""
    await store.prepare([PAIRS])
    await insert(store, {"_id": 1, "email": "a"})
    unaware = store_at(url, f"{fresh_name}-", PLAIN)
    await insert(unaware, {"_id": 2, "email": "b"})
    await store.check_unique("users")
    with pytest.raises(DuplicateKeyError):
        await insert(store, {"_id": 3, "email": "b"})
    await insert(unaware, {"_id": 3, "email": "b"})
    with pytest.raises(DuplicateKeyError, match="2 documents share 1 value"):
        await store.check_unique("users")
    await unaware.close()


async def test_documents_that_change_while_a_constraint_is_put_on_them_keep_it_true(
    store: DynamoStore, url: str, fresh_name: str
) -> None:
    """Each value that is held has its item afterwards, owned by the document that holds it."""
    await store.prepare([PLAIN])
    await asyncio.gather(*(insert(store, {"_id": n, "email": f"e{n}"}) for n in range(40)))
    aware = store_at(url, f"{fresh_name}-", USERS)

    async def change(n: int) -> None:
        await aware.apply("users", Update(n, {"_id": n}, {"$set": {"email": f"changed{n}"}}, fresh_id()), fresh_id())

    await asyncio.gather(store.prepare([USERS]), *(change(n) for n in range(0, 40, 2)))
    assert sorted((await items_of(store, "unique")).values()) == sorted(await items_of(store, ""))
    await store.check_unique("users")
    await aware.close()


async def damage(store: DynamoStore, key: str, name: str) -> None:
    """Another hand leaves a field unreadable, so that nobody can tell which values the document holds."""
    table = store._table("users").name
    await store._gateway.call(
        "update_item",
        table,
        TableName=table,
        Key={"_id": {"S": key}},
        UpdateExpression="SET #s.#h = :h, #f = :v",
        ExpressionAttributeNames={"#f": name, "#s": "_shadow", "#h": "h"},
        ExpressionAttributeValues={":h": {"M": {name: {"S": "t"}}}, ":v": {"S": "no date"}},
    )


async def copied(store: DynamoStore, document: Document, version: Version) -> None:
    """A copy of the primary's over what stands there, as a heal makes it."""
    seen = await store.image("users", document["_id"])
    assert await store.put("users", document["_id"], Image(version, document), seen.state)


async def test_a_copy_over_what_cannot_be_read_takes_its_values_and_blocks_no_others(store: DynamoStore) -> None:
    """The claim of the value that nobody could read stays behind, and gives way to the next who wants it."""
    await store.prepare([USERS])
    await insert(store, {"_id": "a", "email": "one"})
    await damage(store, "a", "email")
    await copied(store, {"_id": "a", "email": "two"}, Version("b", 2))
    assert sorted((await items_of(store, "unique")).values()) == ["a", "a"], "the old claim stands for nothing"
    await insert(store, {"_id": "b", "email": "one"})
    assert sorted((await items_of(store, "unique")).values()) == ["a", "b"]
    for taken in ("one", "two"):
        with pytest.raises(DuplicateKeyError):
            await insert(store, {"_id": "c", "email": taken})


async def test_a_value_of_what_cannot_be_read_is_not_given_away(store: DynamoStore) -> None:
    await store.prepare([USERS])
    await insert(store, {"_id": "a", "email": "one"})
    await damage(store, "a", "email")
    with pytest.raises(DuplicateKeyError):
        await insert(store, {"_id": "b", "email": "one"})
    await copied(store, {"_id": "a", "email": "one"}, Version("b", 2))
    with pytest.raises(DuplicateKeyError):
        await insert(store, {"_id": "b", "email": "one"})


async def test_of_many_who_want_a_claim_that_nobody_holds_one_gets_it(store: DynamoStore) -> None:
    await store.prepare([USERS])
    await insert(store, {"_id": "a", "email": "one"})
    await damage(store, "a", "email")
    await copied(store, {"_id": "a", "email": "two"}, Version("b", 2))
    results = await asyncio.gather(
        *(insert(store, {"_id": f"c{number}", "email": "one"}) for number in range(6)),
        copied(store, {"_id": "a", "email": "one"}, Version("b", 3)),
        return_exceptions=True,
    )
    assert [type(each) for each in results if each is not None] == [DuplicateKeyError] * 6
    documents = [hit.document async for page in store.find("users", Query({"email": "one"})) for hit in page]
    assert len(documents) == 1


async def test_constraints_are_put_on_a_table_with_an_item_that_cannot_be_read(store: DynamoStore) -> None:
    await store.prepare([PLAIN])
    await insert(store, {"_id": "a", "email": "one"})
    await insert(store, {"_id": "b", "email": "two"})
    await damage(store, "a", "email")
    await store.prepare([USERS])
    assert list((await items_of(store, "unique")).values()) == ["b"]
    await copied(store, {"_id": "a", "email": "one"}, Version("b", 2))
    assert sorted((await items_of(store, "unique")).values()) == ["a", "b"]
