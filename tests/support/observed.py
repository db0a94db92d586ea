"""The sample backend and Prometheus as processes of their own, as docker-compose.yml runs them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from shadow.embedded.process import ServerProcess
from shadow.errors import StoreUnavailable

__all__ = ["Backend", "Prometheus"]

CONFIG: Final = Path(__file__).parents[2] / "config"


class _HttpServer(ServerProcess):
    health = "/"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.get(self.health)[0] == http.HTTPStatus.OK


class Backend(_HttpServer):
    """The sample backend over shadow, with the configuration of the tree and further settings as variables."""

    name = "backend"
    health = "/readyz"

    def __init__(self, settings: Mapping[str, str], *, workers: int = 1) -> None:
        super().__init__()
        self._settings = dict(settings)
        self._workers = workers

    def command(self) -> list[str]:
        factory = "shadow.embedded.notesllm.server:build"
        return [sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(self.port), *self._many()]

    def _many(self) -> list[str]:
        return ["--workers", str(self._workers)] if self._workers > 1 else []

    def environment(self) -> Mapping[str, str]:
        journal = {"SHADOW_JOURNAL_URL": f"sqlite:///{self.folder}/shadow.db"}
        if self._workers > 1:
            (self.folder / "metrics").mkdir(exist_ok=True)
            journal["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "metrics")
        return {**os.environ, "SHADOW_CONFIG": str(CONFIG / "shadow.yaml"), **journal, **self._settings}


class Prometheus(_HttpServer):
    """A Prometheus with the configuration of the tree, but for the target and a shorter interval."""

    name = "prometheus"
    health = "/-/ready"

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def command(self) -> list[str]:
        program = shutil.which("prometheus") or str(CONFIG.parent / ".cache/prometheus/usr/bin/prometheus")
        if not Path(program).exists():
            raise StoreUnavailable("there is no prometheus here", hint="bash .ci/run fetches it; or apt-get install it")
        config = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text("utf-8"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(CONFIG / "prometheus" / each) for each in config["rule_files"]]
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": [self._target]}]
        file = self.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        return [
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query. Raises `ValueError` if Prometheus refuses it."""
        status, body = self.get("/api/v1/query?" + urlencode({"query": expression}))
        answer = json.loads(body)
        if status != http.HTTPStatus.OK:
            raise ValueError(answer.get("error", status))
        result: list[Any] = answer["data"]["result"]
        return result

    def lately(self, expression: str, seconds: float = 60.0) -> list[Any]:
        """The series of a range query over the last seconds. Raises `ValueError` if Prometheus refuses it."""
        now = time.time()
        asked = {"query": expression, "start": now - seconds, "end": now, "step": 1}
        status, body = self.get("/api/v1/query_range?" + urlencode(asked))
        answer = json.loads(body)
        if status != http.HTTPStatus.OK:
            raise ValueError(answer.get("error", status))
        result: list[Any] = answer["data"]["result"]
        return result
