"""The journal's logic on a server: what an intent, a deferral, a claim and a settlement are. No thread, no loop.

It says everything in the statements of a `Driver`, so that MongoDB and DynamoDB keep the same journal. All methods
block, and may raise what the driver's client raises. The rules are those of `journal.base`.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shadow.host.process import Owner
from shadow.journal.base import Due, JournalStats, Pending
from shadow.journal.server.driver import Absent, AtMost, Driver, Is, Kind, Merge, Place, Record, Same, Under
from shadow.journal.server.records import (
    IntentRow,
    Registered,
    as_claimed,
    as_deferral,
    as_late,
    digest_of,
    due_of,
    in_order,
    intent_place,
    intent_record,
    key_place,
    pending_of,
    place_of,
    registered_of,
    row_of,
)
from shadow.model.version import Key, fresh_id

__all__ = ["ServerLedger"]

_SWEEP = Place(Kind.SWEEP)


class ServerLedger:
    """What one process does with a journal on a server. `owner` signs its intents by `name`; `limit`: the most seconds
    that an operation can last; `late`: those within which a write of unknown outcome may take effect. Used by several
    threads at once."""

    def __init__(self, driver: Driver, owner: Owner, name: str, *, limit: float, late: float = 0.0) -> None:
        self.driver = driver
        self.clock = driver.clock
        self.name = name
        self._owner = owner
        self._limit = limit
        self._late = late
        self._next_sweep = 0.0
        self._next_late = 0.0

    # --- life ---------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Creates what is missing, registers the process, sets the clock. Raises `NotReady`."""
        self.driver.prepare()
        self.beat()

    def beat(self) -> None:
        """The process lives, and the journal can be written."""
        # The first sign of life carries the server's time, so the time comes first.
        self.driver.read_clock()
        owner = self._owner
        signs = {"place": owner.place, "pid": owner.pid, "started": owner.started, "beat": self.clock.latest()}
        self.driver.merge([(Place(Kind.OWNER, self.name), Merge(put=signs))])

    def leave(self) -> None:
        """The clean end of a process that leaves no intents."""
        self.driver.delete(Place(Kind.OWNER, self.name))

    # --- intents ------------------------------------------------------------------------------------------------

    def open(self, rows: Sequence[IntentRow]) -> None:
        """Writes intents; if it raises, some may have been written."""
        self.driver.insert([intent_record(row) for row in rows])

    def close(self, rows: Sequence[IntentRow]) -> None:
        """Counts the intents as passed, then removes them: whoever sees none open sees that they have passed."""
        ended = Counter(row.collection for row in rows)
        self.driver.merge([(Place(Kind.PASSED, name), Merge(add={"number": n})) for name, n in ended.items()])
        self.driver.remove([intent_place(row) for row in rows])

    def defer(self, rows: Sequence[tuple[IntentRow, float]]) -> None:
        """Turns intents into deferrals, each with its `settle_after`; a deferral is written before its intent goes."""
        self.driver.merge([as_deferral(row, settle_after) for row, settle_after in rows])
        self.close([row for row, _ in rows])

    def has_open(self, collection: str, key: Key) -> bool:
        # The intent first: a deferral is written before its intent goes.
        digest = digest_of(key)
        return any(self.driver.exists(kind, collection, digest) for kind in (Kind.INTENT, Kind.DEFERRED))

    # --- deferred keys ------------------------------------------------------------------------------------------

    def due(self, limit: int, lease: float) -> list[Due]:
        """First those that never failed, oldest first."""
        now = self.clock.earliest()
        self._sweep(now)
        found = self._due(Kind.DEFERRED, limit, now, lease)
        if len(found) < limit and now >= self._next_late:
            late = self._due(Kind.LATE, limit - len(found), now, lease)
            # None is in a hurry, and a server asks a price for each question.
            self._next_late = now if late else now + self._limit / 20
            found += late
        return found

    def _due(self, kind: Kind, limit: int, now: float, lease: float) -> list[Due]:
        # Each by itself is claimed by whoever comes first: afterwards its turn lies ahead.
        proposed = self.driver.turns(kind, limit, now)
        still_due = [AtMost("next_try", now)]
        claimed = self.driver.change_each(proposed, self._claim(now, lease), still_due) if proposed else []
        return sorted(map(due_of, claimed), key=lambda due: due.since)

    def claim(self, collection: str, key: Key, lease: float) -> Due | None:
        now = self.clock.earliest()
        self._sweep(now)
        claimed = self.driver.change(key_place(collection, key), self._claim(now, lease))
        return None if claimed is None else due_of(claimed)

    def _claim(self, now: float, lease: float) -> dict[str, Any]:
        return {"next_try": now + lease, "claimed": now, "claimant": f"{self.name}#{secrets.token_hex(8)}"}

    def settle(self, due: Due) -> bool:
        place = key_place(due.collection, due.key, late=due.late)
        if not due.late and 0 < due.settle_after <= due.claimed < due.settle_after - self._limit + self._late:
            # Before the deferral goes: where that fails, one repair more does no harm.
            self.driver.merge([as_late(due, limit=self._limit, late=self._late)])
        if self.driver.delete(place, [*as_claimed(due), AtMost("settle_after", due.claimed)]):
            return True
        again = min(due.next_look, due.settle_after) if due.late else Same("settle_after")
        self.driver.change(place, {"next_try": again}, as_claimed(due))
        return False

    def postpone(self, due: Due, delay: float, refused: str = "") -> None:
        until = self.clock.earliest() + delay
        values = {"next_try": until, "attempts": due.attempts_after(refused), "refused": refused}
        self.driver.change(key_place(due.collection, due.key, late=due.late), values, as_claimed(due))

    def give_back(self, due: Due) -> None:
        """Its turn is that of one that nobody has claimed."""
        place = key_place(due.collection, due.key, late=due.late)
        self.driver.change(place, {"next_try": Same("since")}, as_claimed(due))

    # --- what people ask for ------------------------------------------------------------------------------------

    def entries(self, limit: int, collection: str | None, after: Pending | None) -> list[Pending]:
        behind = None if after is None else place_of(after)
        found = (
            record
            for kind in (Kind.INTENT, Kind.DEFERRED)
            for record in self.driver.oldest(kind, limit, collection, behind)
        )
        return self._shown(in_order(found, limit))

    def explain(self, collection: str, key: Key) -> list[Pending]:
        digest = digest_of(key)
        found = [
            record for kind in (Kind.INTENT, Kind.DEFERRED) for record in self.driver.of_key(kind, collection, digest)
        ]
        return self._shown(in_order(found, len(found)))

    def _shown(self, records: Iterable[Record]) -> list[Pending]:
        """With the owners that are known to be dead."""
        found = [pending_of(record) for record in records]
        if all(each.deferred for each in found):
            return found
        dead = {owner.id for owner in self._owners() if owner.process.known_dead()}
        return [dataclasses.replace(each, owner_dead=each.owner in dead) for each in found]

    def stats(self) -> JournalStats:
        intents, deferred = self.driver.tally(Kind.INTENT), self.driver.tally(Kind.DEFERRED)
        oldest = [each.oldest for each in (intents, deferred) if each.oldest is not None]
        age = max(0.0, self.clock.earliest() - min(oldest)) if oldest else 0.0
        # After the intents: those that have gone meanwhile are counted here.
        passed = Counter({each.place.name: int(each.values["number"]) for each in self.driver.notes(Kind.PASSED)})
        passed.update(intents.counts)
        unclean = {each.place.name: float(each.values["since"]) for each in self.driver.notes(Kind.UNVERIFIED)}
        late = self.driver.tally(Kind.LATE).counts
        return JournalStats(intents.counts, deferred.counts, age, unclean, dict(passed), deferred.refused, late)

    # --- what is noted of a collection --------------------------------------------------------------------------

    def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        """Those that are noted, after `configured` was noted where none was."""
        notes = [(Place(Kind.PRIMARY, name), Merge(first={"primary": each})) for name, each in configured.items()]
        if notes:
            self.driver.merge(notes)
        return {each.place.name: each.values["primary"] for each in self.driver.notes(Kind.PRIMARY)}

    def set_primary(self, collection: str, primary: str) -> None:
        self.driver.merge([(Place(Kind.PRIMARY, collection), Merge(put={"primary": primary}))])

    def doubt(self, collection: str, since: float) -> None:
        """The collection must be verified from `since` (epoch seconds) on."""
        note = Merge(put={"mark": fresh_id()}, least=("since", since))
        self.driver.merge([(Place(Kind.UNVERIFIED, collection), note)])

    def doubts(self, collection: str) -> str:
        note = self.driver.note(Place(Kind.UNVERIFIED, collection))
        return "" if note is None else str(note.values.get("mark", ""))

    def trust(self, collection: str, doubts: str) -> None:
        unchanged = Is("mark", doubts) if doubts else Absent("mark")
        self.driver.delete(Place(Kind.UNVERIFIED, collection), [unchanged])

    # --- orphans ------------------------------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Defers the intents of dead processes and those that have expired, if it is time and nobody else does. The
        primary may still be at work on them, so none is settled before it expires."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + self._limit / 20
        mine = {"until": now + max(10.0, self._limit)}
        if self.driver.change(_SWEEP, mine, [AtMost("until", now)], create=True) is None:
            return
        try:
            for owner in self._owners():
                if owner.id != self.name and self._is_dead(owner, now):
                    self._adopt(Is("owner", owner.id))
                    self._end_claims(owner.id, now)
                    # Unless it has given another sign of life.
                    self.driver.delete(Place(Kind.OWNER, owner.id), [Is("beat", owner.beat)])
            self._adopt(Under("expires", now))
        finally:
            self.driver.merge([(_SWEEP, Merge(put={"until": now + self._limit / 20}))])

    def _owners(self) -> list[Registered]:
        return [registered_of(note) for note in self.driver.notes(Kind.OWNER)]

    def _is_dead(self, owner: Registered, now: float) -> bool:
        return now - owner.beat > self._limit / 2 or owner.process.known_dead()

    def _adopt(self, whose: Is | Under) -> None:
        for batch in self.driver.intents(whose):
            rows = [row_of(record) for record in batch]
            self.defer([(row, row.expires) for row in rows])

    def _end_claims(self, owner: str, now: float) -> None:
        """Gives back what a process has claimed that is known dead, or cut off for long."""
        for record in self.driver.claimed(owner, now):
            held = [Is(field, record.values[field]) for field in ("claimed", "claimant", "next_try")]
            self.driver.change(record.place, {"next_try": Same("since")}, held)
