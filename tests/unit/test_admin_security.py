"""The admin routes against those who may not: nothing changes, nothing leaks, whoever asks and however."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from shadow.fleet.status import ProcessStatus, of_json
from shadow.web import admin_router
from shadow.web.desk import Refused

TOKEN: Final = "t0ken-that-is-long-enough"
SECRET: Final = "hunter2"

GUARDED_READS: Final = ("/status", "/findings", "/findings/abc", "/console/live")
OPEN_READS: Final = (
    "/metrics",
    "/healthz",
    "/readyz",
    "/console",
    "/console/console.js",
    "/console/console.css",
    "/console/icon.svg",
)
ACTIONS: Final[dict[str, dict[str, Any]]] = {
    "/findings/heal": {"ids": ["abc"], "dry_run": False},
    "/findings/reveal": {"id": "abc", "reason": "because"},
    "/flip": {"collection": "users", "to": "dynamo", "reason": "because"},
}


class View:
    """Holds a secret in everything that is guarded, and keeps what was done."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.docs_url = ""
        self.done: list[str] = []
        self.refusals: list[tuple[str, str]] = []

    async def status(self) -> ProcessStatus:
        content = {
            "collections": {SECRET: {"primary": "mongo", "phase": "shadow", "writes": "background", "shadow_reads": 1}},
            "stores": {"mongo": {"up": True}, "dynamo": {"up": True}},
            "journal": {"open": {}, "deferred": {}, "oldest_seconds": 0.0, "verify_since": {}},
            "lanes": {"writes": {"depth": 0, "capacity": 1}},
            "indexes": [],
            "totals": {},
            "verdict": {
                "gates": [{"collection": SECRET, "name": "findings", "ok": False, "said": SECRET, "look_at": SECRET}]
            },
        }
        return of_json(content)

    async def ready(self) -> tuple[bool, dict[str, str]]:
        return True, {"journal": "ok"}

    def metrics(self) -> tuple[bytes, str]:
        return b"shadow_build_info 1\n", "text/plain"

    async def findings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return {"findings": [], "groups": [], "summary": {"seen": 0, "kept": 0, "open": 0, "note": SECRET}}

    async def finding(self, id: str) -> dict[str, Any] | None:
        return {"id": id, "note": SECRET}

    def rates(self) -> dict[str, list[tuple[float, float]]]:
        return {"match": [(0.0, 1.0), (1.0, 2.0)]}

    async def heal(self, ids: list[str], *, dry_run: bool) -> dict[str, Any]:
        self.done.append(f"heal {ids} {dry_run}")
        return {"note": SECRET}

    async def reveal(self, id: str, reason: str) -> dict[str, Any]:
        self.done.append(f"reveal {id}")
        return {"note": SECRET}

    async def flip(self, collection: str, to: str, reason: str) -> dict[str, Any]:
        self.done.append(f"flip {collection} {to}")
        raise Refused("edit the file")

    def refused(self, path: str, reason: str) -> None:
        self.refusals.append((path, reason))


Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes a client of an application over a view, from an address, for a name."""
    clients: list[httpx.AsyncClient] = []

    def make(view: View, *, address: str = "127.0.0.1", name: str = "127.0.0.1:8000", **headers: str) -> Any:
        app = FastAPI()
        app.include_router(admin_router(view))
        transport = httpx.ASGITransport(app, client=(address, 5))
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        clients.append(httpx.AsyncClient(transport=transport, base_url=f"http://{name}", headers=sent))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_every_route_is_in_this_suite() -> None:
    """A new route must say here who may use it."""
    router = admin_router(View(None))
    routes = {
        (method, route.path) for route in router.routes if isinstance(route, APIRoute) for method in route.methods
    }
    named = {("GET", path) for path in (*GUARDED_READS, *OPEN_READS)} | {("POST", path) for path in ACTIONS}
    pattern = {"/findings/abc": "/findings/{id}", "/console/console.js": "/console/{name}"}
    covered = {(method, pattern.get(path, path)) for method, path in named} - {
        ("GET", "/console/console.css"),
        ("GET", "/console/icon.svg"),
    }
    assert routes == covered


# --- without a token --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GUARDED_READS)
async def test_without_a_token_this_machine_may_read(connect: Connect, path: str) -> None:
    for address, name in (("127.0.0.1", "127.0.0.1:8000"), ("::1", "[::1]:8000"), ("127.9.9.9", "localhost")):
        answer = await connect(View(None), address=address, name=name).get(path)
        assert answer.status_code == 200
        assert SECRET in answer.text


@pytest.mark.parametrize("path", GUARDED_READS)
@pytest.mark.parametrize(
    "other",
    [
        {"address": "10.0.0.7"},
        {"address": "testclient"},
        {"name": "attacker.example"},
        {"name": "127.0.0.1.attacker.example"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Authorization": "Bearer x"},
    ],
    ids=str,
)
async def test_without_a_token_nobody_else_may_read(connect: Connect, path: str, other: dict[str, str]) -> None:
    """Not another machine, not a proxy for one, not a page of another site, not a foreign name that leads here."""
    view = View(None)
    answer = await connect(view, **other).get(path)
    assert answer.status_code in (401, 403)
    assert SECRET not in answer.text
    assert len(view.refusals) == 1


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("headers", [{}, bearer(), bearer(""), {"Authorization": "Bearer"}], ids=str)
async def test_without_a_token_nobody_may_act(connect: Connect, path: str, headers: dict[str, str]) -> None:
    view = View(None)
    answer = await connect(view).post(path, json=ACTIONS[path], headers=headers)
    assert answer.status_code == 403
    assert "SHADOW_ADMIN_TOKEN" in answer.json()["error"]
    assert view.done == []


# --- with a token -----------------------------------------------------------------------------------------------

WRONG: Final = [
    {},
    bearer(""),
    bearer("wrong"),
    bearer(TOKEN[:-1]),
    bearer(f"{TOKEN}x"),
    bearer(TOKEN.upper()),
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
    {"Cookie": f"token={TOKEN}"},
    {"X-Admin-Token": TOKEN},
]


@pytest.mark.parametrize("headers", WRONG, ids=str)
async def test_with_a_token_it_must_be_shown_and_be_right(connect: Connect, headers: dict[str, str]) -> None:
    view = View(TOKEN)
    client = connect(view)
    for path in GUARDED_READS:
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, SECRET in answer.text, TOKEN in answer.text) == (401, False, False)
    for path, body in ACTIONS.items():
        answer = await client.post(path, json=body, headers=headers)
        assert (answer.status_code, SECRET in answer.text, TOKEN in answer.text) == (401, False, False)
    assert view.done == []
    assert len(view.refusals) == len(GUARDED_READS) + len(ACTIONS)
    assert TOKEN not in str(view.refusals)


async def test_the_token_in_a_query_is_no_token(connect: Connect) -> None:
    assert (await connect(View(TOKEN)).get(f"/status?token={TOKEN}&authorization=Bearer%20{TOKEN}")).status_code == 401


async def test_the_holder_of_the_token_may_read_and_act_from_anywhere(connect: Connect) -> None:
    view = View(TOKEN)
    client = connect(view, address="10.0.0.7", name="api.example.org", **bearer())
    for path in GUARDED_READS:
        assert (await client.get(path)).status_code == 200
    statuses = [(await client.post(path, json=body)).status_code for path, body in ACTIONS.items()]
    assert statuses == [200, 200, 409]
    assert view.done == ["heal ['abc'] False", "reveal abc", "flip users dynamo"]


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://api.example.org.attacker.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://attacker.example"},
    ],
    ids=str,
)
async def test_a_request_from_another_site_does_nothing_even_with_the_token(
    connect: Connect, path: str, headers: dict[str, str]
) -> None:
    view = View(TOKEN)
    answer = await connect(view, name="api.example.org", **bearer()).post(path, json=ACTIONS[path], headers=headers)
    assert answer.status_code == 403
    assert view.done == []


async def test_the_own_page_may_act(connect: Connect) -> None:
    view = View(TOKEN)
    headers = {"Origin": "https://api.example.org", "Sec-Fetch-Site": "same-origin", **bearer()}
    client = connect(view, name="api.example.org")
    assert (await client.post("/findings/heal", json={"ids": ["abc"]}, headers=headers)).status_code == 200
    assert view.done == ["heal ['abc'] True"], "a heal is a dry run unless it says otherwise"


async def test_no_other_origin_is_allowed_to_read_an_answer(connect: Connect) -> None:
    client = connect(View(TOKEN))
    for path in (*GUARDED_READS, *OPEN_READS):
        answer = await client.get(path, headers={"Origin": "http://attacker.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for path in ACTIONS:
        assert (await client.options(path, headers={"Origin": "http://attacker.example"})).status_code == 405


# --- malformed and oversized ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize(
    ("content", "type_", "status"),
    [
        (b"", "application/json", 400),
        (b"not json", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"{}", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"ids": "abc", "id": 1, "collection": [], "to": {}, "reason": 5}', "application/json", 400),
        (b'{"ids": [1], "id": null, "collection": "x", "to": "postgres", "reason": "x"}', "application/json", 400),
        (b" " * 70_000 + b"{}", "application/json", 413),
        (b'{"ids": ["abc"]}', "text/plain", 415),
        (b"ids=abc", "application/x-www-form-urlencoded", 415),
        (b'{"ids": ["abc"]}', "", 415),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_malformed_or_too_large_does_nothing(
    connect: Connect, path: str, content: bytes, type_: str, status: int
) -> None:
    view = View(TOKEN)
    answer = await connect(view, **bearer()).post(path, content=content, headers={"Content-Type": type_})
    assert answer.status_code == status
    assert view.done == []
    assert SECRET not in answer.text


async def test_a_body_without_an_end_is_cut_off(connect: Connect) -> None:
    view = View(TOKEN)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            assert sent < 1000, "it is read on and on"
            yield b" " * 1024
            await asyncio.sleep(0)

    client = connect(view, **bearer())
    # httpx collects a whole body before it hands it to an application, so the application is asked directly.
    app = client._transport.app  # type: ignore[attr-defined]
    body = endless()
    answers: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(body), "more_body": True}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/flip", "headers": headers, "query_string": b""}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "http_version": "1.1"}
    await app({**scope, "root_path": "", "raw_path": b"/flip"}, receive, send)
    assert answers[0]["status"] == 413
    assert view.done == []


async def test_a_wrong_token_is_refused_before_the_body_is_read(connect: Connect) -> None:
    answer = await connect(View(TOKEN), **bearer("wrong")).post("/flip", content=b"x" * 1_000_000)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/console/../admin.py", "/console/..%2fadmin.py", "/console/page.py", "/console/%00"])
async def test_no_file_but_the_pages_own_is_served(connect: Connect, path: str) -> None:
    answer = await connect(View(None)).get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


# --- the page ---------------------------------------------------------------------------------------------------


async def test_the_page_says_nothing_to_whoever_may_not_read_and_says_why(connect: Connect) -> None:
    for view, other in ((View(TOKEN), {}), (View(None), {"address": "10.0.0.7"})):
        answer = await connect(view, **other).get("/console")
        assert answer.status_code == 200
        assert SECRET not in answer.text
        assert "token" in answer.text
    shown = await connect(View(None)).get("/console")
    assert SECRET in shown.text
    assert "Read only: no admin token is configured" in shown.text
    assert "data-action" not in shown.text


async def test_the_pages_policy_lets_nothing_in_and_nothing_is_inline(connect: Connect) -> None:
    answer = await connect(View(None)).get("/console")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    for forbidden in (" style=", "<style", "javascript:", " onclick", "http://", "https://"):
        assert forbidden not in answer.text
    assert answer.text.count("<script") == 1


async def test_markup_in_names_is_text(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "<script>alert(1)</script>\"'"
    monkeypatch.setattr("tests.unit.test_admin_security.SECRET", hostile)
    answer = await connect(View(None)).get("/console/live")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;" in answer.text


async def test_an_error_says_its_class_and_nothing_else(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(SECRET)

    view = View(TOKEN)
    client = connect(view, **bearer())
    for name in ("status", "findings", "finding", "heal", "reveal", "flip"):
        monkeypatch.setattr(view, name, broken)
    for path in GUARDED_READS:
        assert (await client.get(path)).json() == {"error": "RuntimeError"}
    for path, body in ACTIONS.items():
        assert (await client.post(path, json=body)).json() == {"error": "RuntimeError"}
