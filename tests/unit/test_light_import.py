"""What importing the package loads: no web framework, no command line, no driver."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

import shadow

HEAVY: Final = ("dask", "distributed", "fastapi", "rich", "starlette", "structlog", "typer", "uvicorn")
DRIVERS: Final = ("aioboto3", "aiobotocore", "motor")


STEPS: Final = {
    "import shadow": HEAVY + DRIVERS,
    "from shadow import Shadow, Settings, get_collection": HEAVY + DRIVERS,
    # structlog looks for rich by itself
    "Shadow.from_settings(Settings())": tuple(each for each in HEAVY if each not in ("rich", "structlog")),
}
"""What a process does, one after the other, and what must not be loaded after each."""


def test_what_is_loaded() -> None:
    looked = [f"{step}; print(*sorted({{*{unwanted!r}}} & set(sys.modules)))" for step, unwanted in STEPS.items()]
    program = "\n".join(["import sys", *looked])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert dict(zip(STEPS, ended.stdout.splitlines(), strict=True)) == dict.fromkeys(STEPS, "")


def test_every_public_name_is_there() -> None:
    assert set(shadow.__all__) <= set(dir(shadow))
    for name in shadow.__all__:
        assert getattr(shadow, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shadow.nothing
