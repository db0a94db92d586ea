"""Decides who may read the admin pages, and who may act through them.

Without a configured token, requests from this machine may read, and nobody may act. With a token, only requests that
carry it may read or act. The token travels in a header that no browser sends by itself, so no other site can make a
visitor's browser act; the origin that a browser reports is checked nevertheless.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final

from fastapi import Request

__all__ = ["AdminGuard", "Refusal"]

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_SAME: Final = ("same-origin", "none")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is rejected: an HTTP status, and a text for the reader."""

    status: int
    reason: str


class AdminGuard:
    """`token`: the configured token, or None."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def reading(self, request: Request) -> Refusal | None:
        """None: the request may read."""
        if not _same_site(request):
            return Refusal(403, "a request from another site")
        if self._token is None:
            if "authorization" in request.headers:
                return Refusal(401, "no admin token is configured: set SHADOW_ADMIN_TOKEN")
            return None if _is_local(request) else Refusal(403, "without an admin token, only this machine may read")
        return self._shown(request)

    def acting(self, request: Request) -> Refusal | None:
        """None: the request may change something."""
        if not _same_site(request):
            return Refusal(403, "a request from another site")
        if self._token is None:
            return Refusal(403, "nothing can be done without an admin token: set SHADOW_ADMIN_TOKEN")
        return self._shown(request)

    def _shown(self, request: Request) -> Refusal | None:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), (self._token or "").encode())
        if scheme.lower() == "bearer" and right and self._token:
            return None
        return Refusal(401, "the admin token is wanted: Authorization: Bearer ...")


def _same_site(request: Request) -> bool:
    """Whether the page that made the request is of this site, if a browser reports it. Source: Fetch Metadata
    headers."""
    if request.headers.get("sec-fetch-site", "none") not in _SAME:
        return False
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def _is_local(request: Request) -> bool:
    """Whether the request was made on this machine and for this machine. The requested host name counts too: a foreign
    name that resolves to this machine belongs to another site; and a proxied request is not local, wherever the proxy
    runs."""
    client = request.client.host if request.client is not None else ""
    if any(name in request.headers for name in _FORWARDED):
        return False
    host = request.headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return _is_loopback(client) and (name.lower() == "localhost" or _is_loopback(name))


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
