"""Servers that all tests of a run share, whichever process runs them: each starts once, when somebody asks for it.

With `pytest -n` the process that deals out the tests starts them and ends them, and those that run tests ask it for the
addresses. So a server outlives the process whose test asked first, and no server outlives the run: the watchdogs of
`shadow.embedded` end those of a process that was killed.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, Final

import pytest

from shadow.embedded.process import ServerProcess
from shadow.embedded.servers import DynamoDBLocal, Ministack, Mongod
from shadow.errors import ShadowError
from tests.support import dynamodb_local, services
from tests.support.topologies import ReplicaSet, SecuredMongod

__all__ = ["KINDS", "Asking", "Servers", "address", "fill_in", "of_run"]

KINDS: Final[Mapping[str, Callable[[], ServerProcess]]] = {
    "mongod": Mongod,
    # It does not elect because a busy machine kept its primary from saying anything.
    "replica set": lambda: ReplicaSet(election_ms=10_000, heartbeat_ms=1000),
    "mongod with users": SecuredMongod,
    "DynamoDB Local": lambda: DynamoDBLocal(dynamodb_local.home()),
    "roomy DynamoDB Local": lambda: DynamoDBLocal(dynamodb_local.home()),
    "ministack": Ministack,
}

_GIVEN: Final = "shared_servers"
"""What a process that runs tests is given: where to ask, and the key that lets it."""


def _address(server: ServerProcess) -> str:
    """For a server with users, of the one who may do everything: each process makes users of its own."""
    return server.root if isinstance(server, SecuredMongod) else server.url


class Servers:
    """The servers of a run, in the process that starts them."""

    def __init__(self, kinds: Mapping[str, Callable[[], ServerProcess]] = KINDS) -> None:
        self._kinds = kinds
        self._stack = ExitStack()
        self._turn = {kind: threading.Lock() for kind in kinds}
        self._said: dict[str, str | ShadowError] = {}
        self._key = secrets.token_bytes(16)
        self._listener: Listener | None = None

    def address(self, kind: str) -> str:
        """Starts the server if nobody has. Raises what kept it from starting, for all who ask."""
        with self._turn[kind]:
            if kind not in self._said:
                try:
                    server = self._kinds[kind]().start()
                    self._stack.callback(server.stop)
                    self._said[kind] = _address(server)
                except ShadowError as error:
                    self._said[kind] = error
            said = self._said[kind]
        if isinstance(said, ShadowError):
            raise said
        return said

    def listen(self) -> tuple[Any, bytes]:
        """Where other processes ask, and the key that lets them."""
        if self._listener is None:
            self._listener = Listener(authkey=self._key)
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()
        return self._listener.address, self._key

    def close(self) -> None:
        """Ends all servers."""
        if self._listener is not None:
            self._listener.close()
        self._stack.close()

    def _serve(self, listener: Listener) -> None:
        while True:
            try:
                asking = listener.accept()
            except (AuthenticationError, ConnectionError, EOFError):
                continue  # somebody without the key, or one that died while it asked
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(asking,), daemon=True).start()

    def _answer(self, asking: Connection) -> None:
        with asking, suppress(EOFError, OSError):
            try:
                asking.send((self.address(asking.recv()), ""))
            except ShadowError as error:
                asking.send((None, str(error)))


class Asking:
    """The servers of a run, in a process that `pytest -n` gave tests to run."""

    def __init__(self, place: Any, key: bytes) -> None:
        self._place, self._key = place, key

    def address(self, kind: str) -> str:
        """As `Servers.address`."""
        with Client(self._place, authkey=self._key) as asked:
            asked.send(kind)
            address, fault = asked.recv()
        if address is None:
            raise ShadowError(fault)
        return str(address)

    def close(self) -> None:
        """They end with the run."""


def of_run(config: pytest.Config) -> Servers | Asking:
    """For this process."""
    given = getattr(config, "workerinput", {}).get(_GIVEN)
    return Asking(*given) if given else Servers()


def fill_in(workerinput: dict[str, Any], servers: Servers | Asking) -> None:
    """Tells a process over which `pytest -n` spreads the tests where to ask."""
    assert isinstance(servers, Servers)
    workerinput[_GIVEN] = servers.listen()


def address(servers: Servers | Asking, kind: str) -> str:
    """Of a server of this kind. What is wrong with its installation is said by `services.missing`."""
    try:
        return servers.address(kind)
    except ShadowError as error:
        services.missing(kind, error)
