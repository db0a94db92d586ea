"""A process whose file names another control store cannot be seen by the others there: the tokens tell whose it is."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory import Place
from tests.support.pair import until
from tests.support.shadows import COLLECTION


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "shadow"]
    return [each for each in lines if each["event"] == "control.elsewhere"]


async def test_a_process_with_another_control_store_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path)
    other = str(place.control.with_name("other.db"))
    with caplog.at_level(logging.INFO, logger="shadow"):
        async with place.shadow() as shadow:
            await shadow[COLLECTION].insert_one({"_id": 1})
            await until(lambda: shadow.admin.fleet.vouched)
        assert told(caplog) == []
        async with place.shadow(control=other) as shadow:
            await shadow[COLLECTION].insert_one({"_id": 2})
            await until(lambda: shadow.admin.fleet.vouched)
            lines = told(caplog)
            status = await shadow.admin.fleet.status()
    assert lines
    for said in (lines[0]["detail"], *status["control_elsewhere"].values()):
        assert str(place.control) in said
        assert "pid" in said
    assert other in lines[0]["detail"]
    assert lines[0]["level"] == "warning"


async def test_one_with_the_same_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path)
    with caplog.at_level(logging.INFO, logger="shadow"):
        for number in range(2):
            async with place.shadow() as shadow:
                await shadow[COLLECTION].insert_one({"_id": number})
                await until(lambda shadow=shadow: shadow.admin.fleet.vouched)
                assert (await shadow.admin.fleet.status())["control_elsewhere"] == {}
    assert told(caplog) == []
