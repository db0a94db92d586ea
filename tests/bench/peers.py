"""What the shim is measured against: the bare drivers, and shims as they are usually written."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aioboto3
import aiohttp
import boto3
from aiobotocore.config import AioConfig
from aiodynamo.client import Client as AioDynamo
from aiodynamo.client import Table
from aiodynamo.credentials import Key, StaticCredentials
from aiodynamo.http.aiohttp import AIOHTTP
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from bson import ObjectId
from deepdiff import DeepDiff
from laboratory import Experiment
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient
from yarl import URL

from shadow.embedded.servers import CREDENTIALS

__all__ = ["PLAIN", "Peers", "document", "opened"]

PLAIN: Final = "plain"
"""The collection and the table of the peers: the same documents, without versions."""

_SERIALIZER: Final = TypeSerializer()
_DESERIALIZER: Final = TypeDeserializer()


def document(number: int, size: int = 0) -> dict[str, Any]:
    """A note of ten fields; with `size`, about so many bytes of body."""
    return {
        "_id": f"note-{number:06}",
        "user_id": f"user-{number % 50}",
        "title": f"Lecture {number}: the shape of things",
        "body": "x" * max(40, size - 200),
        "status": "ready",
        "views": number % 1000,
        "score": 0.5 + number % 7,
        "created_at": dt.datetime(2024, 5, 1, 12, number % 60),
        "owner": ObjectId(f"{number:024x}"),
        "tags": ["physics", "week 3"],
    }


def item(note: dict[str, Any]) -> dict[str, Any]:
    """A note as a team would write it by hand: dates and ids as text, numbers as they come."""
    plain = {
        name: str(value) if isinstance(value, float | ObjectId | dt.datetime) else value for name, value in note.items()
    }
    return {name: _SERIALIZER.serialize(value) for name, value in plain.items()}


@dataclass
class Peers:
    """Every call takes a key; all go to the same servers, each with a client of its own."""

    motor: Any
    pymongo: Any
    dynamo: Any
    session: aioboto3.Session
    endpoint: str
    aiodynamo: Table
    blocking_mongo: Any
    blocking_dynamo: Any

    async def get_item(self, key: str) -> Any:
        answer = await self.dynamo.get_item(TableName=PLAIN, Key={"_id": {"S": key}}, ConsistentRead=True)
        return answer["Item"]

    async def put_item(self, note: dict[str, Any]) -> None:
        await self.dynamo.put_item(TableName=PLAIN, Item=item(note))

    async def naive_find_one(self, mongo: Any, key: str) -> Any:
        """Both at once, every read compared by DeepDiff."""
        primary, secondary = await asyncio.gather(mongo.find_one({"_id": key}), self.get_item(key))
        found = {name: _DESERIALIZER.deserialize(value) for name, value in secondary.items()}
        DeepDiff(primary, found, ignore_order=True)
        return primary

    async def laboratory_find_one(self, key: str) -> Any:
        """Both in turn, as a published experiment library does it; it knows no coroutines, so it has blocking clients
        and a thread."""
        return await asyncio.to_thread(self._experiment, key)

    def _experiment(self, key: str) -> Any:
        def second() -> Any:
            answer = self.blocking_dynamo.get_item(TableName=PLAIN, Key={"_id": {"S": key}}, ConsistentRead=True)
            return {name: _DESERIALIZER.deserialize(value) for name, value in answer["Item"].items()}

        experiment = Experiment()
        experiment.control(lambda: self.blocking_mongo.find_one({"_id": key}))
        experiment.candidate(second)
        return experiment.conduct()

    async def session_find_one(self, mongo: Any, key: str) -> Any:
        """Both at once, with a client for the call."""

        async def second() -> Any:
            async with self.session.client("dynamodb", endpoint_url=self.endpoint) as client:
                return await client.get_item(TableName=PLAIN, Key={"_id": {"S": key}}, ConsistentRead=True)

        primary, _ = await asyncio.gather(mongo.find_one({"_id": key}), second())
        return primary

    async def naive_update_one(self, mongo: Any, key: str, number: int) -> None:
        """Both at once, and nothing written down before."""
        await asyncio.gather(
            mongo.update_one({"_id": key}, {"$set": {"views": number}}),
            self.dynamo.update_item(
                TableName=PLAIN,
                Key={"_id": {"S": key}},
                UpdateExpression="SET #v = :v",
                ExpressionAttributeNames={"#v": "views"},
                ExpressionAttributeValues={":v": {"N": str(number)}},
            ),
        )

    async def plant(self, notes: list[dict[str, Any]]) -> None:
        await self.pymongo.create_index("user_id")
        await self.pymongo.insert_many([dict(each) for each in notes])
        await self.dynamo.create_table(
            TableName=PLAIN,
            KeySchema=[{"AttributeName": "_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for note in notes:
            await self.put_item(note)


@asynccontextmanager
async def opened(mongo_url: str, database: str, endpoint: str) -> AsyncIterator[Peers]:
    """The clients, closed at the end."""
    motor, pymongo = AsyncIOMotorClient(mongo_url), AsyncMongoClient[dict[str, Any]](mongo_url)
    session = aioboto3.Session(**CREDENTIALS)
    config = AioConfig(max_pool_connections=64)
    credentials = StaticCredentials(Key(CREDENTIALS["aws_access_key_id"], CREDENTIALS["aws_secret_access_key"]))
    async with (
        session.client("dynamodb", endpoint_url=endpoint, config=config) as dynamo,
        aiohttp.ClientSession() as http,
    ):
        other = AioDynamo(AIOHTTP(http), credentials, CREDENTIALS["region_name"], endpoint=URL(endpoint))
        blocking = MongoClient[dict[str, Any]](mongo_url)
        yield Peers(
            motor[database][PLAIN],
            pymongo[database][PLAIN],
            dynamo,
            session,
            endpoint,
            other.table(PLAIN),
            blocking[database][PLAIN],
            boto3.client("dynamodb", endpoint_url=endpoint, **CREDENTIALS),
        )
    motor.close()
    blocking.close()
    await pymongo.close()
