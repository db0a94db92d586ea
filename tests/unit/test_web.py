"""The admin router over HTTP: what is asked for is answered, and errors say their class and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shadow.fleet.status import CollectionRoute, JournalStatus, ProcessStatus, as_json
from shadow.model.phase import Phase, StoreName
from shadow.model.verdict import Kind
from shadow.observe.metrics import Metrics
from shadow.web import AdminView, admin_router


class View:
    """An `AdminView` with answers that a test sets; an exception as an answer is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "status": ProcessStatus(
                {"users": CollectionRoute(StoreName.MONGO, Phase.SHADOW, "background", 1.0)},
                journal=JournalStatus(open={"users": 1}),
            ),
            "ready": (True, {"primary": "ok", "journal": "ok", "config": "ok"}),
            "metrics": Metrics(["users"]).render(),
            "findings": {"findings": [], "groups": [], "summary": {"seen": 0, "kept": 0, "open": 0, "dropped": 0}},
            "finding": None,
            "rates": {},
        }
        self.asked: list[str] = []
        self.token: str | None = None
        self.docs_url = ""

    def _answer(self, name: str) -> Any:
        self.asked.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def status(self) -> ProcessStatus:
        answer: ProcessStatus = self._answer("status")
        return answer

    async def ready(self) -> tuple[bool, dict[str, str]]:
        answer: tuple[bool, dict[str, str]] = self._answer("ready")
        return answer

    def metrics(self) -> tuple[bytes, str]:
        answer: tuple[bytes, str] = self._answer("metrics")
        return answer

    async def findings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(str(dict(wanted)))
        answer: dict[str, Any] = self._answer("findings")
        return answer

    async def finding(self, id: str) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = self._answer("finding")
        return answer

    def rates(self) -> dict[str, list[tuple[float, float]]]:
        answer: dict[str, list[tuple[float, float]]] = self._answer("rates")
        return answer

    async def heal(self, ids: list[str], *, dry_run: bool) -> dict[str, Any]:
        raise AssertionError("nothing here acts")

    async def reveal(self, id: str, reason: str) -> dict[str, Any]:
        raise AssertionError("nothing here acts")

    async def flip(self, collection: str, to: str, reason: str) -> dict[str, Any]:
        raise AssertionError("nothing here acts")

    def refused(self, path: str, reason: str) -> None:
        self.asked.append(f"refused {path}")


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
async def client(view: View) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    accepted: AdminView = view
    app.include_router(admin_router(accepted))
    app.include_router(admin_router(accepted, prefix="/admin"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        yield http


async def test_metrics_are_the_exposition_with_its_content_type(client: httpx.AsyncClient, view: View) -> None:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content == view.answers["metrics"][0]
    assert answer.headers["content-type"] == view.answers["metrics"][1]
    assert b"shadow_build_info" in answer.content


async def test_healthz_touches_nothing(client: httpx.AsyncClient, view: View) -> None:
    view.answers = {}
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert view.asked == []


async def test_readyz_is_200_only_if_everything_is_ready(client: httpx.AsyncClient, view: View) -> None:
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    view.answers["ready"] = (False, {"primary": "unreachable", "journal": "ok"})
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "parts": {"primary": "unreachable", "journal": "ok"}}
    view.answers["ready"] = RuntimeError("hunter2")
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert "hunter2" not in answer.text


async def test_status_is_json_with_types_for_what_json_cannot_hold(client: httpx.AsyncClient, view: View) -> None:
    shown = (await client.get("/status")).json()
    assert shown == as_json(view.answers["status"])
    assert (shown["collections"]["users"]["primary"], shown["journal"]["open"]) == ("mongo", {"users": 1})
    view.answers["status"] = ProcessStatus(more={"raw": b"hunter2", "list": [{1}]})
    shown = (await client.get("/status")).json()
    assert (shown["raw"], shown["list"]) == ("<bytes>", ["<set>"])


@pytest.mark.parametrize("name", ["status", "metrics"])
async def test_an_error_says_its_class_and_nothing_else(client: httpx.AsyncClient, view: View, name: str) -> None:
    view.answers[name] = ValueError("hunter2")
    answer = await client.get(f"/{name}")
    assert (answer.status_code, answer.json()) == (500, {"error": "ValueError"})


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/status"])
async def test_a_prefix_moves_every_path_and_nothing_is_cached_or_changed(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).text == (await client.get(f"/admin{path}")).text
    assert (await client.get(path)).headers["cache-control"] == "no-store"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.request(method, path)).status_code == 405


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("?collection=users&path=a.b", {"collection": "users", "path": "a.b"}),
        ("?kind=value&healed=false&limit=7", {"kind": Kind.VALUE, "healed": False, "limit": 7}),
    ],
)
async def test_filters_of_findings_arrive(client: httpx.AsyncClient, view: View, query: str, wanted: Any) -> None:
    assert (await client.get(f"/findings{query}")).json() == view.answers["findings"]
    assert view.asked[0] == str(wanted)


@pytest.mark.parametrize(
    "query",
    ["kind=nothing", "healed=maybe", "limit=0", "limit=1001", "limit=-1", "limit=x", "where=1", "limit=99999999999"],
)
async def test_a_filter_that_means_nothing_is_refused(client: httpx.AsyncClient, view: View, query: str) -> None:
    answer = await client.get(f"/findings?{query}")
    assert answer.status_code == 400
    assert view.asked == []


async def test_a_finding_that_is_not_there_is_not_found(client: httpx.AsyncClient, view: View) -> None:
    assert (await client.get("/findings/abc")).status_code == 404
    view.answers["finding"] = {"id": "abc"}
    assert (await client.get("/findings/abc")).json() == {"id": "abc"}


async def test_the_admin_paths_are_not_in_the_applications_own_schema(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json()["paths"] == {}
