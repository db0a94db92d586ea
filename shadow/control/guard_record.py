"""The record of the guards: the share of reads of each ramp, the watch windows of flips, and which process decides.

It is one record, so that a decision and the right to make it are one conditional write. The process that decides renews
`beat` with each of its rounds; another one takes over when it has not seen the record change for some time of its own
clock. From then on whatever the earlier one read is of another revision, and nothing that it writes counts.

`moves` are decisions whose receipts, events and hooks are still to come: they are written with the decision itself, so
that a process that dies after it leaves them to the next one. They may come twice then, with the same id.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.control.flip_record import Routing, WatchedFlip, plan_of
from shadow.control.records import MISSING
from shadow.control.shared_record import SharedRecord
from shadow.model.guards import WatchPlan
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id

__all__ = [
    "GuardRecord",
    "Move",
    "Ramp",
    "RampState",
    "WatchState",
    "WatchWindow",
    "change",
    "load",
    "open_windows",
    "save",
]

KEY: Final = "guards"


class RampState(enum.StrEnum):
    RAMPING = "ramping"
    """It steps on while the guards hold."""
    DONE = "done"
    """At the last step. The guards still count."""
    STOPPED = "stopped"
    """A guard has broken, or an operator has stopped it: it stays where it is until it is resumed."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """The share of the reads of `collection` that `store` answers while it is the secondary.

    `number` rises with each change of the share; `held`: seconds for which the guards have held at this step, measured
    by the process that decides; `since`: epoch seconds of the last step, for people; `waits`: what the next step waits
    for, or why it was stopped.
    """

    collection: str
    store: StoreName
    share: float = 0.0
    number: int = 0
    state: RampState = RampState.RAMPING
    held: float = 0.0
    since: float = 0.0
    waits: str = ""

    def moved(self, share: float, state: RampState, now: float, waits: str = "") -> Ramp:
        """`now`: epoch seconds."""
        return dataclasses.replace(
            self, share=share, number=self.number + 1, state=state, held=0.0, since=now, waits=waits
        )


class WatchState(enum.StrEnum):
    """
    watching <--> reported      (a guard breaks and holds again, where the flip is not to be taken back)
        |          |
        |          +--> unproven
        +--> held | unproven | ended
        +--> going_back --> taken_back | ended
    """

    WATCHING = "watching"
    REPORTED = "reported"
    """A guard is broken, and the flip is not to be taken back by itself."""
    GOING_BACK = "going_back"
    """A guard has broken: the flip is taken back as soon as that is possible."""
    HELD = "held"
    """Every guard was known to hold, and none has broken."""
    UNPROVEN = "unproven"
    """It has run to its end, but some guard never had enough traffic, or has broken on the way."""
    TAKEN_BACK = "taken_back"
    ENDED = "ended"
    """By an operator, or by another flip."""

    @property
    def over(self) -> bool:
        return self not in (WatchState.WATCHING, WatchState.REPORTED, WatchState.GOING_BACK)


@dataclass(frozen=True, slots=True)
class WatchWindow:
    """The watch window of a flip. `epochs` as of `WatchedFlip`; `watched`: seconds for which the guards of all
    processes were watched, measured by the process that decides; `still`: that time does not count now, for the figures
    of some process are missing; `since` and `ended`: epoch seconds, for people.

    `known`: the guards that were known to hold at some time, by collection and name; `breaks`: how often one has
    broken; `reason`: what has broken, or why it is over; `figures`: the guards as last seen; `waits`: what is not known
    now, or why the flip could not be taken back yet.
    """

    flip: str
    to: StoreName
    epochs: Mapping[str, int]
    plan: WatchPlan
    state: WatchState = WatchState.WATCHING
    watched: float = 0.0
    still: bool = False
    since: float = 0.0
    ended: float = 0.0
    by: str = ""
    known: Sequence[str] = ()
    breaks: int = 0
    reason: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    waits: str = ""

    @classmethod
    def of(cls, flip: WatchedFlip) -> WatchWindow:
        return cls(flip.flip, flip.to, flip.epochs, flip.plan, since=flip.since, by=flip.by)

    @property
    def collections(self) -> list[str]:
        return [*self.epochs]

    def left(self, seen: Routing) -> list[str]:
        """The collections that nobody has flipped or completed since."""
        return WatchedFlip(self.flip, self.to, self.epochs, self.plan).left(seen.placed)


@dataclass(frozen=True, slots=True)
class Move:
    """A decision that is still to be reported. `kind`: of its receipt; `body`: JSON-able, without document content."""

    id: str
    kind: str
    body: Mapping[str, Any]

    @classmethod
    def of(cls, kind: str, body: Mapping[str, Any]) -> Move:
        return cls(fresh_id(), kind, body)


@dataclass(frozen=True, slots=True)
class GuardRecord:
    """`holder`: the member id of the process that decides, "" for none."""

    ramps: Mapping[str, Ramp] = field(default_factory=dict)
    """By collection."""
    watches: Mapping[str, WatchWindow] = field(default_factory=dict)
    """By the id of the flip."""
    holder: str = ""
    beat: int = 0
    moves: Sequence[Move] = ()
    closed: Sequence[tuple[str, str]] | None = None
    """The gates (collection, name) that were closed when they were last read; None: never."""
    revision: str = MISSING

    def with_ramp(self, ramp: Ramp, move: Move | None = None) -> GuardRecord:
        moves = self.moves if move is None else (*self.moves, move)
        return dataclasses.replace(self, ramps={**self.ramps, ramp.collection: ramp}, moves=moves)

    def with_watch(self, window: WatchWindow, moves: Sequence[Move] = ()) -> GuardRecord:
        return dataclasses.replace(self, watches={**self.watches, window.flip: window}, moves=(*self.moves, *moves))

    def without(self, collection: str) -> GuardRecord:
        ramps = {name: each for name, each in self.ramps.items() if name != collection}
        return dataclasses.replace(self, ramps=ramps)


def open_windows(seen: Routing, record: GuardRecord) -> dict[str, WatchWindow]:
    """The watch windows that are not over, by the id of the flip: also those of which the record of the guards does not
    know yet."""
    known = {each.flip: WatchWindow.of(each) for each in seen.watched} | dict(record.watches)
    return {id: each for id, each in known.items() if not each.state.over}


def _encoded(record: GuardRecord) -> dict[str, Any]:
    return {
        "ramps": [
            {**dataclasses.asdict(each), "store": str(each.store), "state": str(each.state)}
            for each in record.ramps.values()
        ],
        "watches": [
            {
                **{name: getattr(each, name) for name in _PLAIN},
                "to": str(each.to),
                "epochs": [[name, epoch] for name, epoch in each.epochs.items()],
                "plan": dataclasses.asdict(each.plan),
                "state": str(each.state),
                "known": list(each.known),
                "figures": [[name, said] for name, said in each.figures.items()],
            }
            for each in record.watches.values()
        ],
        "holder": record.holder,
        "beat": record.beat,
        "closed": None if record.closed is None else [list(each) for each in record.closed],
        "moves": [{"id": each.id, "kind": each.kind, "body": dict(each.body)} for each in record.moves],
    }


_PLAIN: Final = ("flip", "watched", "still", "since", "ended", "by", "breaks", "reason", "waits")


def _window_of(row: Mapping[str, Any]) -> WatchWindow:
    return WatchWindow(
        to=StoreName(row["to"]),
        epochs={name: int(epoch) for name, epoch in row["epochs"]},
        plan=plan_of(row["plan"]),
        state=WatchState(row["state"]),
        known=tuple(row["known"]),
        figures={name: said for name, said in row["figures"]},  # noqa: C416 - of lists of two
        **{name: row[name] for name in _PLAIN},
    )


def _decoded(value: Mapping[str, Any], revision: str) -> GuardRecord:
    ramps = [
        Ramp(**{**each, "store": StoreName(each["store"]), "state": RampState(each["state"])})
        for each in value["ramps"]
    ]
    moves = tuple(Move(each["id"], each["kind"], each["body"]) for each in value["moves"])
    closed = value.get("closed")
    gates = None if closed is None else tuple((name, gate) for name, gate in closed)
    by_name = {each.collection: each for each in ramps}
    windows = {each.flip: each for each in map(_window_of, value.get("watches", ()))}
    return GuardRecord(by_name, windows, value["holder"], value["beat"], moves, gates, revision)


_RECORD: Final = SharedRecord(KEY, GuardRecord, _encoded, _decoded)
load, save, change = _RECORD.load, _RECORD.save, _RECORD.change
