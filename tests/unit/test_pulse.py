"""A loop that is held up is known to be late, and known to be in time again."""

from __future__ import annotations

import asyncio
import time

from shadow.replicate.pulse import Pulse
from tests.support.pair import until


async def test_a_loop_that_is_held_up_is_late_at_once_and_in_time_again_later() -> None:
    pulse = Pulse(limit=0.3)
    pulse.start()
    await until(lambda: not pulse.late)
    time.sleep(0.5)
    assert pulse.late, "before any beat has told"
    assert pulse.lag > 0.3
    await until(lambda: not pulse.late)
    pulse.stop()


async def test_zero_never_sheds_and_holds_no_timer() -> None:
    pulse = Pulse(limit=0)
    pulse.start()
    time.sleep(0.1)
    assert not pulse.late
    assert pulse.lag == 0.0


async def test_a_stopped_pulse_beats_no_more() -> None:
    pulse = Pulse(limit=0.01)
    pulse.start()
    pulse.stop()
    time.sleep(0.1)
    assert not pulse.late
    await asyncio.sleep(0.1)
    assert pulse.lag == 0.0
    pulse.stop()
