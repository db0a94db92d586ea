"""A TCP proxy on 127.0.0.1 that simulates faults of networks and overloaded servers.

It knows where a request ends in its two protocols (MongoDB's wire protocol and HTTP/1.1), so a fault affects whole
requests, and only the intended ones.
"""

from __future__ import annotations

import asyncio
import enum
import json
import threading
import uuid
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from shadow.embedded.process import free_port

__all__ = ["FaultProxy", "Mode"]

T = TypeVar("T")

_HTTP_METHODS: Final = (b"POST", b"GET ", b"PUT ", b"HEAD", b"DELE", b"OPTI")
_CHUNK: Final = 65536


class Mode(enum.StrEnum):
    """What happens to a request."""

    PASS = "pass"  # noqa: S105 - a mode, not a password
    """It is forwarded."""
    REFUSE = "refuse"
    """The connection is dropped before the server sees the request: not applied, and the client knows that it
    failed."""
    HANG = "hang"
    """Nothing is forwarded in either direction until the mode changes; then it is forwarded, late."""
    DELAY = "delay"
    """It is forwarded after `seconds`."""
    CUT = "cut"
    """The server handles it, but the connection is dropped before the answer: applied, but failed for the client."""
    THROTTLE = "throttle"
    """HTTP: answered 400 ProvisionedThroughputExceededException; the server does not see it."""
    ERROR = "error"
    """HTTP: answered 500 InternalServerError; the server does not see it."""


_ANSWERS: Final = {
    Mode.THROTTLE: ("400 Bad Request", "ProvisionedThroughputExceededException", "The table's capacity is used up."),
    Mode.ERROR: ("500 Internal Server Error", "InternalServerError", "The request processing has failed."),
}


@dataclass(frozen=True, slots=True)
class _Fault:
    mode: Mode = Mode.PASS
    seconds: float = 0.0
    only: tuple[bytes, ...] = ()
    times: int | None = None

    @property
    def for_all(self) -> bool:
        return not self.only and self.times is None


class FaultProxy:
    """Accepts clients at `self.port` on 127.0.0.1 for the server at `host`:`port`.

    It runs in its own thread and event loop, so tests with and without asyncio can use it and a busy loop does not slow
    it down. A context manager, plain or async. `set` and `mode` work from any thread, at any time, for open connections
    as well as new ones.
    """

    def __init__(self, host: str, port: int, *, listen: int | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = listen or free_port()
        self.url = f"{self.host}:{self.port}"
        self._target = (host, port)
        self._fault = _Fault()
        self._left: int | None = None
        self._changed: asyncio.Event
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self.requests = 0
        """Requests since the start, including faulty ones."""
        self.faults = 0
        """Requests to which a mode other than `pass` was applied."""

    # For tests.

    @classmethod
    def before(cls, url: str) -> Self:
        """A proxy for the server of `url` (mongodb or http). The proxy's `url` is the same url with its own address.

        Raises:
            ValueError: the url names no server, or several.
        """
        parts = urlsplit(url)
        if "," in parts.netloc:
            raise ValueError("the url names several servers, and a proxy stands before one")
        if parts.hostname is None or parts.port is None:
            raise ValueError("the url has no host and port")
        proxy = cls(parts.hostname, parts.port)
        proxy.url = url.replace(f"{parts.hostname}:{parts.port}", f"{proxy.host}:{proxy.port}", 1)
        return proxy

    @property
    def mode(self) -> Mode:
        return self._fault.mode

    @mode.setter
    def mode(self, mode: Mode | str) -> None:
        self.set(mode)

    def set(
        self,
        mode: Mode | str,
        *,
        seconds: float = 0.0,
        only: bytes | Sequence[bytes] = b"",
        times: int | None = None,
    ) -> None:
        """Changes what happens to requests, and returns when the change is in force.

        Args:
            mode: see `Mode`.
            seconds: the delay of `delay`.
            only: forward requests that do not contain these bytes, or any of several. Drivers monitor a MongoDB server
                on separate connections; b"insert" or the like spares those, and b".PutItem" selects one of DynamoDB's
                operations.
            times: forward everything again after this many faulty requests.
        """
        some = (only,) if isinstance(only, bytes) else tuple(only)
        fault = _Fault(Mode(mode), seconds, tuple(filter(None, some)), times)
        self._call(self._apply(fault)).result(timeout=10)

    def clear(self) -> None:
        """Forwards everything."""
        self.set(Mode.PASS)

    def start(self) -> Self:
        """Starts listening. Raises `OSError` if the port is in use."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._call(self._open()).result(timeout=10)
        return self

    def stop(self) -> None:
        """Drops all connections and stops listening. Idempotent."""
        if self._thread is None:
            return
        self._call(self._close()).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # In the proxy's own event loop.

    def _call(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        self._changed = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, self.host, self.port)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._clients.values())
        self._drop_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _apply(self, fault: _Fault) -> None:
        self._fault, self._left = fault, fault.times
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self.refusing:
            self._drop_all()

    def _drop_all(self) -> None:
        for writer in list(self._clients):
            writer.transport.abort()

    def take_fault(self, request: bytes) -> _Fault:
        """The fault for this request; counts it."""
        fault = self._fault
        self.requests += 1
        others = fault.only and not any(each in request for each in fault.only)
        if fault.mode is Mode.PASS or others or self._left == 0:
            return _Fault()
        if self._left is not None:
            self._left -= 1
        self.faults += 1
        return fault

    @property
    def refusing(self) -> bool:
        """Whether every connection is dropped."""
        return self._fault.mode is Mode.REFUSE and self._fault.for_all

    async def end_of(self, fault: _Fault) -> None:
        """Waits until `fault` is no longer in force."""
        while self._fault is fault:
            await self._changed.wait()

    async def flowing(self) -> None:
        """Waits until nothing holds back the server's answers."""
        while self._fault.mode is Mode.HANG and self._fault.for_all:
            await self._changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[writer] = task
        connection = _Connection(self, reader, writer)
        try:
            await connection.run(*self._target)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either end is gone, or the proxy stops: both end only this connection
        finally:
            del self._clients[writer]
            writer.transport.abort()


class _Connection:
    """One client's connection, the server's connection, and the data between them."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._cut = False

    async def run(self, host: str, port: int) -> None:
        """Runs until either end closes or a fault ends it."""
        if self._proxy.refusing:
            return
        from_server, to_server = await asyncio.open_connection(host, port)
        flows = [
            asyncio.ensure_future(self._carry_requests(to_server)),
            asyncio.ensure_future(self._carry_answers(from_server)),
        ]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.transport.abort()
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)

    async def _carry_requests(self, to_server: asyncio.StreamWriter) -> None:
        while True:
            request = await _read_request(self._reader)
            fault = self._proxy.take_fault(request)
            match fault.mode:
                case Mode.REFUSE:
                    return
                case Mode.HANG:
                    await self._proxy.end_of(fault)
                    if self._proxy.refusing:
                        return
                case Mode.DELAY:
                    await asyncio.sleep(fault.seconds)
                case Mode.CUT:
                    self._cut = True
                case Mode.THROTTLE | Mode.ERROR:
                    self._writer.write(_answer(fault.mode))
                    await self._writer.drain()
                    continue
            to_server.write(request)
            await to_server.drain()

    async def _carry_answers(self, from_server: asyncio.StreamReader) -> None:
        while chunk := await from_server.read(_CHUNK):
            await self._proxy.flowing()
            if self._cut:
                return
            self._writer.write(chunk)
            await self._writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request. A MongoDB message begins with its length (4 bytes, little-endian: its wire protocol
    specification); HTTP is recognised by the method's name. Raises `IncompleteReadError` at the end of the stream."""
    start = await reader.readexactly(4)
    if start not in _HTTP_METHODS:
        length = int.from_bytes(start, "little")
        return start + await reader.readexactly(length - 4)
    head = start + await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(_content_length(head))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _answer(mode: Mode) -> bytes:
    """The HTTP answer of `throttle` and `error`, in the format of DynamoDB's own errors."""
    status, name, message = _ANSWERS[mode]
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": message}).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n"
        f"x-amzn-RequestId: {uuid.uuid4()}\r\n\r\n"
    )
    return head.encode() + body
