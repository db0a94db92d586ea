"""Requests to a running application's admin router over HTTP."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from shadow.errors import StoreUnavailable

__all__ = ["Url", "ask"]

Url = Annotated[
    str,
    typer.Option(
        envvar="SHADOW_STATUS_URL",
        help="Where the application serves the admin router. SHADOW_ADMIN_TOKEN is sent along if it is set.",
    ),
]

TIMEOUT = 60.0
"""Seconds. Repairing many findings takes a while."""


def ask(
    url: str, path: str, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The admin router's answer. With a `body`, the request is an action. Raises `StoreUnavailable` if there is no
    answer, and typer's BadParameter if the application refuses, with its reason."""
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url}: must begin with http:// or https://")
    target = f"{url.rstrip('/')}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    headers = {"Content-Type": "application/json"} if body is not None else {}
    token = os.environ.get("SHADOW_ADMIN_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(target, data, headers)  # noqa: S310 - the scheme was checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - likewise
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        reason = _reason(error)
        if reason is not None and error.code < 500:
            raise typer.BadParameter(reason) from error
        raise _unreachable(target, reason or f"HTTP {error.code}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise _unreachable(target, type(error).__name__) from error


def _reason(error: urllib.error.HTTPError) -> str | None:
    """The admin router's message; None if the answer is not the admin router's."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _unreachable(target: str, why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{target} did not answer as the admin router does ({why})",
        hint="give the address of `shadow.admin_router()` with --url",
    )
