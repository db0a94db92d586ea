"""Requests are, byte for byte, those that botocore's own serializer makes."""

from __future__ import annotations

from typing import Any

import botocore.session
from botocore.serialize import JSONSerializer

from shadow.stores.dynamo.client.serializer import Serializer, patch_serializer
from tests.support.cases import each_of

EVERY: dict[str, Any] = {
    "_id": {"S": "kéy"},
    "n": {"N": "1.5"},
    "yes": {"BOOL": True},
    "null": {"NULL": True},
    "raw": {"B": b"\x00\xff"},
    "array": {"B": bytearray(b"abc")},
    "sets": {"M": {"s": {"SS": ["a"]}, "n": {"NS": ["1"]}, "b": {"BS": [b"\x01", b""]}}},
    "deep": {"L": [{"M": {"x": {"L": [{"B": b"\x02"}, {"S": ""}]}}}, {"L": []}, {"M": {}}]},
}
KEY = {"_id": EVERY["_id"]}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("PutItem", {"TableName": "t", "Item": EVERY, "ExpressionAttributeValues": {":a": EVERY["deep"]}}),
    ("UpdateItem", {"TableName": "t", "Key": KEY, "ExpressionAttributeNames": {"#a": "a"}, "UpdateExpression": "x"}),
    ("BatchGetItem", {"RequestItems": {"t": {"Keys": [KEY, KEY], "ConsistentRead": True}}}),
    ("BatchWriteItem", {"RequestItems": {"t": [{"PutRequest": {"Item": EVERY}}, {"DeleteRequest": {"Key": KEY}}]}}),
    ("BatchExecuteStatement", {"Statements": [{"Statement": "INSERT", "Parameters": list(EVERY.values())}]}),
    ("TransactWriteItems", {"TransactItems": [{"Put": {"TableName": "t", "Item": EVERY}}]}),
    ("Scan", {"TableName": "t", "ExclusiveStartKey": KEY, "Limit": 3, "Segment": 0, "TotalSegments": 2}),
]


@each_of(("operation", "parameters"), REQUESTS, ids=[name for name, _ in REQUESTS])
def test_requests_are_those_of_botocore(operation: str, parameters: dict[str, Any]) -> None:
    """Whatever holds values, at whatever depth, goes out as it would have gone."""
    model = botocore.session.get_session().get_service_model("dynamodb").operation_model(operation)
    theirs = JSONSerializer().serialize_to_request(parameters, model)
    assert Serializer().serialize_to_request(parameters, model) == theirs


def test_only_a_client_of_this_protocol_is_given_it() -> None:
    """A serializer that is none of the JSON protocol, or one that checks parameters, stays where it is."""

    class Client:
        def __init__(self, serializer: object) -> None:
            self._serializer = serializer

    json, other = Client(JSONSerializer()), Client(object())
    patch_serializer(json)
    patch_serializer(other)
    assert type(json._serializer) is Serializer
    assert type(other._serializer) is object
