"""The streams of a store whose client was passed in: read with that client's credentials, region and endpoint, which
are nowhere else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import aioboto3
import pytest

from shadow.embedded.audit import dynamo_client
from shadow.model.schema import CollectionSpec, TableSpec
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def test_streams_are_read_with_what_the_given_client_has(dynamodb_local_url: str, fresh_name: str) -> None:
    session = aioboto3.Session(
        aws_access_key_id="given", aws_secret_access_key="given", region_name="ap-southeast-2"
    )  # fmt: skip
    spec = CollectionSpec("things", table=TableSpec(stream=True))
    async with session.client("dynamodb", endpoint_url=dynamodb_local_url) as client:
        store = DynamoStore(DynamoSettings(table_prefix=f"{fresh_name}-"), {"things": spec}, client=client)
        await store.prepare([spec])
        await store.check_stream(["things"])
        async with aclosing(store.past_writes(None)) as pages:  # type: ignore[type-var]
            await anext(pages)
            item = {"_id": {"S": "k"}, "data": {"B": b"\0\xff"}}
            put = dynamo_client(dynamodb_local_url).put_item
            await asyncio.to_thread(put, TableName=f"{fresh_name}-things", Item=item)
            async with asyncio.timeout(30):
                while not (writes := (await anext(pages)).writes):
                    pass
        assert [(each.key, each.kind.value, each.certain) for each in writes] == [("k", "inserted", True)]
        assert store._streams._client.meta.region_name == "ap-southeast-2"
        await store.close()
        await store.close()
        assert (await client.list_tables())["TableNames"], "it stays open"
