"""The processes that take part: each has a record of its own, renewed while it lives.

A silent process is not known to be gone: it may be stopped, or cut off, and still write. It counts until it leaves,
until its death is certain (a process of this host that has ended), or until an operator forgets it. For the same reason
the journals are recorded by themselves: only a living process that shares a journal can report what a dead one left in
it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.control.records import Records
from shadow.control.witness import forget_token, journal_token
from shadow.host.process import Owner
from shadow.model.health import CollectionHealth
from shadow.model.phase import Phase, StoreName

__all__ = [
    "FENCED",
    "Ack",
    "Member",
    "MemberRoute",
    "disagreements",
    "forget",
    "forget_journal",
    "is_member",
    "journals",
    "members",
    "misplaced",
    "note_journal",
    "prune",
]

FENCED: Final = 2
"""The format of a record whose process reports each gap in dual writes before it begins. Records of an older version of
this library have no format."""

_MEMBERS: Final = "member/"
_JOURNALS: Final = "journal/"


@dataclass(frozen=True, slots=True)
class MemberRoute:
    """A process's route of one collection, and the primary that its configuration asks for."""

    primary: StoreName
    phase: Phase
    wanted: StoreName


@dataclass(frozen=True, slots=True)
class Ack:
    """A process's answer to a flip: ready, caught up, switched, or why not. `held`: seconds that writes were paused."""

    flip: str = ""
    stage: str = ""
    said: str = ""
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """One process. `beat` rises with each heartbeat; `journal` names the journal that it writes; `tool`: a command, not
    a process of the application; `figures`: the health of its collections.

    `wants`: the collections that it wants to write to both stores; `fence`: the last one that it has acknowledged, see
    `Routing.fence`; `lease`: seconds after it has read the routing record in which it may write without reading it
    again; `where`: the places in its configuration that must be the same in all processes, by setting.
    """

    id: str
    owner: Owner
    journal: str
    beat: int = 0
    tool: bool = False
    standing: Mapping[str, MemberRoute] = field(default_factory=dict)
    ack: Ack = Ack()
    figures: Mapping[str, CollectionHealth] = field(default_factory=dict)
    format: int = FENCED
    wants: tuple[str, ...] = ()
    fence: int = 0
    lease: float = 0.0
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: host, pid."""
        return f"{self.owner.place.partition('/')[0]} pid {self.owner.pid}"

    @property
    def alone(self) -> bool:
        """Whether it belongs to the application and reports that it writes some collection to one store only."""
        return not self.tool and any(each.phase is Phase.OFF for each in self.standing.values())

    def write(self, records: Records) -> None:
        records.put(f"{_MEMBERS}{self.id}", _encoded(self))

    def renew(self, records: Records) -> bool:
        """Replaces its record. False: the record is gone, for an operator or another process has deleted it; it is not
        created again then, for the others may have continued without this process."""
        key = f"{_MEMBERS}{self.id}"
        while (held := records.get(key)) is not None:
            if records.put(key, _encoded(self), expected=held.revision) is not None:
                return True
        return False

    def leave(self, records: Records, *, empty: bool) -> None:
        """Deletes its record. `empty`: the journal holds nothing; it is forgotten too, unless another process shares
        it."""
        records.delete(f"{_MEMBERS}{self.id}")
        if empty and all(each.journal != self.journal for each in members(records)):
            records.delete(_journal_key(self.journal))
            forget_token(records, journal_token(self.journal))


def members(records: Records) -> list[Member]:
    """All processes that have not left."""
    return [_decoded(each.value) for each in records.scan(_MEMBERS)]


def is_member(records: Records, id: str) -> bool:
    """Whether the process still has its record, which an operator may have deleted."""
    return records.get(f"{_MEMBERS}{id}") is not None


def prune(records: Records, found: Iterable[Member]) -> list[Member]:
    """Those of `found` that may be alive. Deletes the records of the certainly dead, except of those that have written
    to one store only: what they have sent may still arrive, see `raising`."""
    alive = []
    for each in found:
        if not each.owner.known_dead():
            alive.append(each)
        elif not each.alone:
            records.delete(f"{_MEMBERS}{each.id}")
    return alive


def forget(records: Records, id: str) -> bool:
    """Whether there was such a member."""
    return records.delete(f"{_MEMBERS}{id}")


def note_journal(records: Records, journal: str) -> None:
    """Records that a journal is in use. It counts until it is left empty, or forgotten."""
    if records.get(_journal_key(journal)) is None:
        records.put(_journal_key(journal), {"journal": journal})


def journals(records: Records) -> set[str]:
    return {str(each.value["journal"]) for each in records.scan(_JOURNALS)}


def forget_journal(records: Records, journal: str) -> bool:
    return records.delete(_journal_key(journal))


def _journal_key(journal: str) -> str:
    return f"{_JOURNALS}{hashlib.sha256(journal.encode()).hexdigest()[:24]}"


def disagreements(found: Iterable[Member]) -> dict[str, dict[str, list[str]]]:
    """The collections for which processes report different routes: which processes, by "primary, phase"."""
    where: dict[str, dict[str, list[str]]] = {}
    for member in found:
        for name, each in member.standing.items():
            where.setdefault(name, {}).setdefault(f"{each.primary}, {each.phase}", []).append(member.name)
    return {name: each for name, each in where.items() if len(each) > 1}


def misplaced(found: Iterable[Member]) -> dict[str, dict[str, list[str]]]:
    """The settings of places that differ between processes: which processes have which place, by setting. A process of
    an older version reports none."""
    said: dict[str, dict[str, list[str]]] = {}
    for member in found:
        for setting, place in member.where.items():
            said.setdefault(setting, {}).setdefault(place, []).append(member.name)
    return {setting: each for setting, each in said.items() if len(each) > 1}


def _encoded(member: Member) -> dict[str, Any]:
    owner, ack = member.owner, member.ack
    standing = [[name, str(each.primary), str(each.phase), str(each.wanted)] for name, each in member.standing.items()]
    return {
        "id": member.id,
        "owner": [owner.place, owner.pid, owner.started],
        "journal": member.journal,
        "beat": member.beat,
        "tool": member.tool,
        "standing": standing,
        "ack": dataclasses.asdict(ack),
        "figures": {name: health.record() for name, health in member.figures.items()},
        "format": member.format,
        "wants": list(member.wants),
        "fence": member.fence,
        "lease": member.lease,
        "where": dict(member.where),
    }


def _decoded(value: Mapping[str, Any]) -> Member:
    standing = {
        name: MemberRoute(StoreName(primary), Phase(phase), StoreName(wanted))
        for name, primary, phase, wanted in value["standing"]
    }
    return Member(
        value["id"],
        Owner(*value["owner"]),
        value["journal"],
        value["beat"],
        value["tool"],
        standing,
        Ack(**value["ack"]),
        {name: CollectionHealth.of_record(each) for name, each in value["figures"].items()},
        value.get("format", 1),
        tuple(value.get("wants", ())),
        value.get("fence", 0),
        value.get("lease", 0.0),
        value.get("where", {}),
    )
