"""The journal's table in DynamoDB, and its client: botocore's own synchronous one, used by several threads."""

from __future__ import annotations

import contextlib
import email.utils
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from shadow.journal.server.clock import Clock, steady
from shadow.journal.server.dynamo_items import Item
from shadow.model.denied import denied

__all__ = ["CONDITION", "Access", "ClientError", "JournalTable", "Unless", "code_of", "explained", "table_description"]

CONDITION: Final = "ConditionalCheckFailedException"
_MISSING: Final = "ResourceNotFoundException"
_PER_BATCH: Final = 25
"""BatchWriteItem's limit (Amazon DynamoDB API Reference)."""
_PER_GET: Final = 100
"""BatchGetItem's limit (likewise)."""
_PARALLEL: Final = 8
_ASIDE: Final = 5.0
"""Seconds by which this host's clock may be off, where the server's answers have no date."""

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True)
class Access:
    """How to reach DynamoDB. Missing credentials come from wherever the AWS SDK finds them."""

    region: str
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


def table_description(table: str) -> dict[str, Any]:
    """The parameters of CreateTable."""

    def index(name: str, attribute: str) -> dict[str, Any]:
        return {
            "IndexName": name,
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": attribute, "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }

    return {
        "TableName": table,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
            {"AttributeName": "t", "AttributeType": "N"},
            {"AttributeName": "s", "AttributeType": "N"},
        ],
        "GlobalSecondaryIndexes": [index("by_turn", "t"), index("by_age", "s")],
        "BillingMode": "PAY_PER_REQUEST",
    }


class JournalTable:
    """Requests on one table. They raise what the client raises; each answer also sets the clock."""

    def __init__(
        self,
        access: Access,
        name: str,
        clock: Clock,
        patience: float,
        describe: Callable[[str], dict[str, Any]] = table_description,
    ) -> None:
        """Connects on first use. `patience`: seconds for one request, about, in all its attempts; `describe`: the
        parameters with which a missing table is created."""
        self.name = name
        self._describe = describe
        self._clock = clock
        self._patience = patience
        self._client = _client(access, patience)
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="shadow-journal-dynamodb")

    def release(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def status(self) -> str:
        """The status in DynamoDB's own word; creates a missing table."""
        try:
            return str(self.call("describe_table")["Table"]["TableStatus"])
        except ClientError as error:
            if code_of(error) != _MISSING:
                raise
        # Another process may be faster.
        with Unless("ResourceInUseException"):
            self.call("create_table", **self._describe(self.name))
        return "CREATING"

    def call(self, verb: str, **parameters: Any) -> dict[str, Any]:
        """One request on the table; its answer also sets the clock."""
        parameters = {"TableName": self.name, **parameters} if "RequestItems" not in parameters else parameters
        sent = steady()
        answer: dict[str, Any] = getattr(self._client, verb)(**parameters)
        self._observe_time(answer, sent)
        return answer

    def _observe_time(self, answer: dict[str, Any], sent: float) -> None:
        """The Date header counts whole seconds, and a server may reuse one for a second. Without it, this host's clock
        is used, with bounds as wide as its possible error."""
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        with contextlib.suppress(TypeError, ValueError):
            self._clock.observe(email.utils.parsedate_to_datetime(date).timestamp(), 2.0, sent, steady())
            return
        self._clock.observe(time.time() - _ASIDE, 2 * _ASIDE, sent, steady())

    def each(self, work: Callable[[A], T], arguments: Iterable[A]) -> list[T]:
        """Works on all of them at once; when all have ended, raises the error of the first that failed."""
        given = list(arguments)
        if len(given) == 1:
            return [work(given[0])]
        futures = [self._pool.submit(work, each) for each in given]
        errors = [error for each in futures if (error := each.exception()) is not None]
        if errors:
            raise errors[0]
        return [each.result() for each in futures]

    def write(self, requests: Sequence[Item]) -> None:
        """Puts and deletes, in no order and not atomically: if it raises, some may have been done."""
        self.each(self._write_some, [requests[at : at + _PER_BATCH] for at in range(0, len(requests), _PER_BATCH)])

    def _write_some(self, requests: Sequence[Item]) -> None:
        left: Any = {self.name: list(requests)}
        for _ in self._attempts():
            if not (left := self.call("batch_write_item", RequestItems=left).get("UnprocessedItems")):
                return

    def pages(self, **parameters: Any) -> Iterator[list[Item]]:
        while True:
            answer = self.call("query", **parameters)
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def get(self, keys: Sequence[Item]) -> list[Item]:
        """The items that exist, read consistently, in no order."""
        items: list[Item] = []
        for at in range(0, len(keys), _PER_GET):
            left: Any = {self.name: {"Keys": list(keys[at : at + _PER_GET]), "ConsistentRead": True}}
            for _ in self._attempts():
                answer = self.call("batch_get_item", RequestItems=left)
                items += answer["Responses"].get(self.name, [])
                if not (left := answer.get("UnprocessedKeys")):
                    break
        return items

    def _attempts(self) -> Iterator[None]:
        """Yields for each attempt, with growing pauses between them. Raises `TimeoutError` when the patience is
        over."""
        deadline = time.monotonic() + self._patience
        pause = 0.02
        while True:
            yield
            if time.monotonic() > deadline:
                raise TimeoutError("the table is throttled")
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(1.0, 2 * pause)


def _client(access: Access, patience: float) -> Any:
    session = botocore.session.get_session()
    if access.access_key_id is not None:
        # A profile named in the environment must not matter: botocore would fail if it does not exist.
        session.get_component("config_store").set_config_variable("profile", None)
    return session.create_client(
        "dynamodb",
        region_name=access.region,
        endpoint_url=access.endpoint_url,
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        aws_session_token=access.session_token,
        config=Config(
            connect_timeout=patience / 3,
            read_timeout=patience / 3,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=2 * _PARALLEL + 4,
            parameter_validation=False,
            tcp_keepalive=True,
        ),
    )


class Unless:
    """Suppresses one error code of DynamoDB."""

    def __init__(self, code: str) -> None:
        self._expected = code

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, ClientError) and code_of(error) == self._expected


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def explained(error: Exception, table: str) -> tuple[str, str]:
    """What went wrong and what to do next, without content."""
    if isinstance(error, ClientError):
        code = code_of(error)
        if code == _MISSING:
            return f"there is no table {table}", "create it: shadow tables create"
        if "AccessDenied" in code:
            sentence = str(error.response.get("Error", {}).get("Message", ""))
            lacks = denied(sentence, error.operation_name, table)
            return (
                f"DynamoDB refused it ({code}): {lacks}",
                "grant it: `shadow tables export iam` prints all of it",
            )
        if "Token" in code or "Signature" in code or "UnrecognizedClient" in code:
            return f"DynamoDB refused it ({code})", "check the credentials and their rights on the journal's table"
        return f"DynamoDB answered {code}", "see the table's metrics: throttled, or changed by hand?"
    if isinstance(error, HTTPClientError | OSError):
        return (
            f"DynamoDB did not answer ({type(error).__name__})",
            "check region and endpoint, and that this host can reach it",
        )
    if isinstance(error, BotoCoreError):
        return type(error).__name__, "check the credentials and the region"
    return type(error).__name__, "check journal.url"
