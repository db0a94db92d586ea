"""One attempt to reach a hook: a command with the body on its standard input, or a signed request.

Whatever the hook does, an attempt ends within its time limit.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import queue
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, Any, Final

from shadow.model.hooks import Hook

__all__ = ["SIGNATURE", "Attempt", "attempt", "signature"]

SIGNATURE: Final = "X-Shadow-Signature"
_LONGEST: Final = 200
"""Characters of a hook's answer that are kept."""
_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Attempt:
    """`ok`: the hook agreed. `answered`: it gave an answer, whichever. `said`: the first line of it, or what failed."""

    ok: bool
    answered: bool
    said: str = ""


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of the header: `t=SECONDS,v1=HEX`, HEX being HMAC-SHA256 of `SECONDS.BODY` by the secret."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def attempt(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
    """Blocks for `hook.timeout` seconds at most. Never raises."""
    try:
        if hook.command:
            return _run(hook, event, id, body)
        return _within(hook.timeout, lambda: _post(hook, event, id, body))
    except Exception as error:
        return Attempt(False, False, type(error).__name__)


def _run(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
    # The library's own settings hold the passwords of the stores.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHADOW_")}
    environment |= {"HOOK_EVENT": event, "HOOK_ID": id}
    process = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
        hook.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(body, timeout=hook.timeout)
    except subprocess.TimeoutExpired:
        return Attempt(False, False, f"no answer within {hook.timeout:g} s")
    finally:
        # With whatever it has started: a child may hold the pipe open.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    said = _line(out) or f"it ended with {process.returncode}"
    return Attempt(process.returncode == 0, True, said)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take body and signature to a place that nobody has configured."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


def _post(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
    headers = {"Content-Type": "application/json", "X-Shadow-Event": event, "X-Shadow-Delivery": id}
    if hook.secret:
        headers[SIGNATURE] = signature(hook.secret, int(time.time()), body)
    request = urllib.request.Request(hook.url, body, headers, method="POST")  # noqa: S310 - http and https alone
    try:
        with _OPENER.open(request, timeout=hook.timeout) as answer:
            return Attempt(True, True, _line(answer.read(_BYTES)))
    except urllib.error.HTTPError as error:
        with error:
            said = _line(error.read(_BYTES))
        # A server that is overloaded, or a proxy before it, has given no answer of the hook's.
        answered = error.code < 500 and error.code not in (408, 429)
        return Attempt(False, answered, f"status {error.code}" + (f": {said}" if said else ""))


def _within(seconds: float, work: Callable[[], Attempt]) -> Attempt:
    """A server that sends a byte now and then, and the resolver, know no limit for the whole."""
    found: queue.SimpleQueue[Attempt | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put(work())
        except Exception as error:
            found.put(error)

    threading.Thread(target=run, name="shadow-hook-request", daemon=True).start()
    try:
        answer = found.get(timeout=seconds)
    except queue.Empty:
        return Attempt(False, False, f"no answer within {seconds:g} s")
    if isinstance(answer, Exception):
        return Attempt(False, False, _reason(answer))
    return answer


def _reason(error: Exception) -> str:
    inner: Any = getattr(error, "reason", error)
    return type(inner if isinstance(inner, BaseException) else error).__name__


def _line(data: bytes) -> str:
    """The first line with anything in it, printable."""
    text = data.decode("utf-8", "replace")
    line = next((each.strip() for each in text.splitlines() if each.strip()), "")
    return "".join(each if each.isprintable() else "?" for each in line)[:_LONGEST]
