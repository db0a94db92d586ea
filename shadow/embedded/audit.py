"""Reads the stores with the bare drivers, bypassing shadow, for proofs in the demo and the tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.session
import bson
from pymongo import MongoClient

from shadow.model.order import key_digest
from shadow.model.schema import CollectionSpec
from shadow.model.stored import RAW, is_readable, key_of, split
from shadow.model.version import Document, Image, Key, Version, fresh_id
from shadow.stores.dynamo.items.codec import Codec, Item
from shadow.stores.dynamo.items.keys import key_text

__all__ = ["Audit", "Disagreement", "dynamo_client"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A key or a version on which the stores differ. Never a value."""

    collection: str
    key: Key
    what: str


@functools.lru_cache(maxsize=8)
def dynamo_client(endpoint: str) -> Any:
    """A plain synchronous client with the credentials that local servers accept."""
    session = botocore.session.get_session()
    # Local servers need no profile; botocore would fail if the environment names one that does not exist.
    session.get_component("config_store").set_config_variable("profile", None)
    return session.create_client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - local servers take any
    )


class Audit:
    """Synchronous on purpose: call it once the traffic has stopped, in a thread if an event loop must keep running."""

    def __init__(
        self, mongo_url: str, database: str, endpoint: str, table_prefix: str, specs: Mapping[str, CollectionSpec]
    ) -> None:
        self._mongo_url = mongo_url
        self._database = database
        self._endpoint = endpoint
        self._prefix = table_prefix
        self._specs = specs

    def disagreements(self) -> list[Disagreement]:
        """All differences between the stores: documents byte by byte, and versions."""
        return [each for name in self._specs for each in self._of(name)]

    def documents(self, collection: str) -> tuple[dict[str, Document], dict[str, Document]]:
        """The documents of a collection by digest of their key: MongoDB's, DynamoDB's."""
        mongo, dynamo = self._mongo(collection), self._dynamo(collection)
        return _documents(mongo), _documents(dynamo)

    def _of(self, collection: str) -> Iterator[Disagreement]:
        mongo, dynamo = self._mongo(collection), self._dynamo(collection)
        for digest in mongo.keys() | dynamo.keys():
            left, right = mongo.get(digest), dynamo.get(digest)
            what = _difference(left, right)
            if what:
                image = left if left is not None and left.document is not None else right
                assert image is not None
                assert image.document is not None
                yield Disagreement(collection, image.document["_id"], what)

    def _mongo(self, collection: str) -> dict[str, Image]:
        reserved = self._specs[collection].reserved
        with MongoClient[Any](self._mongo_url, serverSelectionTimeoutMS=10_000) as client:
            found = client.get_database(self._database, codec_options=RAW)[collection].find()
            return {key_digest(key_of(raw)[0]): split(raw, reserved) for raw in found}

    def _dynamo(self, collection: str) -> dict[str, Image]:
        codec = Codec(self._specs[collection])
        items = {item["_id"]["S"]: item for item in self._items(collection)}
        images: dict[str, Image] = {}
        for item in items.values():
            if codec.is_auxiliary(item):
                continue
            parts = codec.parts(item)
            body = parts and b"".join(items.get(key, {}).get("d", {}).get("B", b"") for key in parts.keys)
            image = codec.decode(item, body or None)
            if image.document is not None:
                images[key_digest(image.document["_id"])] = image
        return images

    def _items(self, collection: str) -> Iterator[Item]:
        pages = dynamo_client(self._endpoint).get_paginator("scan")
        for page in pages.paginate(TableName=f"{self._prefix}{collection}", ConsistentRead=True):
            yield from page["Items"]

    # --- damage that bypasses shadow -------------------------------------------------------------------------

    def damage(self, collection: str, key: Key, field: str, value: dict[str, Any]) -> None:
        """Replaces one attribute of an item by another value in wire form; the version stays."""
        dynamo_client(self._endpoint).update_item(
            TableName=f"{self._prefix}{collection}",
            Key={"_id": {"S": key_text(key)}},
            UpdateExpression="SET #f = :v",
            ConditionExpression="attribute_exists(#id)",
            ExpressionAttributeNames={"#f": field, "#id": "_id"},
            ExpressionAttributeValues={":v": value},
        )

    def remove(self, collection: str, key: Key) -> None:
        """Deletes an item without leaving a tombstone."""
        dynamo_client(self._endpoint).delete_item(
            TableName=f"{self._prefix}{collection}", Key={"_id": {"S": key_text(key)}}
        )

    def plant(self, collection: str, document: Document) -> None:
        """Inserts a document that the primary does not have."""
        codec = Codec(self._specs[collection])
        encoded = codec.encode(key_text(document["_id"]), Version(fresh_id(), 1), document, "")
        dynamo_client(self._endpoint).put_item(TableName=f"{self._prefix}{collection}", Item=encoded.item)


def _documents(images: Mapping[str, Image]) -> dict[str, Document]:
    return {digest: image.document for digest, image in images.items() if image.document is not None}


def _difference(left: Image | None, right: Image | None) -> str:
    if left is None or left.document is None:
        return "" if right is None or right.document is None else "only in DynamoDB"
    if right is None or right.document is None:
        return "only in MongoDB"
    if not is_readable(left.document) or not is_readable(right.document):
        return "unreadable"
    if bson.encode(left.document) != bson.encode(right.document):
        return "different documents"
    return "" if left.state == right.state else "different versions"
