"""The routing record: which store is primary for the whole fleet, and the flip that is under way.

It is one record, so that one conditional write decides a flip, whatever collections it is about. The states of a flip:

    announced --> holding --> committed --> released
        |            |
        +------------+-----> aborted

- announced: every process says whether it could take part.
- holding: every process pauses the writes of the collections, and lets the secondary catch up.
- committed: the new primaries are in force. Every process switches; only another flip takes it back.
- released, aborted: the writes continue.

It also says, for each collection, whether processes may write to one store only, and how (`WriteState`), and which
epoch of dual writes it is in. A copy, a verification or a rehearsal notes its epoch, and proves nothing in any other.
These fields are apart from `placed`: an older version of this library loses them when it writes the record, so that
nothing counts as proven any more.

A flip with a watch window puts the window into the record with the same write that decides it. What happens to the
window is in the record of the guards.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.control.records import MISSING
from shadow.control.shared_record import SharedRecord
from shadow.model.guards import GuardLimits, WatchPlan
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id

__all__ = [
    "MOVES",
    "Flip",
    "FlipKind",
    "FlipState",
    "RouteRecord",
    "Routing",
    "WatchedFlip",
    "WriteState",
    "change",
    "load",
    "plan_of",
    "save",
]

KEY: Final = "routing"


class FlipState(enum.StrEnum):
    ANNOUNCED = "announced"
    HOLDING = "holding"
    COMMITTED = "committed"
    RELEASED = "released"
    ABORTED = "aborted"

    @property
    def undecided(self) -> bool:
        return self in (FlipState.ANNOUNCED, FlipState.HOLDING)

    @property
    def over(self) -> bool:
        return not MOVES[self]


MOVES: Final[dict[FlipState, tuple[FlipState, ...]]] = {
    FlipState.ANNOUNCED: (FlipState.HOLDING, FlipState.ABORTED),
    FlipState.HOLDING: (FlipState.COMMITTED, FlipState.ABORTED),
    FlipState.COMMITTED: (FlipState.RELEASED,),
    FlipState.RELEASED: (),
    FlipState.ABORTED: (),
}
"""The one table of moves."""


class FlipKind(enum.StrEnum):
    """`complete` ends dual writes, `reopen` takes that back, `rehearsal` is aborted when all processes have caught
    up."""

    FLIP = "flip"
    COMPLETE = "complete"
    REOPEN = "reopen"
    REHEARSAL = "rehearsal"


class WriteState(enum.StrEnum):
    """How the processes write a collection; `control.epochs` makes the moves.

    single --> announced --> raising --> dual <--> closing --> single
       ^           |            |
       +-----------+------------+
    """

    SINGLE = "single"
    """Only one store is written. A write may be the driver's own call, which moves no version."""
    ANNOUNCED = "announced"
    """The same, but documents may soon have versions: every reader must hide them."""
    RAISING = "raising"
    """No write is the driver's own call any more; some processes still write to one store only."""
    DUAL = "dual"
    """A process may write to both stores."""
    CLOSING = "closing"
    """One process has seen that none writes to both any more, and checks it once more."""


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """The route of one collection. `since`: epoch seconds of the change to it.

    `previous`: the store that was primary before and has had every write since, so that a flip back is possible.
    `spent`: the files of some processes may still name `previous`; they do not decide the primary until all of them
    have named this one. `broken`: epoch seconds of the last time that only one store was written, 0 for never: what was
    copied and verified before proves nothing. `dual` numbers the epochs of dual writes, 0 if there was none ever;
    `mark` is the unique id of the current one, "" while there is none.
    """

    primary: StoreName
    epoch: int = 1
    since: float = 0.0
    previous: StoreName | None = None
    completed: bool = False
    spent: bool = False
    broken: float = 0.0
    writing: WriteState = WriteState.SINGLE
    dual: int = 0
    mark: str = ""

    @property
    def both(self) -> bool:
        """Whether a process may write to both stores."""
        return self.writing is WriteState.DUAL and not self.completed

    def renewed(self, now: float) -> RouteRecord:
        """In the next epoch of dual writes: earlier proofs no longer count, and there is no way back. `now`: epoch
        seconds."""
        mark = fresh_id() if self.writing is WriteState.DUAL else ""
        return dataclasses.replace(self, dual=self.dual + 1, mark=mark, previous=None, broken=now)


@dataclass(frozen=True, slots=True)
class Flip:
    """`to`: the primary of each collection afterwards. `said`: why it was aborted, for people. `watch`: the window in
    which it is watched afterwards; `takes_back`: it takes a flip back because of what was seen of it, so that to make
    that one again is no way back, and needs every gate."""

    id: str
    kind: FlipKind
    state: FlipState
    to: Mapping[str, StoreName]
    by: str = ""
    reason: str = ""
    said: str = ""
    watch: WatchPlan | None = None
    takes_back: bool = False

    def moved(self, state: FlipState, said: str = "") -> Flip:
        assert state in MOVES[self.state], f"a flip that is {self.state} cannot be {state}"
        return dataclasses.replace(self, state=state, said=said or self.said)


@dataclass(frozen=True, slots=True)
class WatchedFlip:
    """The watch window of a flip that was made. `epochs`: of the route of each collection, as the flip has made it: in
    any other one the window does not count any more. `since`: epoch seconds."""

    flip: str
    to: StoreName
    epochs: Mapping[str, int]
    plan: WatchPlan
    since: float = 0.0
    by: str = ""

    def left(self, placed: Mapping[str, RouteRecord]) -> list[str]:
        """The collections that nobody has flipped or completed since."""
        return [name for name, epoch in self.epochs.items() if name in placed and placed[name].epoch == epoch]


@dataclass(frozen=True, slots=True)
class Routing:
    """`fence` rises whenever all processes must acknowledge the record before one of them may continue. `watched`: the
    windows of flips that are still in force, whether they are over or not."""

    placed: Mapping[str, RouteRecord] = field(default_factory=dict)
    flip: Flip | None = None
    revision: str = MISSING
    fence: int = 0
    watched: Sequence[WatchedFlip] = ()

    def committed(self, now: float, *, spent: bool) -> Routing:
        """With the current flip in force. `now`: epoch seconds; `spent`: see `RouteRecord`."""
        flip = self.flip
        assert flip is not None
        placed = dict(self.placed)
        for name, to in flip.to.items():
            placed[name] = _after(placed[name], flip.kind, to, now, spent=spent)
            if flip.takes_back:
                placed[name] = dataclasses.replace(placed[name], previous=None)
        watched = [each for each in self.watched if each.left(placed)]
        if flip.watch is not None and flip.kind is FlipKind.FLIP:
            (to,) = set(flip.to.values())
            epochs = {name: placed[name].epoch for name in flip.to}
            watched.append(WatchedFlip(flip.id, to, epochs, flip.watch, now, flip.by))
        return dataclasses.replace(self, placed=placed, flip=flip.moved(FlipState.COMMITTED), watched=tuple(watched))

    def with_flip(self, flip: Flip) -> Routing:
        return dataclasses.replace(self, flip=flip)

    def with_placed(self, changes: Mapping[str, RouteRecord]) -> Routing:
        return dataclasses.replace(self, placed={**self.placed, **changes})


def _after(before: RouteRecord, kind: FlipKind, to: StoreName, now: float, *, spent: bool) -> RouteRecord:
    epoch = before.epoch + 1
    match kind:
        case FlipKind.COMPLETE:
            return dataclasses.replace(before.renewed(now), epoch=epoch, since=now, completed=True)
        case FlipKind.REOPEN:
            return dataclasses.replace(before, epoch=epoch, since=now, completed=False)
        case _:
            return dataclasses.replace(before, primary=to, epoch=epoch, since=now, previous=before.primary, spent=spent)


# --- the record -------------------------------------------------------------------------------------------------


def _encoded(routing: Routing) -> dict[str, Any]:
    placed, duals = [], []
    for name, each in routing.placed.items():
        row = {"name": name, **_plain(dataclasses.asdict(each))}
        duals.append({"name": name, **{part: row.pop(part) for part in _DUAL}})
        placed.append(row)
    flip = None if routing.flip is None else _plain(_flip_row(routing.flip))
    watched = [
        {
            "flip": each.flip,
            "to": str(each.to),
            "epochs": [[name, epoch] for name, epoch in each.epochs.items()],
            "plan": dataclasses.asdict(each.plan),
            "since": each.since,
            "by": each.by,
        }
        for each in routing.watched
    ]
    return {"placed": placed, "flip": flip, "duals": duals, "fence": routing.fence, "watched": watched}


def _flip_row(flip: Flip) -> dict[str, Any]:
    # Names of collections hold dots, which not every store takes in names of fields.
    row = {**{name: getattr(flip, name) for name in _FLIP}, "to": [[name, str(to)] for name, to in flip.to.items()]}
    watch = None if flip.watch is None else dataclasses.asdict(flip.watch)
    return {**row, "watch": watch, "takes_back": flip.takes_back}


_DUAL: Final = ("writing", "dual", "mark")
_UNKNOWN: Final = {"writing": WriteState.DUAL, "dual": 1, "mark": ""}
"""For a collection without these fields: an older version has written the record, and nothing is proven."""
_FLIP: Final = ("id", "kind", "state", "by", "reason", "said")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, enum.Enum) else value for name, value in row.items()}


def plan_of(row: Mapping[str, Any]) -> WatchPlan:
    """Of what `dataclasses.asdict` has made of it."""
    return WatchPlan(**{**row, "limits": GuardLimits(**row["limits"])})


def _watched_of(row: Mapping[str, Any]) -> WatchedFlip:
    epochs = {name: int(epoch) for name, epoch in row["epochs"]}
    return WatchedFlip(row["flip"], StoreName(row["to"]), epochs, plan_of(row["plan"]), row["since"], row["by"])


def _decoded(value: Mapping[str, Any], revision: str) -> Routing:
    duals = {each["name"]: each for each in value.get("duals", ())}
    placed = {}
    for each in value["placed"]:
        row = {**each, **_UNKNOWN, **duals.get(each["name"], {})}
        row["writing"] = WriteState(row["writing"])
        name, previous = row.pop("name"), row.pop("previous")
        row["primary"] = StoreName(row["primary"])
        placed[name] = RouteRecord(previous=None if previous is None else StoreName(previous), **row)
    row = value["flip"]
    flip = None
    if row is not None:
        to = {name: StoreName(store) for name, store in row["to"]}
        flip = Flip(
            row["id"],
            FlipKind(row["kind"]),
            FlipState(row["state"]),
            to,
            row["by"],
            row["reason"],
            row["said"],
            plan_of(row["watch"]) if row.get("watch") else None,
            bool(row.get("takes_back", False)),
        )
    watched = tuple(_watched_of(each) for each in value.get("watched", ()))
    return Routing(placed, flip, revision, value.get("fence", 0), watched)


_RECORD: Final = SharedRecord(KEY, Routing, _encoded, _decoded)
load, save, change = _RECORD.load, _RECORD.save, _RECORD.change
