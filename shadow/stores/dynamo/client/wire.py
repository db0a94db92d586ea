"""The fast path to DynamoDB for requests on items: signed here, sent through the SDK's own connections.

The SDK handles a request for any service and any protocol: it resolves the endpoint by a set of rules, calls its hooks,
walks through shapes, and signs all headers, which takes more processor time than the request itself. For the item
operations of DynamoDB all of that amounts to one POST with five headers. Everything else is still the SDK's: its
credentials, its endpoint, its connection pool with certificates and proxies, and, for requests that fail, its rules for
what is retried, when and how often.

Sources: "Signature Version 4 signing process" of the IAM user guide; "DynamoDB low-level API" of the developer guide.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import functools
import hashlib
import hmac
import json
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from shadow.model.deadline import left
from shadow.stores.dynamo.client.errors import BEFORE_SENDING
from shadow.stores.dynamo.client.pace import in_time

__all__ = ["OPERATIONS", "Wire", "signature_headers"]

OPERATIONS: Final[Mapping[str, str]] = {
    "batch_execute_statement": "BatchExecuteStatement",
    "batch_get_item": "BatchGetItem",
    "batch_write_item": "BatchWriteItem",
    "delete_item": "DeleteItem",
    "execute_statement": "ExecuteStatement",
    "get_item": "GetItem",
    "put_item": "PutItem",
    "query": "Query",
    "scan": "Scan",
    "transact_get_items": "TransactGetItems",
    "transact_write_items": "TransactWriteItems",
    "update_item": "UpdateItem",
}
"""The operations on this path, by the client's method."""

_TYPE: Final = "application/x-amz-json-1.0"
_TARGET: Final = "DynamoDB_20120810."
_REFILL: Final = 500
"""The number of responses after a failure that are reported to the SDK, which refill its retry quota. Source: the
quota's capacity in botocore.retries.quota; each response gives back one unit."""


_GRACE: Final = 0.25
"""Seconds that a request may take beyond the time that its caller waits."""


@dataclass(frozen=True)
class _Answer:
    """The attributes that the SDK's rules read."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """Awaited by aiobotocore."""
        return self._content()

    async def _content(self) -> bytes:
        return self.body


@dataclass
class Wire:
    """The fast path of one client. `pace`: see `Pace`; None without one."""

    client: Any
    url: str
    pace: Any
    user_agent: str
    _debt: int = 0
    _host: str = ""
    _models: dict[str, Any] = field(default_factory=dict)

    @classmethod
    async def of(cls, client: Any, pace: Any, user_agent: str) -> Wire | None:
        """None if the client has an unknown form, or its endpoint is more than a host: then requests go through the
        SDK."""
        try:
            model = client.meta.service_model.operation_model("GetItem")
            url, _, _ = await client._resolve_endpoint_ruleset(model, {}, {"client_region": client.meta.region_name})
            parts = urlsplit(url)
            made = cls(client, url, pace, user_agent, _host=parts.netloc)
            await made._session()
            signer = client._request_signer
            plain = signer.signing_name == "dynamodb" and signer.region_name and parts.path in ("", "/")
        except (AttributeError, TypeError, BotoCoreError):
            # The SDK reports a wrong endpoint at the first call.
            return None
        return made if plain and not parts.query and parts.username is None else None

    async def call(self, verb: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Raises botocore's exceptions, as the client's method does; binaries in the response are base64."""
        operation = OPERATIONS[verb]
        if verb == "transact_write_items":
            # As in the SDK: a retry is the same transaction.
            parameters = {"ClientRequestToken": str(uuid.uuid4()), **parameters}
        body = _ENCODER.encode(parameters).encode("ascii")
        context: dict[str, Any] = {}
        attempts = 0
        while True:
            attempts += 1
            if self.pace is not None:
                await self.pace.wait()
            in_time()
            answer, error = await self._attempt(operation, body)
            if answer is not None and answer.status_code == 200 and _is_whole(answer):
                await self._succeeded(operation, answer, context)
                return _said(answer)
            parsed = None if answer is None else _parsed(answer, attempts - 1)
            delay = await self._delay(operation, answer, parsed, error, attempts, context)
            if delay is None:
                break
            await asyncio.sleep(delay)
        if error is not None:
            # Nothing was sent this time, but an earlier attempt was: its outcome is unknown.
            raise HTTPClientError(error=error) if attempts > 1 and isinstance(error, BEFORE_SENDING) else error
        if answer is not None and answer.status_code == 200:
            # The request was processed, but its result is unknown.
            raise HTTPClientError(error="the response is damaged")
        raise ClientError(parsed, operation)

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _attempt(self, operation: str, body: bytes) -> tuple[_Answer | None, Exception | None]:
        try:
            headers = await self._headers(operation, body)
            session, proxy = await self._session()
            async with session.post(
                self.url, data=body, headers=headers, proxy=proxy, allow_redirects=False, **self._limits()
            ) as response:
                read = await response.read()
                return _Answer(response.status, response.headers, read), None
        except Exception as error:
            return None, _explained(error, self.url)

    def _limits(self) -> dict[str, Any]:
        """Limits the request to the caller's remaining time, if the caller has a time limit."""
        seconds = left()
        if seconds is None:
            return {}
        config = self.client.meta.config
        total = max(seconds, 0.0) + _GRACE
        return {
            "timeout": aiohttp.ClientTimeout(
                total=total, sock_connect=config.connect_timeout, sock_read=config.read_timeout
            )
        }

    async def _session(self) -> tuple[aiohttp.ClientSession, str | None]:
        http = self.client._endpoint.http_session
        proxy = http._proxy_config.proxy_url_for(self.url)
        return await http._get_session(proxy), proxy

    async def _headers(self, operation: str, body: bytes) -> dict[str, str]:
        signer = self.client._request_signer
        credentials = signer._credentials
        if credentials is None:
            raise NoCredentialsError
        frozen = await credentials.get_frozen_credentials()
        headers = signature_headers(
            frozen.access_key,
            frozen.secret_key,
            frozen.token,
            region=signer.region_name,
            host=self._host,
            target=f"{_TARGET}{operation}",
            body=body,
            now=datetime.datetime.now(datetime.UTC),
        )
        headers["User-Agent"] = self.user_agent
        headers["Accept-Encoding"] = "identity"
        return headers

    # --- the response ------------------------------------------------------------------------------------------

    async def _succeeded(self, operation: str, answer: _Answer, context: dict[str, Any]) -> None:
        if self.pace is not None:
            self.pace.answered()
        if self._debt:
            self._debt -= 1
            events = self.client.meta.events
            await events.emit(f"after-call.dynamodb.{operation}", http_response=answer, context=context)

    async def _delay(
        self,
        operation: str,
        answer: _Answer | None,
        parsed: dict[str, Any] | None,
        error: Exception | None,
        attempts: int,
        context: dict[str, Any],
    ) -> float | None:
        """Seconds until the next attempt by the SDK's rules; None: this was the last one."""
        self._debt = _REFILL
        responses = await self.client.meta.events.emit(
            f"needs-retry.dynamodb.{operation}",
            response=None if answer is None else (answer, parsed),
            endpoint=self.client._endpoint,
            operation=self.client.meta.service_model.operation_model(operation),
            attempts=attempts,
            caught_exception=error,
            request_dict={"context": context},
        )
        return next((said for _, said in responses if said is not None), None)


def _encoded(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"an AttributeValue cannot hold a {type(value).__name__}")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=_encoded)


def _is_whole(answer: _Answer) -> bool:
    expected = answer.headers.get("x-amz-crc32")
    return expected is None or zlib.crc32(answer.body) == int(expected)


def _said(answer: _Answer) -> dict[str, Any]:
    try:
        said = json.loads(answer.body)
    except ValueError as error:
        raise HTTPClientError(error=type(error).__name__) from None
    if not isinstance(said, dict):
        raise HTTPClientError(error="the response is not an object")
    return said


def _parsed(answer: _Answer, retries: int) -> dict[str, Any]:
    """An unsuccessful response, as botocore's parser returns it."""
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    code = str(said.pop("__type", "") or answer.headers.get("x-amzn-errortype", "") or answer.status_code)
    message = said.pop("message", None) or said.pop("Message", None) or ""
    error = {"Code": code.rpartition("#")[2].partition(":")[0], "Message": message}
    metadata = {
        "RequestId": answer.headers.get("x-amzn-requestid", ""),
        "HTTPStatusCode": answer.status_code,
        "HTTPHeaders": {name.lower(): value for name, value in answer.headers.items()},
        "RetryAttempts": retries,
    }
    return {**said, "Error": error, "ResponseMetadata": metadata}


def _explained(error: Exception, url: str) -> Exception:
    """botocore's exception for one of aiohttp's: its retry rules know no others."""
    made: Exception = error
    match error:
        case aiohttp.ClientSSLError():
            made = SSLError(endpoint_url=url, error=error)
        case aiohttp.ServerTimeoutError() if str(error).lower().startswith("connect"):
            made = ConnectTimeoutError(endpoint_url=url, error=error)
        case TimeoutError():
            made = ReadTimeoutError(endpoint_url=url, error=error)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            made = ConnectionClosedError(endpoint_url=url, error=error)
        case aiohttp.ClientConnectionError():
            made = EndpointConnectionError(endpoint_url=url, error=error)
        case aiohttp.ClientError() | OSError():
            made = HTTPClientError(error=error)
    return made


# --- the signature ----------------------------------------------------------------------------------------------


def signature_headers(
    access_key: str,
    secret_key: str,
    token: str | None,
    *,
    region: str,
    host: str,
    target: str,
    body: bytes,
    now: datetime.datetime,
) -> dict[str, str]:
    """The headers of a POST to `/` of DynamoDB, including its signature; `now` in UTC."""
    time = now.strftime("%Y%m%dT%H%M%SZ")
    secured, names = "", "content-type;host;x-amz-date;x-amz-target"
    if token:
        secured, names = (
            f"x-amz-security-token:{token}\n",
            "content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
        )
    canonical = (
        f"POST\n/\n\ncontent-type:{_TYPE}\nhost:{host}\nx-amz-date:{time}\n{secured}x-amz-target:{target}\n\n"
        f"{names}\n{hashlib.sha256(body).hexdigest()}"
    )
    scope = f"{time[:8]}/{region}/dynamodb/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(secret_key, time[:8], region), text.encode(), "sha256").hex()
    headers = {
        "Content-Type": _TYPE,
        "X-Amz-Date": time,
        "X-Amz-Target": target,
        "Authorization": (
            f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        ),
    }
    if token:
        headers["X-Amz-Security-Token"] = token
    return headers


@functools.lru_cache(maxsize=16)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "dynamodb", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
