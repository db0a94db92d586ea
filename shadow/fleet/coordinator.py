"""Makes a flip: announces it, has every process pause its writes and let the secondary catch up, and decides.

Any process can coordinate it, the command line or one of the application's. A missing acknowledgement aborts it, and so
does an earlier flip; the decision itself is one conditional write. If the coordinator dies, the processes abort an
undecided flip, and a decided one no longer needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import Flip, FlipKind, FlipState, Routing
from shadow.control.members import Member
from shadow.control.records import Records
from shadow.errors import ControlError
from shadow.fleet.flip_part import FAILED, LEVEL, READY, REFUSED, REHEARSED, SWITCHED
from shadow.model.guards import WatchPlan
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id

__all__ = ["Aborted", "Flipped", "Step", "make_flip"]

_QUICK: Final = 0.01
_STALE: Final = 30.0
"""Seconds without a state change after which an undecided flip of another coordinator is aborted."""
_CHANGED_OVER: Final = 2.0
"""Seconds for all processes to report that they have changed over. The flip is made by then, whatever they report."""

Step = Callable[[str, str], None]
"""Called with each step and its result, for people."""


class Aborted(Exception):
    """The flip was not made, and nothing has changed. The text says why."""


@dataclass(frozen=True, slots=True)
class Flipped:
    """The result of a flip. `paused`: seconds from the request to pause writes until they resumed; `held`: the same
    as measured by each process, by its name; `steps`: what was done, with seconds since the start."""

    id: str
    kind: FlipKind
    to: Mapping[str, StoreName]
    done: bool
    said: str
    paused: float
    held: Mapping[str, float] = field(default_factory=dict)
    steps: Sequence[tuple[float, str]] = ()
    vetoed: bool = False

    def receipt(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "flip": self.id,
            "kind": str(self.kind),
            "to": {name: str(store) for name, store in self.to.items()},
            "done": self.done,
            "said": self.said,
            "paused_seconds": round(self.paused, 4),
            "held_seconds": {name: round(seconds, 4) for name, seconds in self.held.items()},
            "steps": [{"at": round(at, 4), "step": step} for at, step in self.steps],
        }


def make_flip(
    records: Records,
    to: Mapping[str, StoreName],
    *,
    kind: FlipKind = FlipKind.FLIP,
    by: str,
    reason: str = "",
    heartbeat: float,
    limit: float,
    spent: bool = False,
    step: Step = lambda name, said: None,
    epochs: Mapping[str, str] | None = None,
    watch: WatchPlan | None = None,
    at: Mapping[str, int] = MappingProxyType({}),
    takes_back: bool = False,
) -> Flipped:
    """Blocks until it is made or aborted. `heartbeat`: seconds within which a process sees a flip; `limit`: seconds
    for which writes may be paused; `spent`: files may still name the old primary; `epochs`: the epochs of dual
    writes in which the gates were open, by collection; None: they do not matter. `watch`: the window in which it is
    watched afterwards; `at`: the epochs of the routes that it is decided upon; `takes_back`: see `Flip`. Raises
    `Aborted` if it did not begin, and `ControlError` if the control store cannot tell the result."""
    flip = Flip(fresh_id(), kind, FlipState.ANNOUNCED, to, by, reason, watch=watch, takes_back=takes_back)
    made = _Making(records, flip, heartbeat, limit, step)
    return made.run(spent=spent, epochs=epochs or {}, at=at)


class _Making:
    def __init__(self, records: Records, flip: Flip, heartbeat: float, limit: float, step: Step) -> None:
        self._records = records
        self._flip = flip
        self._heartbeat = heartbeat
        self._limit = limit
        self._step = step
        self._began = time.monotonic()
        self._steps: list[tuple[float, str]] = []

    def run(self, *, spent: bool, epochs: Mapping[str, str], at: Mapping[str, int]) -> Flipped:
        seen = self._announce(epochs, at)
        holding: float | None = None
        try:
            rows = self._wait(READY, 3 * self._heartbeat + self._limit)
            self._say("ready", f"{len(rows)} processes: {', '.join(row.name for row in rows)}")
            self._journals(rows)
            holding = time.monotonic()
            seen = self._move(seen.with_flip(self._moved(seen, FlipState.HOLDING)))
            rows = self._wait(LEVEL, self._limit, with_all=rows)
            self._journals(rows)
            self._say("level", "all writes are paused, the secondary has caught up everywhere")
            if self._flip.kind is FlipKind.REHEARSAL:
                self._move(seen.with_flip(self._moved(seen, FlipState.ABORTED, REHEARSED)))
                return self._done(holding, rows, done=True)
            seen = self._move(seen.committed(time.time(), spent=spent))
        except Aborted as why:
            self._abort(str(why))
            return self._done(holding, [], done=False, said=str(why))
        self._say("committed", ", ".join(f"{name}: epoch {seen.placed[name].epoch}" for name in self._flip.to))
        return self._finish(seen, holding)

    def _finish(self, seen: Routing, holding: float) -> Flipped:
        """The flip is made. Failures of the control store from here on do no harm."""
        rows: list[Member] = []
        try:
            rows = self._switched()
            paused = time.monotonic() - holding
            self._move(seen.with_flip(self._moved(seen, FlipState.RELEASED)))
        except (Aborted, ControlError):
            paused = time.monotonic() - holding
        self._say("released", f"writes were paused for {paused * 1000:.0f} ms")
        return self._done(holding, rows, done=True)

    def _announce(self, epochs: Mapping[str, str], at: Mapping[str, int]) -> Routing:
        since = time.monotonic()
        before = ""
        while True:
            seen = routing.load(self._records)
            unknown = [name for name in self._flip.to if name not in seen.placed]
            if unknown:
                raise Aborted(f"no process has registered {', '.join(unknown)} yet: is the application running?")
            gap = [name for name, mark in epochs.items() if seen.placed[name].mark != mark]
            if gap:
                raise Aborted(f"{', '.join(gap)}: dual writes were interrupted after the gates were checked")
            if moved := [name for name, epoch in at.items() if seen.placed[name].epoch != epoch]:
                raise Aborted(f"{', '.join(moved)}: flipped or completed meanwhile")
            if seen.flip is None or seen.flip.state.over:
                saved = routing.save(self._records, seen.with_flip(self._flip))
                if saved is not None:
                    self._say("announced", f"flip {self._flip.id}")
                    return saved
                continue
            if seen.revision != before:
                before, since = seen.revision, time.monotonic()
            self._clear(seen, time.monotonic() - since)
            time.sleep(5 * _QUICK)

    def _clear(self, seen: Routing, stands: float) -> None:
        """Waits for another flip, and ends one that is stalled."""
        flip = seen.flip
        assert flip is not None
        if flip.state.undecided and stands > _STALE:
            routing.save(self._records, seen.with_flip(flip.moved(FlipState.ABORTED, "its coordinator is gone")))
        elif flip.state is FlipState.COMMITTED and stands > _CHANGED_OVER:
            routing.save(self._records, seen.with_flip(flip.moved(FlipState.RELEASED)))
        elif stands > _STALE:
            raise Aborted("another flip is under way")

    # --- waiting for the processes ------------------------------------------------------------------------------

    def _wait(self, stage: str, patience: float, *, with_all: Sequence[Member] = ()) -> list[Member]:
        """Returns the members once each has reported `stage` of this flip. Raises `Aborted`, also if one of
        `with_all` has ended: a write of its last moments may be in its journal only after the others have read it,
        and would be repaired in the wrong direction once the roles have changed."""
        end = time.monotonic() + patience
        while True:
            rows = self._members()
            there = {row.id for row in rows}
            gone = [row.name for row in with_all if row.id not in there]
            if gone:
                raise Aborted(f"{', '.join(gone)} ended while the writes were paused: try again")
            for row in rows:
                if row.ack.flip == self._flip.id and row.ack.stage in (REFUSED, FAILED):
                    raise Aborted(f"{row.name}: {row.ack.said}")
            missing = [row for row in rows if row.ack.flip != self._flip.id or row.ack.stage != stage]
            if not missing and rows:
                return rows
            if time.monotonic() > end:
                raise Aborted(_missing(missing, stage, patience))
            self._still()
            time.sleep(_QUICK)

    def _still(self) -> None:
        """Raises `Aborted` if another process has ended the flip."""
        flip = routing.load(self._records).flip
        if flip is None or flip.id != self._flip.id or flip.state is FlipState.ABORTED:
            raise Aborted((flip.said if flip is not None else "") or "it was aborted by a process")

    def _members(self) -> list[Member]:
        return members.prune(self._records, members.members(self._records))

    def _journals(self, rows: Sequence[Member]) -> None:
        """Raises `Aborted` unless a living process shares each journal in use."""
        silent = members.journals(self._records) - {row.journal for row in rows}
        if silent:
            raise Aborted(
                f"no living process shares the journal {', '.join(sorted(silent))}, which is not empty: start "
                "one there, or give up what it holds with `shadow fleet forget`"
            )

    def _switched(self) -> list[Member]:
        end = time.monotonic() + _CHANGED_OVER
        while True:
            rows = self._members()
            if all(row.ack.flip == self._flip.id and row.ack.stage == SWITCHED for row in rows):
                return rows
            if time.monotonic() > end:
                return rows
            time.sleep(_QUICK)

    # --- moves --------------------------------------------------------------------------------------------------

    def _moved(self, seen: Routing, state: FlipState, said: str = "") -> Flip:
        assert seen.flip is not None
        return seen.flip.moved(state, said)

    def _move(self, wanted: Routing) -> Routing:
        saved = routing.save(self._records, wanted)
        if saved is None:
            self._still()
            raise Aborted("the routing record was changed meanwhile")
        return saved

    def _abort(self, said: str) -> None:
        def make(seen: Routing) -> Routing | None:
            flip = seen.flip
            if flip is None or flip.id != self._flip.id or not flip.state.undecided:
                return None
            return seen.with_flip(flip.moved(FlipState.ABORTED, said))

        routing.change(self._records, make)
        self._say("aborted", said)

    def _say(self, step: str, said: str) -> None:
        self._steps.append((time.monotonic() - self._began, f"{step}: {said}"))
        self._step(step, said)

    def _done(self, holding: float | None, rows: Sequence[Member], *, done: bool, said: str = "") -> Flipped:
        paused = 0.0 if holding is None else time.monotonic() - holding
        held = {f"{row.name} {row.id[-6:]}": row.ack.held for row in rows}
        return Flipped(self._flip.id, self._flip.kind, self._flip.to, done, said, paused, held, tuple(self._steps))


def _missing(rows: Sequence[Member], stage: str, patience: float) -> str:
    if not rows:
        return "no process of the application is registered: is it running?"
    names = ", ".join(f"{row.name} ({row.id})" for row in rows)
    return (
        f"not {stage} within {patience:g} s: {names}; remove a process that has ended for good with "
        "`shadow fleet forget ID`"
    )
