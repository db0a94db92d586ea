"""The embedded servers are real ones: data, crashes, pauses, and no process that outlives its owner."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import psutil
import pymongo
import pytest
from pymongo.errors import NetworkTimeout, ServerSelectionTimeoutError

from shadow.embedded.servers import CREDENTIALS, DynamoDBLocal, Ministack, Mongod, ServerProcess
from tests.support.processes import gone, until

OWNER = """
import sys, threading, time
from shadow.embedded.servers import Mongod
server = Mongod()
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, server.folder, flush=True)
time.sleep(100)
"""


def test_mongod_is_a_replica_set_that_takes_transactions(mongo_url: str, mongo_database: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client, client.start_session() as session:
        things = client[mongo_database]["things"]
        with session.start_transaction():
            things.insert_one({"_id": 1}, session=session)
        assert things.count_documents({}) == 1


def test_mongod_keeps_address_and_data_over_crash_and_restart(new_mongod: Callable[..., Mongod]) -> None:
    server = new_mongod()
    url = server.url
    with pymongo.MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
        client.shop.things.insert_one({"_id": 1})
        server.kill()
        server.restart()
        assert client.shop.things.find_one() == {"_id": 1}
        server.restart()
        client.shop.things.insert_one({"_id": 2})
    assert server.url == url
    folder = server.folder
    server.stop()
    assert not folder.exists()


def test_a_paused_mongod_does_not_answer_until_it_is_resumed(new_mongod: Callable[..., Mongod]) -> None:
    server = new_mongod()
    with pymongo.MongoClient[dict[str, Any]](
        server.url, socketTimeoutMS=300, serverSelectionTimeoutMS=300, retryReads=False
    ) as client:
        client.admin.command("ping")
        server.pause()
        with pytest.raises((NetworkTimeout, ServerSelectionTimeoutError)):
            client.admin.command("ping")
        server.resume()
        assert client.admin.command("ping")["ok"] == 1


def test_further_arguments_reach_mongod(new_mongod: Callable[..., Mongod]) -> None:
    server = new_mongod(extra=("--setParameter", "enableTestCommands=1"))
    with pymongo.MongoClient[dict[str, Any]](server.url) as client:
        off = {"configureFailPoint": "failCommand", "mode": "off"}
        assert client.admin.command(off)["ok"] == 1


def test_a_server_outlives_the_thread_that_started_it_and_dies_with_the_process() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(int(pid)).wait(0.3)
        owner.kill()
        until(lambda: gone(int(pid)))
        until(lambda: not Path(folder).exists())
    finally:
        owner.kill()
        owner.communicate()


async def test_cancelling_a_start_leaves_no_process() -> None:
    server = Mongod()
    entering = asyncio.ensure_future(server.__aenter__())
    await asyncio.to_thread(until, lambda: server.pid is not None)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not server.running
    assert server._folder is None


def dynamo(server: ServerProcess) -> Any:
    return boto3.client("dynamodb", endpoint_url=server.url, **CREDENTIALS)


def put_one(client: Any) -> None:
    client.create_table(
        TableName="things",
        KeySchema=[{"AttributeName": "_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="things", Item={"_id": {"S": "1"}})


@pytest.mark.takes_turns
def test_dynamodb_local_in_memory_forgets_at_a_restart(new_dynamodb_local: Callable[..., DynamoDBLocal]) -> None:
    server = new_dynamodb_local()
    put_one(dynamo(server))
    server.restart()
    assert dynamo(server).list_tables()["TableNames"] == []


@pytest.mark.takes_turns
def test_dynamodb_local_that_is_persistent_keeps_data_over_a_crash(
    new_dynamodb_local: Callable[..., DynamoDBLocal],
) -> None:
    server = new_dynamodb_local(persistent=True)
    put_one(dynamo(server))
    server.kill()
    server.restart()
    assert dynamo(server).get_item(TableName="things", Key={"_id": {"S": "1"}})["Item"] == {"_id": {"S": "1"}}


def test_ministack_listens_on_loopback_only_and_keeps_data_over_a_restart_if_asked(
    new_ministack: Callable[..., Ministack],
) -> None:
    server = new_ministack(persistent=True)
    put_one(dynamo(server))
    assert server.pid is not None
    listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) == {"127.0.0.1"}
    server.restart()
    assert dynamo(server).list_tables()["TableNames"] == ["things"]
