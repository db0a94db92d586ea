"""What happens when a server that the tests need cannot be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, TypeVar

import pytest

from shadow.embedded.process import ServerProcess
from shadow.errors import ShadowError

__all__ = ["missing", "required", "start"]

S = TypeVar("S", bound=ServerProcess)


def required() -> bool:
    """Whether a missing service is a failure: in CI always, elsewhere if SHADOW_REQUIRE_SERVICES is set."""
    return os.environ.get("CI", "").lower() in ("1", "true") or bool(os.environ.get("SHADOW_REQUIRE_SERVICES"))


def missing(what: str, reason: object) -> NoReturn:
    """Fails where the service is required; skips, and says so, on a developer's own machine."""
    text = f"{what} cannot be had: {reason}"
    if required():
        pytest.fail(text, pytrace=False)
    pytest.skip(f"{text}\n  (a failure with CI=true or SHADOW_REQUIRE_SERVICES=1)")


def start(make: Callable[[], S]) -> S:
    """Makes and starts a server. What is wrong with its installation is said by `missing`."""
    server = make()
    try:
        return server.start()
    except ShadowError as error:
        missing(server.name, error)
