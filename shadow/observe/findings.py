"""Findings: confirmed mismatches stored for operators, bounded, without values.

A finding is one document of one collection (or one whole result of a verb) that differs. Its id consists of collection
and keyed hash, so that the same document seen again is the same finding. Groups add up findings by collection, kind and
path, and outlive the findings that exceed the limit.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.compare.diff import Hasher
from shadow.model.verdict import Difference, Kind, Mismatch
from shadow.model.version import Absent, Key, State, Tombstone, Version

__all__ = ["ELSEWHERE", "Findings", "Note", "Open", "path_pattern", "state_text"]

MOST_DIFFERENCES: Final = 50
"""Differences kept for one finding."""

ELSEWHERE: Final = "*"
"""The path of everything beyond the limit of groups."""

MOST_LEVEL: Final = 100_000
"""Repaired documents that are remembered for a file that may contain findings of them; beyond, the oldest are lost."""

MOST_NOTES: Final = 10_000
"""Notes waiting to be written to a file; beyond, the oldest are lost."""


def path_pattern(path: str) -> str:
    """`path` with `*` for each list position, so that the same fault in every element is one group."""
    return ".".join("*" if part.isdecimal() else part for part in path.split("."))


def state_text(state: State | None) -> str:
    """A state as readable text: "born@rev", "tombstone", "absent", or "" if it was not read."""
    match state:
        case Version(born, rev):
            return f"{born or 'unversioned'}@{rev}"
        case Tombstone():
            return "tombstone"
        case Absent():
            return "absent"
        case _:
            return ""


@dataclass(slots=True)
class _Finding:
    id: str
    collection: str
    key: Key
    whole_answer: bool
    kind: Kind
    first_seen: float
    last_seen: float
    count: int = 0
    verbs: dict[str, int] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    primary_state: str = ""
    secondary_state: str = ""
    healed: bool = False
    first_trace: str = ""

    def matches(self, collection: str | None, kind: Kind | None, path: str | None, healed: bool | None) -> bool:
        return (
            (collection is None or collection == self.collection)
            and (kind is None or kind == self.kind)
            and (path is None or path_pattern(path) in {path_pattern(each.path) for each in self.differences})
            and (healed is None or healed == self.healed)
        )


@dataclass(slots=True)
class _Group:
    first_seen: float
    last_seen: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """One event of a finding, for its other storage: seen (`row` is then the current finding, as `get` returns it), or
    repaired (`row` is None)."""

    id: str
    collection: str
    key: Key
    whole_answer: bool
    at: float
    verb: str = ""
    row: dict[str, Any] | None = None
    places: tuple[tuple[Kind, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Open:
    """An unrepaired finding at one moment: `count` is how often it had been seen. `of_answer`: the difference is in a
    result and not in a document, as far as is known, so that comparing documents proves nothing about it."""

    id: str
    collection: str
    key: Key
    of_answer: bool
    kind: Kind
    count: int


def is_of_answer(whole_answer: bool, row: Mapping[str, Any]) -> bool:
    """Whether a finding is about a result: it names no document, or documents that were equal while the results
    differed."""
    was_read = row["primary_state"] or row["secondary_state"]
    return whole_answer or (not was_read and row["kind"] not in _OF_DOCUMENTS)


_OF_DOCUMENTS: Final = (Kind.UNREADABLE, Kind.ERROR_SECONDARY_ONLY)
"""Kinds that are about a document even if no state of it was recorded."""


class Findings:
    """The store of findings. Thread-safe; keeps the oldest and the newest of them, at most `limit` in all.

    `reveal_keys` includes keys as text in the results of `get` and `list`; otherwise keys appear only as keyed hashes.
    `notes`: keep events for `take_notes`. `clock` returns seconds since the epoch.
    """

    def __init__(
        self,
        hasher: Hasher,
        *,
        limit: int = 1000,
        groups: int = 500,
        reveal_keys: bool = False,
        notes: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hasher = hasher
        self._limit = max(2, limit)
        self._group_limit = groups
        self._reveal = reveal_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._oldest: dict[str, _Finding] = {}
        self._newest: OrderedDict[str, _Finding] = OrderedDict()
        self._groups: dict[tuple[str, Kind, str], _Group] = {}
        self._total = 0
        self._dropped = 0
        self._notes: deque[Note] | None = deque(maxlen=MOST_NOTES) if notes else None
        self._level: OrderedDict[str, None] = OrderedDict()

    def add(self, found: Mismatch, trace: str = "") -> str:
        """Stores a confirmed mismatch and returns its id. `trace`: the id of the trace of the request that showed it;
        that of the first one is kept."""
        name = self.id_of(found)
        now = self._clock()
        with self._lock:
            finding = self._at(name) or self._new(name, found, now)
            finding.first_trace = finding.first_trace or trace
            finding.kind = found.kind
            finding.last_seen = now
            finding.count += 1
            finding.verbs[found.verb] = finding.verbs.get(found.verb, 0) + 1
            finding.differences = found.differences[:MOST_DIFFERENCES]
            finding.primary_state = state_text(found.primary_state)
            finding.secondary_state = state_text(found.secondary_state)
            finding.healed = found.healed
            self._total += 1
            self._level.pop(name, None)
            places = self._count(found, now)
            if self._notes is not None:
                row = self._row(finding)
                self._notes.append(
                    Note(name, found.collection, found.key, finding.whole_answer, now, found.verb.value, row, places)
                )
        return name

    def id_of(self, found: Mismatch) -> str:
        """The id of a mismatch's finding."""
        return self._id(found.collection, found.key, whole=found.key is None, verb=found.verb)

    def mark_healed(self, collection: str, key: Key) -> bool:
        """Marks the finding of a document as repaired; False if there is none here. Another process may have one, which
        the file knows."""
        name = self._id(collection, key)
        with self._lock:
            finding = self._at(name)
            if finding is not None:
                finding.healed = True
            if self._notes is None:
                return finding is not None
            if finding is not None:
                self._notes.append(Note(name, collection, key, whole_answer=False, at=self._clock()))
            else:
                # Only by their ids: repairs come in large numbers, and must not displace the mismatches that were seen.
                self._level[name] = None
                if len(self._level) > MOST_LEVEL:
                    self._level.popitem(last=False)
        return finding is not None

    def open(self, collection: str) -> Sequence[Open]:
        """The findings of a collection that are not repaired."""
        with self._lock:
            rows = [
                (each, self._row(each)) for each in self._all() if each.collection == collection and not each.healed
            ]
            return [
                Open(each.id, collection, each.key, is_of_answer(each.whole_answer, row), each.kind, each.count)
                for each, row in rows
            ]

    def close(self, found: Iterable[Open]) -> int:
        """Marks these as repaired, except those that were seen again since; returns how many."""
        with self._lock:
            still = [
                finding
                for each in found
                if (finding := self._at(each.id)) is not None and finding.count == each.count and not finding.healed
            ]
            for finding in still:
                finding.healed = True
        return len(still)

    def closed_elsewhere(self, ids: Iterable[str]) -> None:
        """Records that the file has these as repaired."""
        with self._lock:
            for id in ids:
                if (finding := self._at(id)) is not None:
                    finding.healed = True

    def take_level(self) -> tuple[str, ...]:
        """The ids of documents that were repaired since the last call without a finding here."""
        with self._lock:
            taken = tuple(self._level)
            self._level.clear()
        return taken

    def put_back_level(self, ids: Iterable[str]) -> None:
        """Keeps ids that could not be written for the next call."""
        with self._lock:
            self._level.update(dict.fromkeys(ids))

    def take_notes(self) -> tuple[Note, ...]:
        """The events since the last call; empty unless this was created with `notes`."""
        with self._lock:
            taken = tuple(self._notes or ())
            if self._notes is not None:
                self._notes.clear()
        return taken

    def put_back(self, notes: Iterable[Note]) -> None:
        """Keeps notes that could not be written for the next call, before newer ones."""
        with self._lock:
            self._notes = deque((*notes, *(self._notes or ())), maxlen=MOST_NOTES)

    def list(
        self,
        *,
        collection: str | None = None,
        kind: Kind | None = None,
        path: str | None = None,
        healed: bool | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """The findings that match, last seen first, JSON-able. `path` matches with any list position for another."""
        with self._lock:
            found = [each for each in self._all() if each.matches(collection, kind, path, healed)]
            found.sort(key=lambda each: each.last_seen, reverse=True)
            return [self._row(each) for each in found[:limit]]

    def get(self, id: str) -> dict[str, Any] | None:
        """One finding, JSON-able."""
        with self._lock:
            finding = self._at(id)
            return None if finding is None else self._row(finding)

    def key_of(self, id: str) -> tuple[str, Key] | None:
        """Collection and key of a finding, for a repair; None if it is gone or is about a whole result."""
        with self._lock:
            finding = self._at(id)
            return None if finding is None or finding.whole_answer else (finding.collection, finding.key)

    def groups(self) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        """Counts by collection, kind and path, most frequent first, JSON-able; times in seconds since the epoch."""
        with self._lock:
            rows = [
                {
                    "collection": collection,
                    "kind": kind.value,
                    "path": path,
                    "count": group.count,
                    "first_seen": group.first_seen,
                    "last_seen": group.last_seen,
                }
                for (collection, kind, path), group in self._groups.items()
            ]
        return sorted(rows, key=lambda row: -int(row["count"]))

    def by_path(self, most: int = 50) -> dict[tuple[str, ...], int]:
        """Counts by (collection, kind, path) of the `most` groups with the highest counts; the others are added up
        at the path `ELSEWHERE`."""
        counts: dict[tuple[str, ...], int] = {}
        rows: Iterable[dict[str, Any]] = self.groups()
        for i, row in enumerate(rows):
            name = (row["collection"], row["kind"], row["path"] if i < most else ELSEWHERE)
            counts[name] = counts.get(name, 0) + row["count"]
        return counts

    def knows(self, collection: str, key: Key) -> bool:
        """Whether a mismatch of this document is kept."""
        with self._lock:
            return self._at(self._id(collection, key)) is not None

    def open_by_collection(self) -> dict[str, int]:
        """How many stored findings are not repaired."""
        with self._lock:
            names = [each.collection for each in self._all() if not each.healed]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def summary(self) -> dict[str, int]:
        """How many were seen (repeats too), are kept, are still open, and fell out of the bound."""
        with self._lock:
            kept = self._all()
            return {
                "seen": self._total,
                "kept": len(kept),
                "open": sum(not each.healed for each in kept),
                "dropped": self._dropped,
            }

    def __len__(self) -> int:
        return len(self._oldest) + len(self._newest)

    def _all(self) -> tuple[_Finding, ...]:
        return (*self._oldest.values(), *self._newest.values())

    def _at(self, name: str) -> _Finding | None:
        return self._oldest.get(name) or self._newest.get(name)

    def _id(self, collection: str, key: Key, *, whole: bool = False, verb: str = "") -> str:
        return self._hasher.hash_value([collection, verb] if whole else [collection, self._hasher.hash_key(key)])

    def _new(self, name: str, found: Mismatch, now: float) -> _Finding:
        finding = _Finding(name, found.collection, found.key, found.key is None, found.kind, now, now)
        if len(self._oldest) < self._limit // 2:
            self._oldest[name] = finding
            return finding
        self._newest[name] = finding
        if len(self) > self._limit:
            self._newest.popitem(last=False)
            self._dropped += 1
        return finding

    def _count(self, found: Mismatch, now: float) -> tuple[tuple[Kind, str], ...]:
        places = {(each.kind, path_pattern(each.path)) for each in found.differences} or {(found.kind, "")}
        for kind, path in places:
            name = (found.collection, kind, path)
            if name not in self._groups and len(self._groups) >= self._group_limit:
                name = (found.collection, kind, ELSEWHERE)
            group = self._groups.setdefault(name, _Group(now, now))
            group.last_seen = now
            group.count += 1
        return tuple(places)

    def _row(self, finding: _Finding) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": finding.id,
            "collection": finding.collection,
            "key_hash": "" if finding.whole_answer else self._hasher.hash_key(finding.key),
            "kind": finding.kind.value,
            "first_seen": finding.first_seen,
            "last_seen": finding.last_seen,
            "count": finding.count,
            "verbs": dict(finding.verbs),
            "primary_state": finding.primary_state,
            "secondary_state": finding.secondary_state,
            "healed": finding.healed,
            "first_trace": finding.first_trace,
            "differences": [
                {
                    "kind": each.kind.value,
                    "path": each.path,
                    "primary_type": each.primary_type,
                    "secondary_type": each.secondary_type,
                    "primary_hash": each.primary_hash,
                    "secondary_hash": each.secondary_hash,
                }
                for each in finding.differences
            ],
        }
        if self._reveal and not finding.whole_answer:
            row["key"] = str(finding.key)
        return row
