"""A MongoDB that says what a test tells it to say, in the server's own protocol, to any driver.

Messages by the wire protocol's specification: OP_MSG, and OP_QUERY for a driver's first `hello`.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import bson

__all__ = ["Answer", "ScriptedMongo"]

_QUERY, _REPLY, _MSG = 2004, 1, 2013
_HELLO: Final = ("hello", "ismaster", "isMaster")

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Of the command's name and the command: the answer, less `ok`."""


class ScriptedMongo:
    """`async with ScriptedMongo() as server`: `server.url`; `server.answer` decides, and `hello` is its own.

    It runs in a thread and event loop of its own: a driver may wait for it without a turn of the test's loop.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda name, command: {}
        self.commands: list[str] = []
        self.is_router = False
        """Whether it says that it is a `mongos`."""
        self.most_writes = 100_000
        """How many writes it says that it takes in one message: what is more is sent in several."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-mongo", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._open(), self._loop))
        return self

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._address = "{}:{}".format(*self._server.sockets[0].getsockname())
        self.url = f"mongodb://{self._address}/?directConnection=true&retryWrites=false&retryReads=false"

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait([task])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                length, number, _, kind = struct.unpack("<iiii", await reader.readexactly(16))
                body = await reader.readexactly(length - 16)
                if kind == _QUERY:
                    start = body.index(b"\0", 4) + 1 + 8
                    document = bson.encode(self._said(bson.decode(body[start:])))
                    made, kind = struct.pack("<iqii", 8, 0, 0, 1) + document, _REPLY
                else:
                    made = struct.pack("<iB", 0, 0) + bson.encode(self._said(_command(body)))
                writer.write(struct.pack("<iiii", 16 + len(made), 0, number, kind) + made)
        self._writers.discard(writer)
        writer.transport.abort()

    def _said(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command))
        if name in _HELLO:
            return self._hello()
        self.commands.append(name)
        return {"ok": 1.0, **self.answer(name, command)}

    def _hello(self) -> dict[str, Any]:
        replica_set = {
            "setName": "rs",
            "hosts": [self._address],
            "me": self._address,
            "primary": self._address,
        }
        return {
            "ok": 1.0,
            "isWritablePrimary": True,
            "ismaster": True,
            "helloOk": True,
            **({"msg": "isdbgrid"} if self.is_router else replica_set),
            "logicalSessionTimeoutMinutes": 30,
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": self.most_writes,
            "minWireVersion": 0,
            "maxWireVersion": 17,
        }


def _command(body: bytes) -> dict[str, Any]:
    """The sections of an OP_MSG as one document."""
    command: dict[str, Any] = {}
    at = 4
    while at < len(body):
        kind, at = body[at], at + 1
        size = struct.unpack_from("<i", body, at)[0]
        section, at = body[at : at + size], at + size
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            end = section.index(b"\0", 4)
            command[section[4:end].decode()] = bson.decode_all(section[end + 1 :])
    # The name of a command is its first field, whatever came before it in the message.
    name = next(each for each in command if not isinstance(command[each], list))
    return {name: command.pop(name), **command}
