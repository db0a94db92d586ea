"""The record of the guards: the share of reads of each ramp, and which process decides.

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

from shadow.control.records import MISSING
from shadow.control.shared_record import SharedRecord
from shadow.model.phase import StoreName
from shadow.model.version import fresh_id

__all__ = ["GuardRecord", "Move", "Ramp", "RampState", "change", "load", "save"]

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
    holder: str = ""
    beat: int = 0
    moves: Sequence[Move] = ()
    closed: Sequence[tuple[str, str]] | None = None
    """The gates (collection, name) that were closed when they were last read; None: never."""
    revision: str = MISSING

    def with_ramp(self, ramp: Ramp, move: Move | None = None) -> GuardRecord:
        moves = self.moves if move is None else (*self.moves, move)
        return dataclasses.replace(self, ramps={**self.ramps, ramp.collection: ramp}, moves=moves)

    def without(self, collection: str) -> GuardRecord:
        ramps = {name: each for name, each in self.ramps.items() if name != collection}
        return dataclasses.replace(self, ramps=ramps)


def _encoded(record: GuardRecord) -> dict[str, Any]:
    return {
        "ramps": [
            {**dataclasses.asdict(each), "store": str(each.store), "state": str(each.state)}
            for each in record.ramps.values()
        ],
        "holder": record.holder,
        "beat": record.beat,
        "closed": None if record.closed is None else [list(each) for each in record.closed],
        "moves": [{"id": each.id, "kind": each.kind, "body": dict(each.body)} for each in record.moves],
    }


def _decoded(value: Mapping[str, Any], revision: str) -> GuardRecord:
    ramps = [
        Ramp(**{**each, "store": StoreName(each["store"]), "state": RampState(each["state"])})
        for each in value["ramps"]
    ]
    moves = tuple(Move(each["id"], each["kind"], each["body"]) for each in value["moves"])
    closed = value.get("closed")
    gates = None if closed is None else tuple((name, gate) for name, gate in closed)
    by_name = {each.collection: each for each in ramps}
    return GuardRecord(by_name, value["holder"], value["beat"], moves, gates, revision)


_RECORD: Final = SharedRecord(KEY, GuardRecord, _encoded, _decoded)
load, save, change = _RECORD.load, _RECORD.save, _RECORD.change
