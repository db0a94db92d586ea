"""The admin router. It shows no document content, except the fields that `reveal` requests by name.

`/metrics`, `/healthz` and `/readyz` are for scrapers and orchestrators, and respond to everyone who can reach them.
Everything else is behind `guard.Guard`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from fastapi import APIRouter, Request, Response

from shadow.fleet.status import ProcessStatus, as_json
from shadow.model.verdict import Kind
from shadow.web.desk import Refused
from shadow.web.guard import AdminGuard, Refusal
from shadow.web.page import live, page

__all__ = ["AdminView", "admin_router"]

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE_HEADERS: Final = {
    **_HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_STATIC: Final = Path(__file__).with_name("static")
_ASSETS: Final = {"console.js": "text/javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}

MOST_BYTES: Final = 64 * 1024
"""The maximum size of the body of one request."""

BODY_TIME: Final = 10.0
"""Seconds within which a body must arrive."""

_T = TypeVar("_T")


class AdminView(Protocol):
    """The data for the router. Any method may raise: the response then contains the class of the error,
    and nothing more. `desk.Refused` is a result: its text is shown."""

    token: str | None
    docs_url: str
    """The address of the manual on the web, or ""."""

    async def status(self) -> ProcessStatus:
        """The complete state: routes, journal, queues, findings, totals, gates."""

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether the process can take traffic, and for each checked component "ok" or the problem."""

    def metrics(self) -> tuple[bytes, str]:
        """The metrics as text, and their content type."""

    async def findings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Findings, groups and summary, JSON-able. `wanted`: collection, kind, path, healed, limit."""

    async def finding(self, id: str) -> dict[str, Any] | None: ...

    def rates(self) -> dict[str, list[tuple[float, float]]]:
        """Comparisons per second by verdict, oldest first."""

    async def heal(self, ids: list[str], *, dry_run: bool) -> dict[str, Any]: ...

    async def reveal(self, id: str, reason: str) -> dict[str, Any]: ...

    async def flip(self, collection: str, to: str, reason: str) -> dict[str, Any]: ...

    def refused(self, path: str, reason: str) -> None:
        """Logs that someone requested something without permission."""


class _Answered(Exception):
    """The request gets this response, and nothing more is done."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def admin_router(view: AdminView, *, prefix: str = "") -> APIRouter:
    """A router under `prefix`, which is empty or begins with "/".

    For everyone: `GET /metrics`, `/healthz` (the process responds; no store is accessed), `/readyz` (200 or 503, with a
    reason for each component). Guarded: `GET /status`, `/findings`, `/findings/{id}`, `/console`; `POST
    /findings/heal`, `/findings/reveal`, `/flip`.
    """
    router = APIRouter(prefix=prefix, tags=["shadow"], include_in_schema=False)
    pages = _Endpoints(view)
    reads = {
        "/metrics": pages.metrics,
        "/healthz": pages.healthz,
        "/readyz": pages.readyz,
        "/status": pages.reading(pages.status),
        "/findings": pages.reading(pages.findings),
        "/findings/{id}": pages.reading(pages.finding),
        "/console": pages.console,
        "/console/live": pages.reading(pages.live),
        "/console/{name}": pages.asset,
    }
    actions = {"/findings/heal": pages.heal, "/findings/reveal": pages.reveal, "/flip": pages.flip}
    for path, act in actions.items():
        router.add_api_route(path, _guarded(pages.acting(act)), methods=["POST"])
    for path, read in reads.items():
        router.add_api_route(path, _guarded(read), methods=["GET"])
    return router


_Endpoint = Callable[[Request], Awaitable[Response]]


def _guarded(endpoint: _Endpoint) -> _Endpoint:
    """Responds with the class of an error: its text may quote a document."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Answered as answered:
            return _json({"error": answered.error}, answered.status)
        except Refused as refused:
            return _json({"error": str(refused)}, 409)
        except Exception as error:
            return _json({"error": type(error).__name__}, 500)

    return guarded


class _Endpoints:
    """The endpoints."""

    def __init__(self, view: AdminView) -> None:
        self._view = view
        self._guard = AdminGuard(view.token)

    def reading(self, endpoint: _Endpoint) -> _Endpoint:
        async def checked(request: Request) -> Response:
            refusal = self._guard.reading(request)
            return await endpoint(request) if refusal is None else self._refuse(request, refusal)

        return checked

    def acting(self, act: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]) -> _Endpoint:
        async def checked(request: Request) -> Response:
            refusal = self._guard.acting(request)
            if refusal is not None:
                return self._refuse(request, refusal)
            return _json(await act(await _body(request)))

        return checked

    def _refuse(self, request: Request, refusal: Refusal) -> Response:
        # The route, and not the requested path, which may be anything.
        self._view.refused(getattr(request.scope.get("route"), "path", ""), refusal.reason)
        return _json({"error": refusal.reason}, refusal.status)

    # --- reads --------------------------------------------------------------------------------------------------

    async def metrics(self, request: Request) -> Response:
        body, content_type = await asyncio.to_thread(self._view.metrics)
        return Response(body, headers={**_HEADERS, "Content-Type": content_type})

    async def healthz(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        try:
            ready, parts = await self._view.ready()
        except Exception as error:
            return _json({"ready": False, "parts": {"readiness": f"failed: {type(error).__name__}"}}, 503)
        return _json({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def status(self, request: Request) -> Response:
        return _json(as_json(await self._view.status()))

    async def findings(self, request: Request) -> Response:
        return _json(await self._view.findings(_wanted(request.query_params)))

    async def finding(self, request: Request) -> Response:
        found = await self._view.finding(request.path_params["id"][:100])
        if found is None:
            raise _Answered(404, "no such finding")
        return _json(found)

    async def console(self, request: Request) -> Response:
        """The page itself is empty; its content is loaded for those who may read it."""
        readable = self._guard.reading(request) is None
        content = await self._live() if readable else ""
        notice = "" if readable else _notice(self._guard)
        body = page(content, notice=notice, acts=self._guard.has_token)
        return Response(body, headers=_PAGE_HEADERS, media_type="text/html")

    async def live(self, request: Request) -> Response:
        return Response(await self._live(), headers=_PAGE_HEADERS, media_type="text/html")

    async def _live(self) -> str:
        status = await self._view.status()
        found = await self._view.findings({"limit": 50})
        return live(status, found, self._view.rates(), acts=self._guard.has_token, docs_url=self._view.docs_url)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise _Answered(404, "no such file")
        return Response((_STATIC / name).read_bytes(), headers=_HEADERS, media_type=_ASSETS[name])

    # --- actions ------------------------------------------------------------------------------------------------

    async def heal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        ids = _field(body, "ids", list)
        if not all(isinstance(each, str) for each in ids):
            raise _Answered(400, "ids: texts are wanted")
        return await self._view.heal(ids, dry_run=_field(body, "dry_run", bool, default=True))

    async def reveal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._view.reveal(_field(body, "id", str), _field(body, "reason", str))

    async def flip(self, body: Mapping[str, Any]) -> dict[str, Any]:
        to = _field(body, "to", str)
        if to not in ("mongo", "dynamo"):
            raise _Answered(400, "to: mongo or dynamo")
        return await self._view.flip(_field(body, "collection", str), to, _field(body, "reason", str))


def _notice(guard: AdminGuard) -> str:
    if guard.has_token:
        return "Enter the admin token to see anything."
    return "No admin token is configured, so only this machine may read this page. Set SHADOW_ADMIN_TOKEN."


def _wanted(query: Mapping[str, str]) -> dict[str, Any]:
    """The filters of `Findings.list` from a query string."""
    unknown = set(query) - {"collection", "kind", "path", "healed", "limit"}
    if unknown:
        raise _Answered(400, "known filters: collection, kind, path, healed, limit")
    wanted: dict[str, Any] = {name: query[name][:1000] for name in ("collection", "path") if name in query}
    if "kind" in query:
        if query["kind"] not in list(Kind):
            raise _Answered(400, f"kind: one of {', '.join(Kind)}")
        wanted["kind"] = Kind(query["kind"])
    if "healed" in query:
        if query["healed"] not in ("true", "false"):
            raise _Answered(400, "healed: true or false")
        wanted["healed"] = query["healed"] == "true"
    if "limit" in query:
        if not (query["limit"].isascii() and query["limit"].isdigit() and 0 < int(query["limit"][:9]) <= 1000):
            raise _Answered(400, "limit: 1 to 1000")
        wanted["limit"] = int(query["limit"])
    return wanted


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object in the body. A body that is too large, slow or malformed is rejected."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Answered(415, "application/json is wanted")
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise _Answered(413, f"at most {MOST_BYTES} bytes")
    except TimeoutError:
        raise _Answered(408, "the body did not come in time") from None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _Answered(400, "not JSON") from None
    if not isinstance(found, dict):
        raise _Answered(400, "a JSON object is wanted")
    return found


def _field(body: Mapping[str, Any], name: str, type_: type[_T], *, default: _T | None = None) -> _T:
    value = body.get(name, default)
    if not isinstance(value, type_):
        raise _Answered(400, f"{name}: {type_.__name__} is wanted")
    return value


def _json(content: dict[str, Any], code: int = 200) -> Response:
    """JSON in which values that JSON cannot hold are replaced by their types."""
    body = json.dumps(content, default=lambda value: f"<{type(value).__name__}>", separators=(",", ":"))
    return Response(body, code, headers=_HEADERS, media_type="application/json")
