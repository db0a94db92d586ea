"""Every real document goes in through the shim and comes back from each store as it was."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import bson
import pytest

from shadow import Shadow
from shadow.model.limits import Limits
from shadow.model.order import key_digest
from shadow.model.phase import Phase, StoreName
from tests.support.shims import assert_level, audit_of, settings_for

Documents = dict[str, list[dict[str, Any]]]


def by_key(documents: list[dict[str, Any]]) -> dict[str, bytes]:
    """Key to BSON, with `_id` first as MongoDB stores it; other fields in their order."""
    return {
        key_digest(each["_id"]): bson.encode({"_id": each["_id"], **{k: v for k, v in each.items() if k != "_id"}})
        for each in documents
    }


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "primary"), [("dynamodb_local_url", StoreName.DYNAMO), ("ministack_url", StoreName.MONGO)]
)
async def test_every_real_document_comes_back_from_each_store_byte_for_byte(
    server: str,
    primary: StoreName,
    real_documents: Documents,
    mongo_url: str,
    mongo_database: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Inserted with one store as primary and found there, found by a second Shadow with the other one as primary and
    no shadow reads, and seen in both past everything."""
    url = request.getfixturevalue(server)
    limits = Limits(loop_lag=0, compare_documents=5000, read_deadline=60, write_queue=10_000)
    documents = copy.deepcopy(real_documents)
    for collection in documents.values():
        for document in collection:
            document.setdefault("_id", bson.ObjectId())
    where = (tmp_path, mongo_url, url, mongo_database, documents)
    async with Shadow.from_settings(settings_for(*where, primary=primary, limits=limits)) as shadow:
        await shadow.prepare()
        for name, collection in documents.items():
            result = await shadow[name].insert_many(collection, ordered=False)
            assert len(result.inserted_ids) == len(collection)
        await found_again(shadow, documents)
        await assert_level(shadow)
    after = settings_for(*where, primary=primary.other, phase=Phase.DUAL_WRITE)
    async with Shadow.from_settings(after) as shadow:
        await found_again(shadow, documents)
        await assert_level(shadow)
        audit = audit_of(shadow.admin.settings)
    for name, collection in documents.items():
        for stored in audit.documents(name):
            assert by_key(list(stored.values())) == by_key(collection), name


async def found_again(shadow: Shadow, documents: Documents) -> None:
    for name, collection in documents.items():
        assert by_key(await shadow[name].find().to_list()) == by_key(collection), name
        last = collection[-1]
        assert by_key([await shadow[name].find_one({"_id": last["_id"]})]) == by_key([last])
