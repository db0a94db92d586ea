"""The client of DynamoDB's streams. It is a service of its own beside DynamoDB: another client, of the same session.

It always goes through the SDK: `requests: direct` is for the requests of the application, and the stream is read in the
background, a few times a second at most.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from shadow.stores.calls import LEAST_PATIENCE, Calls
from shadow.stores.dynamo.client.errors import translate
from shadow.stores.dynamo.client.gateway import config_of, session_of
from shadow.stores.dynamo.client.settings import DynamoSettings

__all__ = ["ExpiredIterator", "StreamClient", "TrimmedStream"]

_GONE: Final = frozenset({"TrimmedDataAccessException", "ResourceNotFoundException"})
_EXPIRED: Final = "ExpiredIteratorException"
_INVALID: Final = "ValidationException"


class TrimmedStream(Exception):
    """The stream, the shard or the record that was asked for is no more."""


class ExpiredIterator(Exception):
    """The iterator is over a quarter of an hour old; another one goes on from the last record."""


class StreamClient:
    """For one event loop; the client is made at the first call. `given`: the DynamoDB client that was passed in, whose
    credentials are used unless the settings have others; it is not used itself."""

    def __init__(self, settings: DynamoSettings, given: Any) -> None:
        self._settings = settings
        self._given = given
        self._client: Any = None
        self._stack = AsyncExitStack()
        patience = max((settings.connect_timeout + settings.read_timeout) * settings.max_attempts, LEAST_PATIENCE)
        self._calls = Calls("DynamoDB streams", patience=patience, ping=self._ping, on_stuck=lambda: False)

    async def call(self, verb: str, table: str, **parameters: Any) -> dict[str, Any]:
        """Sends one request. Raises `TrimmedStream`, `ExpiredIterator`, and PyMongo's errors."""
        client = self._client or await self._calls.run(self._make())
        return await self._calls.run(self._send(client, verb, table, parameters))

    async def _send(self, client: Any, verb: str, table: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(await getattr(client, verb)(**parameters))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            # A sequence number that the shard never had: the cursor is not of this stream.
            if code in _GONE or (code == _INVALID and verb == "get_shard_iterator"):
                raise TrimmedStream(code) from None
            if code == _EXPIRED:
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
        endpoint = self._settings.endpoint_url or _endpoint(meta)
        region = self._settings.region if meta is None else meta.region_name
        context = session.client(
            "dynamodbstreams", region_name=region, endpoint_url=endpoint, config=config_of(self._settings)
        )
        if self._client is None:
            self._client = await self._stack.enter_async_context(context)
        return self._client

    async def _ping(self) -> None:
        """Any response is enough, even a rejection."""
        if self._client is not None:
            await self._client.list_streams(Limit=1)

    async def close(self) -> None:
        """Idempotent."""
        self._client = None
        await self._calls.end(self._stack.aclose)


def _endpoint(meta: Any) -> str | None:
    """The endpoint of a client that was passed in, where it is not AWS's own: there the streams have another."""
    url = "" if meta is None else str(meta.endpoint_url or "")
    return url if url and "amazonaws." not in url else None
