"""What only a process shows that has loaded nothing yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from shadow.reads.stickiness import place

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


def test_a_command_prints_the_notice_on_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("limits: {straggle: 1}\n")
    program = [sys.executable, "-c", "from shadow.cli import main; main()", "config", "show", "-c", str(file)]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    assert (
        ended.stderr
        == "notice: the setting `limits.straggle` is now `limits.in_flight_timeout`; the old spelling still works\n"
    )
    assert '"in_flight_timeout": 1' in ended.stdout


_FIRST_LOOK = """
from shadow.config import parse
from shadow.errors import ConfigurationError
try:
    parse("collections: {users: {indexes: [{name: abc, hash: no}]}}", {})
except ConfigurationError as error:
    print(error.faults[0].field)
"""


def test_the_first_look_of_a_process_finds_what_later_ones_do() -> None:
    """A type whose name stands further down in its module is not known until settings were made once; nothing of its
    section would be looked at."""
    done = subprocess.run([sys.executable, "-c", _FIRST_LOOK], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "collections.users.indexes.0.hash"


def test_another_process_finds_the_same_place() -> None:
    code = "from shadow.reads.stickiness import place; print(repr(place('users', {'_id': 'a', 'n': {'$gt': 1.5}})))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(said) == place("users", {"_id": "a", "n": {"$gt": 1.5}})


def test_a_provider_that_is_set_later_gets_everything_but_earlier_times() -> None:
    """In a process of its own: a global provider can be set once."""
    program = """
from opentelemetry import metrics as api
from tests.unit.test_meters import *
metrics = Metrics(["users"], output=Output(Meters()))
metrics.open()
metrics.count(FOUND)
reader = Reader()
api.set_meter_provider(reader.provider)
metrics.count(FOUND)
seen = reader.series()
print(sum(value for (name, _), value in seen.items() if name == "shadow_operations_total"))
print(sum(value for (name, _), value in seen.items() if name == "shadow_operation_seconds_count"))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ended.stdout.split() == ["10.0", "5"], ended.stderr


def test_what_is_off_loads_nothing() -> None:
    program = """
import sys
from shadow.observe.metrics import Metrics
metrics = Metrics(["users"])
metrics.open()
metrics.render()
metrics.close()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ended.stdout.strip() == "[]", ended.stderr
