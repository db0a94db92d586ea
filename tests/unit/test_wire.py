"""The short way to DynamoDB against a server of our own: signature, and what comes of each answer, are the SDK's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pymongo
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from shadow.model.deadline import ending
from shadow.model.outcome import Outcome, classify
from shadow.stores.dynamo.client.gateway import Cancelled, ConditionFailed, Gateway
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.client.wire import Wire, signature_headers
from shadow.stores.dynamo.context import DEFAULTS, DynamoContext
from shadow.stores.within import within
from tests.support.hurry import Hurry

NOW: Final = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
TEXT: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
WAYS: Final = ("direct", "sdk")


# --- the signature ----------------------------------------------------------------------------------------------


class _At(SigV4Auth):
    """botocore's signer at a given moment, of the headers that are there."""

    def add_auth(self, request: Any) -> None:
        request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
        canonical = self.canonical_request(request)
        self._inject_signature_to_request(request, self.signature(self.string_to_sign(request, canonical), request))


@given(TEXT, TEXT, st.none() | TEXT, st.sampled_from(["us-east-1", "eu-central-1"]), st.binary(max_size=200))
def test_the_signature_is_botocores(key: str, secret: str, token: str | None, region: str, body: bytes) -> None:
    target = "DynamoDB_20120810.GetItem"
    ours = signature_headers(
        key, secret, token, region=region, host="localhost:8000", target=target, body=body, now=NOW
    )
    headers = {name: value for name, value in ours.items() if name != "Authorization"}
    request = AWSRequest("POST", "http://localhost:8000/", headers=headers, data=body)
    _At(Credentials(key, secret, token), "dynamodb", region).add_auth(request)
    assert ours["Authorization"] == request.headers["Authorization"]


# --- answers ----------------------------------------------------------------------------------------------------


class Server:
    """Answers each request by the next of `answers`, and the last one for good."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], web.StreamResponse]] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.hanging = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        made = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if made is never:
            self.hanging.set()
            await asyncio.Event().wait()
        if made is cut and request.transport is not None:
            request.transport.abort()
            await asyncio.Event().wait()
        return made()


def said(status: int, body: Any, *, crc: int | None = None, raw: bytes | None = None) -> Callable[[], web.Response]:
    content = json.dumps(body).encode() if raw is None else raw
    headers = {"x-amz-crc32": str(zlib.crc32(content) if crc is None else crc), "x-amzn-RequestId": "R1"}
    return lambda: web.Response(status=status, body=content, headers=headers)


def failed(code: str, status: int = 400, **more: Any) -> Callable[[], web.Response]:
    return said(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "why", **more})


def cut() -> web.StreamResponse:
    """Stands for the end of the connection."""
    raise AssertionError


def never() -> web.StreamResponse:
    """Stands for no answer at all."""
    raise AssertionError


@asynccontextmanager
async def served(context: DynamoContext = DEFAULTS, **settings: Any) -> AsyncIterator[tuple[Server, Gateway]]:
    server = Server()
    app = web.Application()
    app.router.add_post("/{tail:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    access = {"access_key_id": "key", "secret_access_key": "secret"}
    gateway = Gateway(
        DynamoSettings(**{"endpoint_url": f"http://127.0.0.1:{port}", **access, **settings}), None, context
    )
    try:
        yield server, gateway
    finally:
        await gateway.close()
        await runner.cleanup()


async def get(gateway: Gateway) -> dict[str, Any]:
    return await gateway.call(
        "get_item", "things", TableName="things", Key={"_id": {"S": "1"}, "b": {"B": b"\x00\xff"}}
    )


async def outcome(gateway: Gateway) -> str:
    """What a call comes to, as text."""
    try:
        answer = await get(gateway)
        answer.pop("ResponseMetadata", None)
        return repr(answer)
    except ConditionFailed as error:
        return f"condition failed, {error.item}, {error.retried}"
    except Cancelled as error:
        return f"cancelled, {error.reasons}, {error.retried}"
    except Exception as error:
        # Where the answer is no JSON, the SDK does not look for the request's id.
        text = str(error).replace(" (request R1)", "")
        return f"{type(error).__name__}: {text} {getattr(error, 'code', '')}"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sleeps between two attempts does not."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(0))


ANSWERS: Final[dict[str, list[Callable[[], web.StreamResponse]]]] = {
    "an item": [said(200, {"Item": {"a": {"N": "1.50"}, "b": {"B": "AP8="}, "m": {"M": {"x": {"NULL": True}}}}})],
    "nothing": [said(200, {})],
    "a condition": [failed("ConditionalCheckFailedException", Item={"_id": {"S": "1"}})],
    "a condition without item": [failed("ConditionalCheckFailedException")],
    "a cancelled transaction": [
        failed(
            "TransactionCanceledException",
            CancellationReasons=[{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"a": {"S": "x"}}}],
        )
    ],
    "a missing table": [failed("ResourceNotFoundException")],
    "a refusal": [failed("ValidationException")],
    "a signature that is refused": [failed("InvalidSignatureException")],
    "an error that nobody knows": [failed("SomethingNewException")],
    "throttled once": [failed("ProvisionedThroughputExceededException"), said(200, {"Item": {}})],
    "throttled for good": [failed("ThrottlingException")],
    "a server error, then a condition": [failed("InternalServerError", 500), failed("ConditionalCheckFailedException")],
    "a server error for good": [failed("InternalServerError", 500)],
    "no json": [said(503, None, raw=b"<html>busy</html>"), said(200, {"Item": {"a": {"S": "x"}}})],
    "no json for good": [said(503, None, raw=b"<html>busy</html>")],
    "damaged on the way": [said(200, {"Item": {}}, crc=1), said(200, {"Item": {"a": {"S": "x"}}})],
    "cut off once": [cut, said(200, {"Item": {"a": {"S": "x"}}})],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.usefixtures("at_once")
async def test_every_answer_comes_to_what_the_sdk_makes_of_it(name: str) -> None:
    came, asked = [], []
    for way in WAYS:
        async with served(requests=way, retry_mode="standard") as (server, gateway):
            server.answers = list(ANSWERS[name])
            came.append(await outcome(gateway))
            asked.append(len(server.requests))
    assert came[0] == came[1]
    assert asked[0] == asked[1]


async def test_the_request_is_the_sdks() -> None:
    bodies, targets = [], []
    for way in WAYS:
        async with served(requests=way) as (server, gateway):
            server.answers = [said(200, {})]
            await get(gateway)
            ((headers, body),) = server.requests
            assert headers["Content-Type"] == "application/x-amz-json-1.0"
            bodies.append(json.loads(body))
            targets.append(headers["X-Amz-Target"])
    assert bodies[0] == bodies[1]
    assert targets[0] == targets[1]


async def test_a_transaction_that_is_sent_again_is_the_same_one() -> None:
    async with served() as (server, gateway):
        server.answers = [failed("InternalServerError", 500), said(200, {})]
        await gateway.call("transact_write_items", "things", TransactItems=[])
        tokens = [json.loads(body)["ClientRequestToken"] for _, body in server.requests]
        await gateway.call("transact_write_items", "things", TransactItems=[])
    assert len(tokens) == 2
    assert len(set(tokens)) == 1
    assert json.loads(server.requests[-1][1])["ClientRequestToken"] not in tokens


async def test_a_server_that_does_not_answer_and_one_that_is_not_there() -> None:
    async with served(read_timeout=0.1, max_attempts=1) as (server, gateway):
        server.answers = [never]
        with pytest.raises(pymongo.errors.NetworkTimeout):
            await get(gateway)
    async with served(endpoint_url="http://127.0.0.1:1", max_attempts=1) as (_, gateway):
        with pytest.raises(pymongo.errors.ServerSelectionTimeoutError):
            await get(gateway)


async def test_a_call_that_is_cancelled_leaves_the_client_usable() -> None:
    async with served(max_concurrency=1, read_timeout=0.5, max_attempts=1) as (server, gateway):
        server.answers = [never, said(200, {"Item": {"a": {"S": "x"}}})]
        call = asyncio.create_task(get(gateway))
        await server.hanging.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert (await get(gateway))["Item"] == {"a": {"S": "x"}}


@pytest.mark.parametrize("requests", ["direct", "sdk"])
async def test_no_attempt_is_begun_when_the_time_of_the_caller_is_over(requests: str) -> None:
    """The first one ends by a limit of its own, and nothing is sent after it that a heal would not know of."""
    async with served(requests=requests, read_timeout=0.4, max_attempts=5) as (server, gateway):
        server.answers = [said(200, {}), never]
        await get(gateway)
        with pytest.raises(pymongo.errors.NetworkTimeout), ending(0.3):
            await get(gateway)
        assert len(server.requests) == 2


async def test_a_request_ends_with_the_time_of_its_caller_although_it_is_not_cancelled() -> None:
    """And leaves its place among those under way, long before the client's own limit."""
    async with served(max_concurrency=1, read_timeout=600.0) as (server, gateway):
        server.answers = [said(200, {}), never, said(200, {"Item": {"a": {"S": "x"}}})]
        await get(gateway)
        with pytest.raises(TimeoutError):
            async with within(0.3):
                await get(gateway)
        assert gateway.calls.abandoned == 1
        assert (await get(gateway))["Item"] == {"a": {"S": "x"}}
        assert gateway.calls.abandoned == 0


@pytest.mark.takes_turns
async def test_a_clients_own_adaptive_retries_survive_callers_that_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait on a condition that no cancellation may meet: of a client that was handed in, too."""
    hurry = Hurry()
    monkeypatch.setattr("aiobotocore.retries.bucket.Clock.current_time", lambda clock: hurry())
    async with served() as (server, gateway):
        url = gateway._settings.endpoint_url
        config = AioConfig(retries={"mode": "adaptive", "total_max_attempts": 3})
        access = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        made = get_session().create_client("dynamodb", endpoint_url=url, config=config, **access)
        async with made as client:
            handed = Gateway(DynamoSettings(), client)
            server.answers = [failed("ThrottlingException")] * 3 + [said(200, {"Item": {"a": {"S": "x"}}})]
            with contextlib.suppress(pymongo.errors.PyMongoError):
                await get(handed)
            for turn in range(12):
                callers = [asyncio.create_task(get(handed)) for _ in range(5)]
                await asyncio.sleep(0.01 * (turn % 4))
                for each in callers:
                    each.cancel()
                    await asyncio.sleep(0)
                    each.cancel()
                await asyncio.gather(*callers, return_exceptions=True)
            hurry.by(30)
            async with asyncio.timeout(120):
                assert (await get(handed))["Item"] == {"a": {"S": "x"}}
            await handed.close()


async def test_a_client_that_is_stuck_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One made here: not even a request without a document is answered, and its lock is never had again."""
    monkeypatch.setattr("shadow.stores.dynamo.client.gateway.LEAST_PATIENCE", 0.2)
    told: list[bool] = []
    context = DynamoContext(on_stuck=told.append)
    async with served(context, connect_timeout=0.1, read_timeout=0.1, max_attempts=1) as (server, gateway):
        server.answers = [said(200, {"Item": {"a": {"S": "x"}}})]
        await get(gateway)
        before = gateway._client

        async def stuck(*arguments: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

        assert gateway._wire is not None
        gateway._wire.call = stuck  # type: ignore[method-assign]
        before._make_api_call = stuck
        with pytest.raises(pymongo.errors.AutoReconnect):
            await get(gateway)
        assert told == [True]
        assert (await get(gateway))["Item"] == {"a": {"S": "x"}}
        assert gateway._client is not before


async def test_throttling_is_told_and_slows_down_and_success_fills_the_quota_again() -> None:
    hurry = Hurry()
    told: list[int] = []
    context = DynamoContext(on_throttled=lambda: told.append(1))
    async with served(context, max_attempts=2) as (server, gateway):
        server.answers = [failed("ThrottlingException"), said(200, {})]
        await gateway._make()
        wire = gateway._wire
        assert wire is not None
        wire.pace._now = hurry
        await get(gateway)
        assert len(told) == 1
        assert wire.pace.rate is not None
        before = wire.pace.rate
        for times in (40, 10, 3, 1):
            hurry.by(times)  # the rate is at most twice what is asked for: little, by this clock on a busy machine
            for _ in range(20):
                await get(gateway)
            if wire.pace.rate > before:
                break
        assert wire.pace.rate > before


@pytest.mark.usefixtures("at_once")
async def test_a_retry_quota_that_is_spent_comes_back_with_successes() -> None:
    """500 units, 5 for each retry: after 100 failures in a row the SDK stops trying again, until answers come."""
    async with served(max_attempts=2, retry_mode="standard", requests="direct") as (server, gateway):
        server.answers = [failed("ThrottlingException")]
        sent = []
        for _ in range(110):
            before = len(server.requests)
            with contextlib.suppress(pymongo.errors.PyMongoError):
                await get(gateway)
            sent.append(len(server.requests) - before)
        assert (sent[0], sent[-1]) == (2, 1)
        server.answers = [said(200, {})]
        for _ in range(20):
            await get(gateway)
        server.answers = [failed("ThrottlingException")]
        before = len(server.requests)
        with contextlib.suppress(pymongo.errors.PyMongoError):
            await get(gateway)
        assert len(server.requests) - before == 2


DAMAGED: Final = {
    "for good": said(200, {"Item": {}}, crc=1),
    "no json": said(200, None, raw=b"<html>hello</html>"),
    "no object": said(200, [1]),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", DAMAGED)
async def test_an_answer_that_is_damaged_for_good_says_that_nobody_knows_what_was_done(name: str) -> None:
    async with served() as (server, gateway):
        server.answers = [DAMAGED[name]]
        with pytest.raises(pymongo.errors.AutoReconnect) as raised:
            await get(gateway)
        assert classify(raised.value) is Outcome.UNKNOWN
        assert "hello" not in str(raised.value)


async def test_no_answer_sends_a_request_elsewhere() -> None:
    async with served() as (server, gateway):
        server.answers = [lambda: web.Response(status=307, headers={"Location": "/elsewhere"})]
        with pytest.raises(pymongo.errors.PyMongoError):
            await get(gateway)
        assert len(server.requests) == 1


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/behind/a/path", "http://127.0.0.1:1/?x=1"])
async def test_an_endpoint_that_is_more_than_a_host_is_left_to_the_sdk(endpoint: str) -> None:
    async with served(endpoint_url=endpoint) as (_, gateway):
        await gateway._make()
        assert gateway._wire is None


async def test_a_client_that_is_made_otherwise_is_left_to_itself() -> None:
    assert await Wire.of(object(), None, "") is None


async def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    async with served(access_key_id=None, secret_access_key=None) as (server, gateway):
        server.answers = [said(200, {})]
        with pytest.raises(pymongo.errors.OperationFailure, match="no usable credentials"):
            await get(gateway)
        assert server.requests == []
