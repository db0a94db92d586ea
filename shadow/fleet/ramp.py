"""What the process that decides makes of a ramp and its guards. No I/O, and no clock of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from shadow.control.guard_record import Move, Ramp, RampState
from shadow.fleet.guards import Guard, figures_of
from shadow.model.guards import RampPlan

__all__ = ["RAMP", "decided", "described", "ramp_move"]

RAMP = "ramp"
"""The kind of the receipts of a ramp."""


def decided(
    ramp: Ramp, plan: RampPlan, guards: Sequence[Guard], elapsed: float, now: float
) -> tuple[Ramp, Move | None]:
    """The ramp after one round, and the step that it has taken. `elapsed`: seconds since the last round, 0 where they
    were not watched; `now`: epoch seconds, for people."""
    broken = "; ".join(f"{each.name}: {each.said}" for each in guards if each.holds is False)
    unknown = "; ".join(f"{each.name}: {each.said}" for each in guards if each.holds is None)
    top = plan.steps[-1]
    if ramp.share > top:
        return _moved(ramp, top, RampState.DONE, "the configuration has no step as high", guards, now)
    if broken and ramp.share:
        return _moved(ramp, plan.before(ramp.share), RampState.STOPPED, broken, guards, now)
    if ramp.state is RampState.STOPPED:
        return ramp, None
    following = plan.after(ramp.share)
    if following is None:
        return dataclasses.replace(ramp, state=RampState.DONE, waits=broken or unknown), None
    if broken or unknown:
        return dataclasses.replace(ramp, state=RampState.RAMPING, waits=broken or unknown), None
    held = ramp.held + elapsed
    if ramp.share and held < plan.every:
        return dataclasses.replace(ramp, state=RampState.RAMPING, held=held, waits=""), None
    state = RampState.DONE if following == top else RampState.RAMPING
    return _moved(dataclasses.replace(ramp, held=held), following, state, "the guards hold", guards, now)


def _moved(
    ramp: Ramp, share: float, state: RampState, why: str, guards: Sequence[Guard], now: float
) -> tuple[Ramp, Move]:
    after = ramp.moved(share, state, now, why if state is RampState.STOPPED else "")
    return after, ramp_move(ramp, after, by="the guards", reason=why, figures=figures_of(guards))


def ramp_move(before: Ramp, after: Ramp, *, by: str, reason: str, figures: Mapping[str, str]) -> Move:
    """What the receipt, the log and the hooks say of a step."""
    return Move.of(
        RAMP,
        {
            "collection": after.collection,
            "store": str(after.store),
            "share_before": before.share,
            "share": after.share,
            "back": after.share < before.share,
            "state": str(after.state),
            "number": after.number,
            "guards_held_seconds": round(before.held, 1),
            "by": by,
            "reason": reason,
            "guards": dict(figures),
            "done": True,
        },
    )


def described(ramp: Ramp, plan: RampPlan | None, now: float) -> dict[str, Any]:
    """For people, JSON-able. `plan`: None where this process's file has none; `now`: epoch seconds."""
    following = None if plan is None else plan.after(ramp.share)
    found: dict[str, Any] = {
        "collection": ramp.collection,
        "store": str(ramp.store),
        "share": ramp.share,
        "state": str(ramp.state),
        "since": ramp.since,
        "waits": ramp.waits,
        "next_share": following if ramp.state is RampState.RAMPING else None,
        "next_at": None,
    }
    if plan is not None and found["next_share"] is not None and not ramp.waits:
        found["next_at"] = round(now + max(0.0, plan.every - ramp.held if ramp.share else 0.0), 1)
    return found
