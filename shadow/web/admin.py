"""The admin router: metrics, health, readiness, status. What it shows holds no document content."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, Response

__all__ = ["AdminView", "admin_router"]

_HEADERS = {"Cache-Control": "no-store"}


class AdminView(Protocol):
    """What the router shows. Any method may raise: the answer then says that it failed and with which class of error,
    and nothing more."""

    async def status(self) -> dict[str, Any]:
        """The state of everything, JSON-able: routes, journal, lane, findings, totals."""

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether traffic can be taken, and a word on each part that was looked at: "ok" or what is wrong."""

    def metrics(self) -> tuple[bytes, str]:
        """The exposition and its content type."""


def admin_router(view: AdminView, *, prefix: str = "") -> APIRouter:
    """A router with `GET {prefix}/metrics`, `/healthz`, `/readyz` and `/status`; `prefix` is empty or begins with "/".

    `/healthz` says that the process answers and touches no store. `/readyz` is 200 or 503, with a reason for each part.
    """
    router = APIRouter(prefix=prefix, tags=["shadow"], include_in_schema=False)

    async def metrics() -> Response:
        body, content_type = view.metrics()
        return Response(body, headers={**_HEADERS, "Content-Type": content_type})

    async def healthz() -> Response:
        return _json({"status": "ok"})

    async def readyz() -> Response:
        try:
            ready, parts = await view.ready()
        except Exception as error:
            return _json({"ready": False, "parts": {"readiness": f"failed: {type(error).__name__}"}}, 503)
        return _json({"ready": ready, "parts": parts}, 200 if ready else 503)

    async def status() -> Response:
        return _json(await view.status())

    for path, endpoint in (("/metrics", metrics), ("/healthz", healthz), ("/readyz", readyz), ("/status", status)):
        router.add_api_route(path, _guarded(endpoint), methods=["GET"])
    return router


def _guarded(endpoint: Callable[[], Awaitable[Response]]) -> Callable[[], Awaitable[Response]]:
    """The text of an error may quote a document; its class does not."""

    async def guarded() -> Response:
        try:
            return await endpoint()
        except Exception as error:
            return _json({"error": type(error).__name__}, 500)

    return guarded


def _json(content: dict[str, Any], code: int = 200) -> Response:
    """JSON with the types of what JSON cannot hold in place of its values."""
    body = json.dumps(content, default=lambda value: f"<{type(value).__name__}>", separators=(",", ":"))
    return Response(body, code, headers=_HEADERS, media_type="application/json")
