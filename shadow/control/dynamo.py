"""The control store in one partition of a DynamoDB table: of its own, or the journal's. Every read is consistent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import bson
from botocore.exceptions import BotoCoreError, ClientError

from shadow.control.records import MISSING, Record, Value
from shadow.errors import ControlError
from shadow.journal.server.clock import Clock, ServerClock
from shadow.journal.server.dynamo_table import CONDITION, Access, JournalTable, code_of, explained, table_description
from shadow.model.values import CANONICAL
from shadow.model.version import fresh_id

__all__ = ["DynamoRecords", "control_description"]

_PATIENCE: Final = 5.0
"""Seconds for one request, in all its attempts."""
_PARTITION: Final = {"S": "control"}
_DELETED_AT_ONCE: Final = 1000
_READY: Final = 120.0
"""Seconds for a new table to become active."""


def control_description(table: str) -> dict[str, Any]:
    """The parameters of CreateTable for a table of its own."""
    keys = {"pk": "HASH", "sk": "RANGE"}
    return {
        "TableName": table,
        "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in keys],
        "BillingMode": "PAY_PER_REQUEST",
    }


class DynamoRecords:
    """See `records.Records`. An item holds `sk` the key, `v` the value as BSON, `r` the revision. Connects on first
    use; `patience`: seconds for one request."""

    def __init__(self, access: Access, table: str, *, patience: float = _PATIENCE, of_journal: bool = False) -> None:
        """`of_journal`: the table is a journal's, and is made as one."""
        self._describe = table_description if of_journal else control_description
        self._access = access
        self._name = table
        self._patience = patience
        self._clock: Clock = ServerClock()
        self._lock = threading.Lock()
        self._opened: JournalTable | None = None

    @property
    def place(self) -> str:
        return f"dynamodb {self._name}"

    def prepare(self) -> None:
        end = time.monotonic() + _READY
        with self._using() as table:
            while (status := table.status()) != "ACTIVE":
                if time.monotonic() > end:
                    raise ControlError(
                        f"the table {self._name} of the control store is {status}", hint="try again later"
                    )
                time.sleep(0.2)

    def get(self, key: str) -> Record | None:
        with self._using() as table:
            found = table.call("get_item", Key=_key(key), ConsistentRead=True).get("Item")
        return None if found is None else _record(found)

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        found: list[Record] = []
        first = max(prefix, after)
        # A condition on a sort key must not name an empty text.
        low = {":low": {"S": first}} if first else {}
        between = " AND sk BETWEEN :low AND :high" if first else " AND sk < :high"
        with self._using() as table:
            for page in table.pages(
                KeyConditionExpression=f"pk = :p{between}",
                ExpressionAttributeValues={":p": _PARTITION, **low, ":high": {"S": f"{prefix}\U0010ffff"}},
                ConsistentRead=True,
                **({} if limit is None else {"Limit": limit + 1}),
            ):
                found += [_record(item) for item in page if item["sk"]["S"] > after]
                if limit is not None and len(found) >= limit:
                    return found[:limit]
        return found

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        item = _item(key, value)
        condition: dict[str, Any] = {}
        if expected == MISSING:
            condition = {"ConditionExpression": "attribute_not_exists(pk)"}
        elif expected is not None:
            condition = {"ConditionExpression": "r = :r", "ExpressionAttributeValues": {":r": {"S": expected}}}
        revision = str(item["r"]["S"])
        with self._using() as table:
            try:
                table.call("put_item", Item=item, **condition)
            except ClientError as error:
                if code_of(error) != CONDITION:
                    raise
                # The client repeats a write whose answer was lost: what stands there may be its own first attempt.
                found = self.get(key)
                return revision if found is not None and found.revision == revision else None
        return revision

    def put_many(self, values: Mapping[str, Value]) -> None:
        requests = [{"PutRequest": {"Item": _item(key, value)}} for key, value in values.items()]
        if requests:
            with self._using() as table:
                table.write(requests)

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        condition: dict[str, Any] = {}
        if expected is not None:
            condition = {"ConditionExpression": "r = :r", "ExpressionAttributeValues": {":r": {"S": expected}}}
        with self._using() as table:
            try:
                gone = table.call("delete_item", Key=_key(key), ReturnValues="ALL_OLD", **condition)
            except ClientError as error:
                if code_of(error) != CONDITION:
                    raise
                return False
        return "Attributes" in gone

    def delete_all(self, prefix: str) -> int:
        deleted = 0
        while keys := [each.key for each in self.scan(prefix, limit=_DELETED_AT_ONCE)]:
            with self._using() as table:
                table.write([{"DeleteRequest": {"Key": _key(key)}} for key in keys])
            deleted += len(keys)
        return deleted

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.release()

    @contextmanager
    def _using(self) -> Iterator[JournalTable]:
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = JournalTable(self._access, self._name, self._clock, self._patience, self._describe)
                table = self._opened
            yield table
        except (ClientError, BotoCoreError, OSError) as error:
            what, hint = explained(error, self._name)
            raise ControlError(f"control store: {what}", hint=hint) from error


def _key(key: str) -> dict[str, Any]:
    return {"pk": _PARTITION, "sk": {"S": key}}


def _item(key: str, value: Value) -> dict[str, Any]:
    return {**_key(key), "v": {"B": bson.encode(value)}, "r": {"S": fresh_id()}}


def _record(item: Mapping[str, Any]) -> Record:
    return Record(item["sk"]["S"], bson.decode(item["v"]["B"], codec_options=CANONICAL), item["r"]["S"])
