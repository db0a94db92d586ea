"""What importing the package loads: no web framework, no command line, no driver."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

import shadow

HEAVY: Final = ("dask", "distributed", "fastapi", "rich", "starlette", "structlog", "typer", "uvicorn")
DRIVERS: Final = ("aioboto3", "aiobotocore", "motor")


@pytest.mark.parametrize("program", ["import shadow", "from shadow import Shadow, Settings, get_collection"])
def test_what_is_loaded(program: str) -> None:
    asked = f"{program}; import sys; print(*sorted({{*{HEAVY + DRIVERS!r}}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=100, check=True)
    assert ended.stdout.split() == []


def test_a_shadow_is_made_without_web_and_command_line() -> None:
    heavy = [each for each in HEAVY if each not in ("rich", "structlog")]  # structlog looks for rich by itself
    asked = (
        "import sys; from shadow import Settings, Shadow; Shadow.from_settings(Settings());"
        f"print(*sorted({{*{heavy!r}}} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=100, check=True)
    assert ended.stdout.split() == []


def test_every_public_name_is_there() -> None:
    assert set(shadow.__all__) <= set(dir(shadow))
    for name in shadow.__all__:
        assert getattr(shadow, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shadow.nothing
