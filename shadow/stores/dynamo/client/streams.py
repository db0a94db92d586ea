"""The client of DynamoDB's streams. It is a service of its own beside DynamoDB: another client, of the same session.

It always goes through the SDK: `requests: direct` is for the requests of the application, and the stream is read in the
background, a few times a second at most.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from shadow.host.tasks import begin
from shadow.stores.calls import LEAST_PATIENCE, Calls, let_go
from shadow.stores.dynamo.client.errors import translate
from shadow.stores.dynamo.client.gateway import config_of, session_of
from shadow.stores.dynamo.client.settings import DynamoSettings

__all__ = ["EXPIRED", "TRIMMED", "ExpiredIterator", "StreamClient", "TrimmedStream", "endpoint_of"]

TRIMMED: Final = "TrimmedDataAccessException"
EXPIRED: Final = "ExpiredIteratorException"
_GONE: Final = frozenset({TRIMMED, "ResourceNotFoundException"})
_INVALID: Final = "ValidationException"
_AWS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn")


class TrimmedStream(Exception):
    """The stream, the shard or the record that was asked for is no more."""


class ExpiredIterator(Exception):
    """The iterator is over a quarter of an hour old; another one continues after the last record."""


class StreamClient:
    """For one event loop; the client is made at the first call. `given`: the DynamoDB client that was passed in, whose
    credentials are used unless the settings have others; it is not used itself."""

    def __init__(self, settings: DynamoSettings, given: Any) -> None:
        self._settings = settings
        self._given = given
        self._arn = ""
        self._client: Any = None
        self._making = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()
        patience = max((settings.connect_timeout + settings.read_timeout) * settings.max_attempts, LEAST_PATIENCE)
        self._calls = Calls("DynamoDB streams", patience=patience, ping=self._ping, on_stuck=self._stuck)

    async def call(self, verb: str, table: str, **parameters: Any) -> dict[str, Any]:
        """Sends one request. Raises `TrimmedStream`, `ExpiredIterator`, and PyMongo's errors."""
        client = self._client or await self._calls.run(self._make())
        self._arn = parameters.get("StreamArn", self._arn)
        return await self._calls.run(self._send(client, verb, table, parameters))

    async def _send(self, client: Any, verb: str, table: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(await getattr(client, verb)(**parameters))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            # A sequence number that the shard never had: the cursor is not of this stream.
            if code in _GONE or (code == _INVALID and verb == "get_shard_iterator"):
                raise TrimmedStream(code) from None
            if code == EXPIRED:
                raise ExpiredIterator(code) from None
            raise translate(error, verb, table) from None
        except (BotoCoreError, OSError) as error:
            raise translate(error, verb, table) from None

    async def _make(self) -> Any:
        session = session_of(self._settings)
        meta = getattr(self._given, "meta", None)
        own = self._settings.access_key_id is not None
        signer = getattr(self._given, "_request_signer", None)
        if signer is not None and not own:
            session._session._credentials = signer._credentials
        endpoint = endpoint_of(self._settings.endpoint_url or getattr(meta, "endpoint_url", None))
        region = self._settings.region if meta is None else meta.region_name
        context = session.client(
            "dynamodbstreams", region_name=region, endpoint_url=endpoint, config=config_of(self._settings)
        )
        async with self._making:
            if self._client is None:
                self._client = await self._stack.enter_async_context(context)
        return self._client

    async def _ping(self) -> None:
        """Any response is enough, even a rejection."""
        if self._client is not None and self._arn:
            await self._client.describe_stream(StreamArn=self._arn, Limit=1)

    def _stuck(self) -> bool:
        """Another client is made for the next call."""
        before, self._stack = self._stack, AsyncExitStack()
        self._client, self._making = None, asyncio.Lock()
        self._closing = begin(let_go(before.aclose))
        return True

    async def close(self) -> None:
        """Idempotent."""
        self._client = None
        if self._closing is not None:
            await asyncio.wait([self._closing])
        await self._calls.end(self._stack.aclose)


def endpoint_of(url: str | None) -> str | None:
    """The endpoint of DynamoDB, where it is not AWS's own: there the streams have another one, which the SDK knows."""
    host = urlsplit(url or "").hostname or ""
    return None if not host or host.endswith(_AWS) else url
