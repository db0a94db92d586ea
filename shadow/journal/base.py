"""The journal: which keys may differ between the stores, kept where a crash cannot take it.

An *intent* is opened before the primary is asked and closed when the secondary is known to have the write. A key whose
write could not be replicated at once is *deferred*: its intents become one entry a key, which any process may heal.

The rules that keep it safe:

- `open` returns when the entry is durable. `close` and `defer` may be lost in a crash: the intent is still there then,
  and is found by its dead owner or by its age.
- Only its own operation closes the intent of a living, young operation. An intent that is older than `limit` (the
  longest time that an operation can last), or whose process is dead, is deferred by the first process that finds it.
- A deferred entry has a generation, which rises with every deferral of the key: a heal settles only the generation
  that it saw before it read the stores, so that it never clears a later deferral.
- An operation that finds its document by a filter does not know its key before the primary has answered. Its intent is
  *undecided*: it covers every key of the collection until `decide` names the one. What a crash or a lost answer leaves
  undecided is decided by the operation's id, which the primary has stored with the document (`Store.chosen`). Where no
  document has it, the operation changed nothing, or another one has changed the document since, and that one's intent
  covers the key.
- An entry whose write has an unknown outcome is not settled before `settle_after`: until then the primary may still
  make the change.
- Nor is it forgotten when it is settled. No time limit of a client calls back what it has sent: a request that was held
  up on its way takes effect whenever it arrives, as late as that may be. So the key of every such write stays in the
  journal as a *late* one until `late_writes` seconds have passed since the write began. It blocks nothing. It is
  repaired again whenever the age of the write has doubled: what takes effect late by some time is found within about
  the same time again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shadow.model.version import Key

__all__ = ["Due", "Entry", "Journal", "JournalStats", "Pending", "undecided", "undecided_op"]


def undecided(op_id: str) -> Key:
    """In place of the key, in the intent of an operation that has not found its document yet: no `_id` is an array."""
    return [op_id]


def undecided_op(key: Key) -> str | None:
    """The operation whose intent this is, if it has not found its document; None for the key of a document."""
    return str(key[0]) if type(key) is list else None


@dataclass(frozen=True, slots=True)
class Entry:
    """An intent about to be opened: `op_id` is unique to one attempt of one change; `key` may be `undecided`."""

    op_id: str
    collection: str
    key: Key


@dataclass(frozen=True, slots=True)
class Due:
    """A deferred key, claimed by the process that asked, from `claimed` to `until`; these and `since` are epoch
    seconds. `refused` as in `Pending`; `attempts` then counts since the first refusal. `settle_after` as in `Pending`.
    `late`: it was settled before, and is repaired once more because its write may have taken effect since."""

    collection: str
    key: Key
    generation: int
    attempts: int
    since: float
    claimed: float
    until: float = 0.0
    refused: str = ""
    settle_after: float = 0.0
    late: bool = False

    @property
    def next_look(self) -> float:
        """When its write is twice as old as it was when it was claimed."""
        return 2 * self.claimed - self.since

    def attempts_after(self, refused: str) -> int:
        """How many attempts have failed when one more has; the first refusal starts the count again."""
        return 1 if refused and not self.refused else self.attempts + 1


@dataclass(frozen=True, slots=True)
class Pending:
    """One entry of the journal, as it is shown to people: an open intent, or a deferred key.

    `since`: when the intent was opened, or the oldest of those that became the deferral. `settle_after`: the moment
    before which no heal may settle it; for an intent, the moment from which any process may adopt it, which the death
    of its owner brings forward. An intent has `op_id`, `owner` (the process that opened it) and `owner_dead` (only if
    that is certain); a deferral has `generation`, `attempts` (heals that failed), `next_try`, and, where the secondary
    refuses the primary's document, `refused`: with what error. Times are epoch seconds.
    """

    collection: str
    key: Key
    since: float
    settle_after: float
    op_id: str = ""
    owner: str = ""
    owner_dead: bool = False
    generation: int = 0
    attempts: int = 0
    next_try: float = 0.0
    refused: str = ""

    @property
    def deferred(self) -> bool:
        return self.generation > 0


@dataclass(frozen=True, slots=True)
class JournalStats:
    """Open intents and deferred keys by collection, the age in seconds of the oldest of either (0 if none), and the
    collections that are unverified since a moment (`unclean`, epoch seconds), for intents may have been lost with an
    operating system. `passed`: how many intents were ever opened, by collection and all processes: between two equal
    figures no write has begun. `refused_by_collection`: how many of the deferred keys wait for an operator: the
    secondary refuses the primary's documents. `late_by_collection`: how many keys are settled, and will be repaired
    again because a write without an answer may yet take effect."""

    open_by_collection: Mapping[str, int] = field(default_factory=dict)
    deferred_by_collection: Mapping[str, int] = field(default_factory=dict)
    oldest_age: float = 0.0
    unclean: Mapping[str, float] = field(default_factory=dict)
    passed: Mapping[str, int] = field(default_factory=dict)
    refused_by_collection: Mapping[str, int] = field(default_factory=dict)
    late_by_collection: Mapping[str, int] = field(default_factory=dict)

    @property
    def open(self) -> int:
        return sum(self.open_by_collection.values()) + sum(self.deferred_by_collection.values())


class Journal(Protocol):
    async def open(self, entries: Sequence[Entry]) -> None:
        """Makes intents durable, all or none. Raises `JournalError`."""

    def decide(self, op_id: str, key: Key) -> None:
        """The operation of an undecided intent has changed this key. Returns at once, and may be lost in a crash."""

    def close(self, op_id: str) -> None:
        """The secondary has the write (or the primary refused it). Returns at once; durable soon."""

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        """Leaves the key of this intent to be healed. `unknown`: the primary may not have done it yet."""

    async def has_open(self, collection: str, key: Key) -> bool:
        """Whether any process has an intent or a deferral for the key, or an undecided one that may be for it."""

    async def due(self, limit: int, lease: float) -> list[Due]:
        """Up to `limit` keys to heal, oldest first, each claimed for `lease` seconds; adopts what is orphaned.
        Late ones come last."""

    async def settle(self, due: Due) -> bool:
        """A heal that began after `due` was returned has healed the key. False: it was deferred again since, or the
        heal began before `settle_after`; the entry stays, and is due again when it can be settled. A write of unknown
        outcome leaves a late entry, which is due again when the write is twice as old as it was then."""

    async def postpone(self, due: Due, delay: float, refused: str = "") -> None:
        """The heal failed; no other for `delay` seconds. `refused`: the error with which the secondary refused the
        document itself; "" if it failed for another reason."""

    def give_back(self, due: Due) -> None:
        """The heal was interrupted, which is no failure: any process may claim the key. Returns at once; durable soon.
        A claim also ends with the event loop that made it."""

    async def claim(self, collection: str, key: Key, lease: float) -> Due | None:
        """What `due` would return for this one key, whether it is due or not; None if it is not deferred. Adopts what
        is orphaned."""

    async def entries(
        self, limit: int, *, collection: str | None = None, after: Pending | None = None
    ) -> list[Pending]:
        """Up to `limit` intents and deferrals, oldest first, of one collection or of all; changes nothing. `after`:
        the last of an earlier page, to get the next one."""

    async def explain(self, collection: str, key: Key) -> list[Pending]:
        """All intents and the deferral of one key, oldest first; changes nothing."""

    async def stats(self) -> JournalStats: ...

    async def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        """The noted primary by collection, as the name of a store; notes that of `configured` where none is noted."""

    async def set_primary(self, collection: str, primary: str) -> None:
        """Notes the primary from now on; durable when it returns."""

    def doubt(self, collection: str) -> None:
        """Marks the collection unverified from now on: one of its writes may have left no entry. Returns at once, and
        holds for this process even while the journal cannot be written."""

    @property
    def doubted(self) -> Mapping[str, float]:
        """The collections that this process has marked unverified and the journal may not have yet, with the moment
        (epoch seconds)."""

    async def doubts(self, collection: str) -> str:
        """Identifies the collection's unverified mark: every further `doubt` changes it. "": it has none."""

    async def trust(self, collection: str, doubts: str) -> None:
        """Marks the collection verified: `doubts` is what the method of this name returned before the verification
        began. Does nothing if the mark has changed since."""

    async def flush(self) -> None:
        """Returns when every earlier close and defer is durable."""

    async def probe(self) -> None:
        """Writes something and removes it; raises `JournalError` where an intent could not be opened either."""

    def shut(self) -> None:
        """Writes what is queued, notes the clean end of this process, releases the files. Idempotent; blocks."""
