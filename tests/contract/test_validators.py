"""A collection with a validator, as the store that follows: what is copied there, and which right that takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import MongoClient

from shadow.model.outcome import refusal_of
from shadow.model.version import ABSENT, Document, Image, Tombstone, Version
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from shadow.stores.mongo.validation import RefusedByValidator
from shadow.stores.stamps import Stamp
from shadow.writes.refusals import advice
from tests.support.topologies import allow_past_validators, root_url

NAME = "strict"
VALID: Document = {"_id": "valid", "n": 1}
INVALID: Document = {"_id": "invalid", "n": "one"}

EVERYWHERE = pytest.mark.parametrize("mongo_url", ["one", "replicas", "auth"], indirect=True)
DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])


def image(document: Document) -> Image:
    return Image(Version("b" * 24, 3), document)


@pytest.fixture
async def store(mongo_url: str, mongo_database: str, driver: str) -> AsyncIterator[MongoStore]:
    """Its collection takes documents whose `n` is a number."""
    with MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        client[mongo_database].create_collection(NAME, validator={"n": {"$type": "number"}})
    made = MongoStore(connect(mongo_url, driver), mongo_database, {}, owned=True)
    yield made
    await made.close()


@EVERYWHERE
@DRIVERS
async def test_a_copy_and_a_tombstone_pass_by_the_validator(
    store: MongoStore, mongo_url: str, mongo_database: str
) -> None:
    allow_past_validators(mongo_url, mongo_database)
    assert await store.put(NAME, "invalid", image(INVALID), ABSENT)
    assert not await store.put(NAME, "invalid", image(INVALID), ABSENT)
    assert await store.put(NAME, "gone", Image(Tombstone("t")), ABSENT)
    documents = [VALID, INVALID, {"_id": "other", "n": "two"}]
    pages = [(each["_id"], image(each)) for each in documents]
    assert await store.ranges.put_absent(NAME, pages) == [True, False, True]
    assert await store.images(NAME, ["valid", "other"]) == [image(VALID), image(documents[2])]
    stamps = [Stamp(key, (await store.image(NAME, key)).state) for key in ("valid", "invalid", "gone")]
    assert await store.stamps.strip(NAME, stamps) == [True] * 3
    assert (await store.image(NAME, "invalid")) == Image(Version("", 0), INVALID)


@pytest.mark.parametrize("mongo_url", ["auth"], indirect=True)
@DRIVERS
async def test_without_the_right_what_is_valid_is_copied_and_the_right_is_named_for_the_rest(store: MongoStore) -> None:
    assert await store.put(NAME, "valid", image(VALID), ABSENT)
    for refused in (image(INVALID), Image(Tombstone("t"))):
        with pytest.raises(RefusedByValidator, match=r"strict.*bypassDocumentValidation") as caught:
            await store.put(NAME, "invalid", refused, ABSENT)
        assert refusal_of(caught.value) == "RefusedByValidator 121"
        assert "bypassDocumentValidation" in advice(refusal_of(caught.value))
    other: Document = {"_id": "other", "n": 2}
    assert await store.ranges.put_absent(NAME, [(each["_id"], image(each)) for each in (INVALID, other)]) == [
        False,
        True,
    ]
    assert await store.images(NAME, ["valid", "other", "invalid"]) == [image(VALID), image(other), Image(ABSENT)]
