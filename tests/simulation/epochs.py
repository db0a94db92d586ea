"""Processes that begin, change their phase, die and end, in every interleaving of what they ask the control store for.

The record's moves are the product's own (`control.epochs`, `control.raising`); the order in which a process makes them
is that of `control.participant`, written here in the plainest way, so that single steps can be weakened. Each process
is a thread, and one thread at a time takes one step.

What must hold: a write that moves no version and a write of both stores never overlap, and whatever counts as proven
was proven while no process wrote one store alone.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from shadow.control import epochs, members, raising
from shadow.control import flip_record as routing
from shadow.control.flip_record import Routing
from shadow.control.members import Member, MemberRoute
from shadow.control.raising import Raising, is_on_the_way
from shadow.control.records import MISSING, Record
from shadow.host.process import Owner
from shadow.model.phase import Phase, StoreName

__all__ = ["RULES", "Broken", "run"]

NAME: Final = "things"
LEASE: Final = 30
"""Steps for which a look at the routing record holds."""
LATE: Final = 80
"""Steps after which a request has arrived or never will."""
RULES: Final = (
    "a process has its record before it enters",
    "a process that enters alone begins the next epoch",
    "bare writes are waited for",
    "a bare write needs a lease",
    "a silent process may have a write under way",
    "lowering looks at all processes again",
    "a process says that it writes alone before the epoch ends",
    "the epoch ends before a process writes alone",
    "a proof reads the epoch before the processes",
)


class Broken(Exception):
    """A promise, and how it came to that."""


class _Ended(BaseException):
    """The run is over, or the process has died."""


class World:
    """The steps of all threads, one at a time, in an order that the seed gives."""

    def __init__(self, seed: int, without: str) -> None:
        self.chance = random.Random(seed)
        self.without = without
        self.now = 0
        self.dead: set[int] = set()
        self.over = False
        self.trace: list[str] = []
        self.failure: Exception | None = None
        self.writes: list[tuple[str, int, float]] = []
        """Kind, first and last step; the last is infinite while it is under way."""
        self.proofs: list[tuple[int, str]] = []
        self._asleep: dict[threading.Thread, int] = {}
        self._own = threading.Semaphore(0)
        self._turns: dict[threading.Thread, threading.Semaphore] = {}
        self.records = Steps(self)

    def keeps(self, rule: str) -> bool:
        return rule != self.without

    def begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            self._turns[threading.current_thread()].acquire()
            try:
                work()
            except _Ended:
                pass
            except Exception as error:
                self.failure = self.failure or error
            finally:
                del self._turns[threading.current_thread()]
                self._own.release()

        thread = threading.Thread(target=run, daemon=True)
        self._turns[thread] = threading.Semaphore(0)
        thread.start()

    def step(self, said: str = "") -> None:
        """The other threads may come in between."""
        if said:
            self.trace.append(f"{self.now}: {said}")
        self._own.release()
        self._turns[threading.current_thread()].acquire()
        if self.over:
            raise _Ended

    def stall(self) -> None:
        """A suspended host, now and then: the others go on."""
        if self.chance.random() < 0.2:
            longest = self.chance.choice([LEASE, 4 * (LEASE + LATE)])
            self._asleep[threading.current_thread()] = self.now + self.chance.randrange(longest)
        self.step()

    def run(self, steps: int) -> None:
        while self._turns:
            self.now += 1
            self.over = self.over or self.now > steps or self.failure is not None
            ready = [each for each in self._turns if self.over or self.now > self._asleep.get(each, 0)]
            thread = self.chance.choice(ready or list(self._turns))
            self._turns[thread].release()
            self._own.acquire()

    # --- writes ---------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, kind: str, who: str) -> Iterator[None]:
        """A write: "bare", "alone" (with a version) or "both". It lasts for some steps and for `LATE` at most."""
        against = {"bare": "both", "both": "bare"}.get(kind)
        for other, _, last in self.writes:
            if other == against and last >= self.now:
                raise Broken(f"{who} writes {kind} while a write is under way that is {other}")
        place = len(self.writes)
        self.writes.append((kind, self.now, self.now + LATE))
        try:
            yield
        finally:
            self.writes[place] = (kind, self.writes[place][1], min(self.now, self.writes[place][2]))

    def judge(self) -> None:
        placed = routing.load(self.records.quietly()).placed.get(NAME)
        for since, mark in self.proofs:
            alone = [first for kind, first, last in self.writes if kind != "both" and last >= since]
            if epochs.has_epoch(placed, mark) and alone:
                raise Broken(f"what was proven from {since} on counts, and one store was written alone at {alone}")


class Steps:
    """Records in memory; every call is a step."""

    place = "memory"

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: dict[str, Record] = {}
        self._number = 0
        self._quiet = False

    def quietly(self) -> Steps:
        self._quiet = True
        return self

    def _step(self) -> None:
        if not self._quiet:
            self._world.step()

    def prepare(self) -> None: ...

    def close(self) -> None: ...

    def get(self, key: str) -> Record | None:
        self._step()
        return self._held.get(key)

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        self._step()
        return [self._held[key] for key in sorted(self._held) if key.startswith(prefix) and key > after][:limit]

    def put(self, key: str, value: Mapping[str, Any], *, expected: str | None = None) -> str | None:
        self._step()
        held = self._held.get(key)
        if expected is not None and (MISSING if held is None else held.revision) != expected:
            return None
        self._number += 1
        self._held[key] = Record(key, dict(value), str(self._number))
        return str(self._number)

    def put_many(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        for key, value in values.items():
            self.put(key, value)

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        self._step()
        return self._held.pop(key, None) is not None

    def delete_all(self, prefix: str) -> int:
        return sum(self.delete(key) for key in list(self._held) if key.startswith(prefix))


class Process:
    def __init__(self, world: World, number: int, phase: Phase) -> None:
        self.world, self.number, self.phase = world, number, phase
        self.seen, self.until, self.both = Routing(), 0, False
        self.raising = Raising(world.records, late=LATE if world.keeps(RULES[4]) else 0)
        self.row = Member(f"p{number}", Owner("here", number, 0.0), "a journal", lease=float(LEASE))

    @property
    def wants(self) -> tuple[str, ...]:
        return (NAME,) if self.phase is not Phase.OFF else ()

    def live(self) -> None:
        self.enter()
        for _ in range(self.world.chance.randrange(2, 14)):
            self.look()
            self.follow()
            if self.world.chance.random() < 0.15:
                self.change()
            if self.world.chance.random() < 0.05:
                self.world.dead.add(self.number)
                return
            self.write()
        self.row.leave(self.world.records, empty=False)

    def enter(self) -> None:
        kept, self.row = {NAME: StoreName.MONGO}, dataclasses.replace(self.row, wants=self.wants)
        asked = self.world.now
        if self.world.keeps(RULES[0]):
            self.say()
        names = self.wants if self.world.keeps(RULES[1]) else (NAME,) if self.placed else self.wants
        self.seen = self.raising.enter(self.row.id, names, kept, {})
        self.until = asked + LEASE
        for _ in range(3):
            if self.row.fence < self.seen.fence:
                self.say(fence=self.seen.fence)
            self.seen = self.raising.advance(self.seen, self.wants)
        self.both = bool(self.wants) and self.is_both
        self.say()

    @property
    def placed(self) -> bool:
        return NAME in routing.load(self.world.records).placed

    @property
    def is_both(self) -> bool:
        each = self.seen.placed.get(NAME)
        return each is not None and each.both

    def say(self, *, both: bool | None = None, **changes: Any) -> None:
        phase = Phase.DUAL_WRITE if (self.both if both is None else both) else Phase.OFF
        standing = {NAME: MemberRoute(StoreName.MONGO, phase, StoreName.MONGO)}
        beat = self.row.beat + 1
        self.row = dataclasses.replace(self.row, standing=standing, wants=self.wants, beat=beat, **changes)
        self.row.write(self.world.records)

    def look(self) -> None:
        asked = self.world.now
        self.seen = routing.load(self.world.records)
        self.until = asked + LEASE
        each = self.seen.placed.get(NAME)
        if self.both and each is not None and each.writing not in epochs.TWICE:
            self.both = False

    def follow(self) -> None:
        if self.row.fence < self.seen.fence:
            self.say(fence=self.seen.fence)
        if self.wants and is_on_the_way(self.seen.placed.get(NAME)):
            self.seen = self.raising.want(self.wants)
        if self.wants and not self.both and self.is_both:
            self.both = True
            self.say()
        if not self.wants and self.world.chance.random() < 0.5:
            self.seen = self.raising.lower([NAME])

    def change(self) -> None:
        """Another phase, by a new file."""
        if self.phase is Phase.OFF:
            self.phase = Phase.DUAL_WRITE
            self.say()
            return
        self.phase = Phase.OFF
        if self.world.keeps(RULES[6]):
            self.say(both=False)
        if self.world.keeps(RULES[7]):
            self.seen = self.raising.interrupt([NAME])
        self.both = False
        self.say()

    def write(self) -> None:
        self.world.stall()
        if not self.both and self.world.now >= self.until and self.world.keeps(RULES[3]):
            self.look()
        each = self.seen.placed[NAME]
        fresh = self.world.now < self.until or not self.world.keeps(RULES[3])
        kind = "both" if self.both else "bare" if fresh and epochs.bare(each) else "alone"
        with self.world.writing(kind, self.row.id):
            self.world.stall()
            for _ in range(self.world.chance.randrange(1, 6)):
                self.world.step(f"{self.row.id} writes {kind}")


def prover(world: World) -> None:
    """Backfills and verifications that begin again and again."""
    while True:
        since = world.now
        if world.keeps(RULES[8]):
            mark = epochs.proof_of(world.records, NAME)
        else:
            rows = members.members(world.records)
            world.step()
            placed = routing.load(world.records).placed.get(NAME)
            alone = any(epochs.writes_alone(row, NAME) for row in rows)
            mark = "" if placed is None or alone else placed.mark
        # What it reads, it reads from here on.
        since = world.now
        if mark:
            world.proofs.append((since, mark))
        world.step()


def once(self: Raising, names: Any) -> Routing:
    """Lowering without the second look."""
    seen = routing.load(self._records)
    rows = self._others("")
    for _ in range(2):
        wanted = epochs.lowered(seen, names, rows)
        if wanted is not None:
            seen = routing.save(self._records, wanted) or routing.load(self._records)
    return seen


def at_once(seen: Routing, names: Any, rows: Any, silent: Any = ()) -> Routing | None:
    return _advanced(seen, names, [], silent)


_advanced: Final = epochs.advanced


def run(seed: int, *, without: str = "", steps: int = 1500) -> None:
    """One run. `without`: the rule of `RULES` that is not kept. Raises `Broken`."""
    world = World(seed, without)

    def clock() -> int:
        return world.now

    patches = [
        mock.patch.object(raising, "steady", clock),
        mock.patch.object(Owner, "known_dead", lambda self: self.pid in world.dead),
    ]
    if not world.keeps(RULES[2]):
        patches.append(mock.patch.object(epochs, "advanced", at_once))
    if not world.keeps(RULES[5]):
        patches.append(mock.patch.object(Raising, "lower", once))
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        _run(world, steps)


def _run(world: World, steps: int) -> None:
    numbers = iter(range(1, 1000))

    def worker() -> None:
        while True:
            phase = world.chance.choice([Phase.OFF, Phase.DUAL_WRITE, Phase.DUAL_WRITE])
            Process(world, next(numbers), phase).live()
            world.step()

    for _ in range(3):
        world.begin(worker)
    world.begin(lambda: prover(world))
    judged = iter(range(steps))

    def judge() -> None:
        for _ in judged:
            for _ in range(10):
                world.step()
            world.records._quiet = True
            try:
                world.judge()
            finally:
                world.records._quiet = False

    world.begin(judge)
    world.run(steps)
    if world.failure is not None:
        raise world.failure
