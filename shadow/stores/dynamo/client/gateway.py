"""The gateway to DynamoDB: one long-lived low-level client behind a semaphore. It translates errors and counts
capacity.

A new session and client for each call costs some 70 ms of processor time in the event loop, and the default pool of ten
connections starves some callers under load. Hence one client, and a pool as large as the semaphore in front of it.
"""

from __future__ import annotations

import asyncio
import functools
import os
from contextlib import AsyncExitStack
from typing import Any, Final

import aioboto3
import aiobotocore
import aiobotocore.session
import botocore
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector

from shadow.host.tasks import begin
from shadow.stores.calls import LEAST_PATIENCE, Calls, let_go
from shadow.stores.dynamo.client.attributes import Item
from shadow.stores.dynamo.client.errors import translate
from shadow.stores.dynamo.client.pace import RequestPace, in_time
from shadow.stores.dynamo.client.parser import ParserFactory
from shadow.stores.dynamo.client.serializer import patch_serializer
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.client.wire import OPERATIONS, Wire
from shadow.stores.dynamo.context import DEFAULTS, DynamoContext

__all__ = ["Cancelled", "ConditionFailed", "Gateway", "config_of", "session_of"]

_USER_AGENT: Final = f"shadow aiobotocore/{aiobotocore.__version__} botocore/{botocore.__version__}"


class ConditionFailed(Exception):
    """The condition of a write failed. `item` is what is stored (None: nothing); `retried`: the client had sent the
    request before, and that attempt may have been applied."""

    def __init__(self, item: Item | None, *, retried: bool) -> None:
        super().__init__("condition failed")
        self.item = item
        self.retried = retried


class Cancelled(Exception):
    """A transaction was cancelled; `reasons` has one (code, item) for each of its actions."""

    def __init__(self, reasons: list[tuple[str, Item | None]], *, retried: bool) -> None:
        super().__init__("transaction cancelled")
        self.reasons = reasons
        self.retried = retried


class Gateway:
    """Sends the requests. The client is created at the first call, inside the running event loop, unless one was
    given."""

    def __init__(self, settings: DynamoSettings, client: Any, context: DynamoContext = DEFAULTS) -> None:
        self._settings = settings
        self._client = client
        self._own = client is None
        self._wire: Wire | None = None
        self._context = context
        self._throttling = ThrottlingErrorDetector(RetryEventAdapter())
        self._limit = asyncio.Semaphore(settings.max_concurrency)
        self._making = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._closing: set[asyncio.Task[None]] = set()
        patience = (settings.connect_timeout + settings.read_timeout) * settings.max_attempts
        patience = max(patience, LEAST_PATIENCE)
        self.calls: Final = Calls(
            "DynamoDB", patience=patience, ping=self._ping, on_stuck=self._stuck, on_abandoned=context.on_abandoned
        )

    async def call(self, verb: str, table: str, **parameters: Any) -> dict[str, Any]:
        """Sends one request; `verb` is a method of the client. Raises PyMongo's errors, `ConditionFailed`, `Cancelled`.

        If the caller is cancelled, the request runs to its end and counts as in flight until then.
        """
        client = self._client or await self.calls.run(self._make())
        await self._limit.acquire()
        return await self.calls.run(self._send(client, verb, table, parameters), self._limit.release)

    async def _send(self, client: Any, verb: str, table: str, parameters: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any]
        try:
            if self._wire is not None and verb in OPERATIONS:
                answer = await self._wire.call(verb, parameters)
            else:
                answer = await getattr(client, verb)(**parameters)
        except (ClientError, BotoCoreError, OSError) as error:
            raise _raised(error, verb, table) from None
        self._count(answer.get("ConsumedCapacity"), parameters.get("IndexName", ""), verb)
        return answer

    def _count(self, consumed: Any, index: str, verb: str) -> None:
        if consumed is None:
            return
        for one in consumed if isinstance(consumed, list) else [consumed]:
            table, left = one.get("TableName", ""), float(one.get("CapacityUnits", 0.0))
            for name, part in (one.get("GlobalSecondaryIndexes") or {}).items():
                units = float(part.get("CapacityUnits", 0.0))
                self._context.on_capacity(table, name, verb, units)
                left -= units
            if left > 0 or "GlobalSecondaryIndexes" not in one:
                self._context.on_capacity(table, index, verb, left)

    async def _make(self) -> Any:
        async with self._making:
            if self._client is None:
                context = session_of(self._settings).client(
                    "dynamodb", endpoint_url=self._settings.endpoint_url, config=config_of(self._settings)
                )
                client = await self._stack.enter_async_context(context)
                patch_serializer(client)
                pace = RequestPace() if self._settings.retry_mode == "adaptive" else None
                if pace is not None:
                    pace.attach(client)
                client.meta.events.register("needs-retry", self._look_for_throttling)
                client.meta.events.register("before-send", in_time)
                if self._settings.requests == "direct":
                    self._wire = await Wire.of(client, pace, _USER_AGENT)
                self._client = client
        return self._client

    def _look_for_throttling(self, **event: Any) -> None:
        """Called for every attempt, including the client's own retries."""
        if self._throttling.is_throttling_error(**event):
            self._context.on_throttled()

    async def close(self) -> None:
        """Closes the client if it was created here. Idempotent."""
        if self._own:
            self._client = self._wire = None
        await self.calls.end(self._stack.aclose if self._own else None)
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def _ping(self) -> None:
        """Any response is enough, even a rejection."""
        client = self._client
        if client is not None:
            await client.list_tables(Limit=1)

    def _stuck(self) -> bool:
        if self._own:
            before, self._stack = self._stack, AsyncExitStack()
            self._client = self._wire = None
            self._making = asyncio.Lock()
            closing = begin(let_go(before.aclose))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._context.on_stuck(self._own)
        return self._own


def session_of(settings: DynamoSettings) -> Any:
    """A session of aioboto3 with the credentials of the settings, and the parser of `parser`."""

    def secret(value: Any) -> str | None:
        return value.get_secret_value() if value is not None else None

    session = aiobotocore.session.get_session()
    loader = _loader()
    session.register_component("data_loader", loader)
    session.register_component("response_parser_factory", ParserFactory())
    if settings.access_key_id is not None:
        # A profile of the environment is not used; botocore would fail if it did not exist.
        session.get_component("config_store").set_config_variable("profile", None)
    made = aioboto3.Session(
        botocore_session=session,
        region_name=settings.region,
        aws_access_key_id=secret(settings.access_key_id),
        aws_secret_access_key=secret(settings.secret_access_key),
        aws_session_token=secret(settings.session_token),
    )
    # Every session adds boto3's own folder to its loader; here all of them share one.
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)
    return made


@functools.lru_cache(maxsize=1)
def _loader() -> Any:
    """botocore's descriptions of services and endpoints. They are the same for every event loop, and parsing them
    takes 0.15 s of processor time; a task queue that creates an event loop per task would pay that each time."""
    return create_loader(os.environ.get("AWS_DATA_PATH"))


def config_of(settings: DynamoSettings) -> AioConfig:
    """The configuration of a client."""
    return AioConfig(
        max_pool_connections=settings.max_concurrency,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        # "adaptive" is standard retries with a `RequestPace`
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        parameter_validation=False,
        # botocore would rebuild its own twice for each request.
        user_agent=_USER_AGENT,
        tcp_keepalive=True,
    )


def _raised(error: Exception, verb: str, table: str) -> Exception:
    if isinstance(error, ClientError):
        response: dict[str, Any] = error.response
        code = response.get("Error", {}).get("Code")
        retried = response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
        if code == "ConditionalCheckFailedException":
            return ConditionFailed(response.get("Item") or None, retried=retried)
        if code == "TransactionCanceledException" and "CancellationReasons" in response:
            reasons = [(one.get("Code", "None"), one.get("Item") or None) for one in response["CancellationReasons"]]
            return Cancelled(reasons, retried=retried)
    return translate(error, verb, table)
