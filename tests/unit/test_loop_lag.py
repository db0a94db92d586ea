"""A loop that is held up is known to be late, and known to be in time again."""

from __future__ import annotations

import asyncio
import time

from shadow.reads.loop_lag import LoopLag
from tests.support.pair import until


async def test_a_loop_that_is_held_up_is_late_at_once_and_in_time_again_later() -> None:
    lag = LoopLag(limit=0.3)
    lag.start()
    await until(lambda: not lag.late)
    time.sleep(0.5)
    assert lag.late, "before any beat has told"
    assert lag.seconds > 0.3
    await until(lambda: not lag.late)
    lag.stop()


async def test_zero_never_sheds_and_holds_no_timer() -> None:
    lag = LoopLag(limit=0)
    lag.start()
    time.sleep(0.1)
    assert not lag.late
    assert lag.seconds == 0.0


async def test_a_stopped_pulse_beats_no_more() -> None:
    lag = LoopLag(limit=0.01)
    lag.start()
    lag.stop()
    time.sleep(0.1)
    assert not lag.late
    await asyncio.sleep(0.1)
    assert lag.seconds == 0.0
    lag.stop()
