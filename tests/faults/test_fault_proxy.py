"""The fault proxy does what its modes say, to real clients of real servers: each test is what a driver sees."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import pymongo
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, NetworkTimeout

from shadow.embedded.servers import CREDENTIALS, FaultProxy, Mode

NewProxy = Callable[[str], FaultProxy]
Things = Collection[dict[str, Any]]


@pytest.fixture
def proxy(new_proxy: NewProxy, mongo_url: str) -> FaultProxy:
    return new_proxy(mongo_url)


@pytest.fixture
def things(proxy: FaultProxy, mongo_database: str) -> Iterator[Things]:
    """A collection behind the proxy, its connection open."""
    options: dict[str, Any] = {"retryWrites": False, "retryReads": False, "socketTimeoutMS": 500}
    with pymongo.MongoClient[dict[str, Any]](proxy.url, serverSelectionTimeoutMS=2000, **options) as client:
        client.admin.command("ping")
        yield client[mongo_database]["things"]
        proxy.clear()


@pytest.fixture
def direct(mongo_url: str, mongo_database: str) -> Iterator[Things]:
    """The same collection, past the proxy."""
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        yield client[mongo_database]["things"]


def test_requests_pass_and_are_counted(proxy: FaultProxy, things: Things) -> None:
    before = proxy.requests
    things.insert_one({"_id": 1, "text": "x" * 200_000})
    assert things.find_one({"_id": 1}) is not None
    assert proxy.requests >= before + 2
    assert proxy.faults == 0


def test_refuse_drops_the_open_connection_and_applies_nothing(
    proxy: FaultProxy, things: Things, direct: Things
) -> None:
    proxy.mode = Mode.REFUSE
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": 1})
    proxy.mode = "pass"
    assert direct.count_documents({}) == 0
    things.insert_one({"_id": 2})


def test_cut_applies_the_write_and_loses_the_answer_once(proxy: FaultProxy, things: Things, direct: Things) -> None:
    proxy.set("cut", only=b"insert", times=1)
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": 1})
    assert direct.find_one() == {"_id": 1}
    assert proxy.faults == 1
    things.insert_one({"_id": 2})


def test_hang_times_the_client_out_and_delivers_late(proxy: FaultProxy, things: Things, direct: Things) -> None:
    proxy.set("hang", only=b"insert")
    with pytest.raises(NetworkTimeout):
        things.insert_one({"_id": 1})
    assert direct.count_documents({}) == 0
    proxy.clear()
    deadline = time.monotonic() + 30
    while direct.count_documents({}) == 0:
        assert time.monotonic() < deadline, "the request was not delivered"


def test_hang_holds_back_everything_until_it_ends(proxy: FaultProxy, mongo_url: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](proxy.url) as client:
        client.admin.command("ping")
        proxy.mode = "hang"
        answered = threading.Event()

        def ping() -> None:
            client.admin.command("ping")
            answered.set()

        thread = threading.Thread(target=ping)
        thread.start()
        assert not answered.wait(0.3)
        proxy.mode = "pass"
        assert answered.wait(30)
        thread.join(90)


def test_refuse_after_hang_delivers_nothing(proxy: FaultProxy, things: Things, direct: Things) -> None:
    proxy.set("hang", only=b"insert")
    with pytest.raises(NetworkTimeout):
        things.insert_one({"_id": 1})
    proxy.mode = "refuse"
    proxy.clear()
    things.insert_one({"_id": 2})
    assert [found["_id"] for found in direct.find()] == [2]


def test_delay_takes_its_time(proxy: FaultProxy, things: Things) -> None:
    proxy.set("delay", seconds=0.2, only=b"find")
    began = time.monotonic()
    things.find_one()
    assert time.monotonic() - began >= 0.2


def test_only_leaves_other_requests_alone(proxy: FaultProxy, things: Things) -> None:
    proxy.set("refuse", only=b"insert")
    assert things.find_one() is None
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": 1})
    assert things.find_one() is None


def dynamo(url: str) -> Any:
    return boto3.client("dynamodb", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}), **CREDENTIALS)


def make_table(client: Any, name: str) -> None:
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.mark.parametrize(
    ("mode", "code", "status"),
    [("throttle", "ProvisionedThroughputExceededException", 400), ("error", "InternalServerError", 500)],
)
def test_http_faults_are_answered_without_asking_the_server(
    new_proxy: NewProxy, ministack_url: str, fresh_name: str, mode: str, code: str, status: int
) -> None:
    proxy = new_proxy(ministack_url)
    client = dynamo(proxy.url)
    make_table(client, fresh_name)
    proxy.set(mode, only=b".PutItem", times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            client.put_item(TableName=fresh_name, Item={"_id": {"S": "1"}})
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert client.scan(TableName=fresh_name)["Count"] == 0
    client.put_item(TableName=fresh_name, Item={"_id": {"S": "1"}, "text": {"S": "x" * 100_000}})
    assert client.scan(TableName=fresh_name)["Count"] == 1


def test_cut_over_http_applies_the_write(new_proxy: NewProxy, dynamodb_local_url: str, fresh_name: str) -> None:
    proxy = new_proxy(dynamodb_local_url)
    client = dynamo(proxy.url)
    make_table(client, fresh_name)
    proxy.set("cut", only=b".PutItem", times=1)
    with pytest.raises(ConnectionClosedError):
        client.put_item(TableName=fresh_name, Item={"_id": {"S": "1"}})
    assert client.scan(TableName=fresh_name)["Count"] == 1


async def test_it_serves_and_changes_from_async_code(mongo_url: str) -> None:
    direct = FaultProxy.before(mongo_url)
    async with direct as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        proxy.mode = "refuse"
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
    assert "fault-proxy" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("url", ["mongodb://a:1,b:2/?replicaSet=rs", "http://a/", "mongodb://a:port/"])
def test_it_stands_before_one_server(url: str) -> None:
    with pytest.raises(ValueError, match=r"several servers|no host and port|Port could not be cast"):
        FaultProxy.before(url)
