"""What a run is made of: how many of everything, and how often each fault strikes. Drawn from the seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from shadow.model.limits import Limits
from shadow.model.phase import StoreName, WriteMode

__all__ = ["COLLECTION", "DRIVEN", "LATE", "LIMIT", "OVERDUE", "REQUEST", "SKEW", "VERBS", "Conditions"]

COLLECTION: Final = "things"

LIMIT: Final = 4.0
"""`limits.operation` of every run, in virtual seconds."""

REQUEST: Final = 0.625 * LIMIT
"""The longest time between the sending of a request to the primary and its effect."""

OVERDUE: Final = 7 * LIMIT
"""The same of a request that was held up, for longer than any time limit."""

LATE: Final = 12 * LIMIT
"""`limits.late_writes` of runs that have such requests."""

SKEW: Final = 0.125 * LIMIT
"""The most that any two clocks differ by. Opening (at most a quarter of the limit), request and skew fill it."""


VERBS: Final = (
    ("insert", 5),
    ("inc", 6),
    ("set", 2),
    ("replace", 2),
    ("upsert", 3),
    ("delete", 6),
    ("insert_many", 1),
    ("first", 3),
    ("upsert_first", 2),
    ("replace_first", 1),
    ("delete_first", 2),
)
"""What callers do, and how often."""

DRIVEN: Final = (("insert", 5), ("inc", 6), ("set", 2), ("delete", 4))
"""What they do where a call may be the driver's own."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Rates are probabilities for each request; windows are how many outages of that kind a run has."""

    processes: int = 2
    keys: int = 2
    counters: int = 1
    callers: int = 3
    operations: int = 5
    haste: float = 0.05
    """The longest pause, in seconds, that a caller makes between two operations; now and then ten times that."""
    mode: WriteMode = WriteMode.BACKGROUND
    seeded: bool = False
    """The primary begins with documents that the secondary lacks; a backfill brings them over."""
    refused: float = 0.0
    lost: float = 0.0
    """No answer, not applied."""
    unanswered: float = 0.0
    """No answer, applied."""
    late: float = 0.0
    """No answer, applied later."""
    overdue: float = 0.0
    """No answer, applied by the primary long after its caller has given up."""
    hung: float = 0.0
    half: float = 0.0
    """Applied, and answered with a write concern error."""
    slow: float = 0.0
    dawdling: float = 0.0
    """Writes to the primary that take effect late, and are answered."""
    partial: float = 0.0
    wrong: float = 0.0
    """The secondary makes something else of a replayed operation."""
    unreadable: float = 0.0
    """An image, of either side, comes as one that nobody can read; the next time it can be read again."""
    journal_failing: float = 0.0
    journal_slow: float = 0.0
    crash_at_point: float = 0.0
    crashes: int = 0
    restarts: int = 0
    loops: int = 0
    """How often the event loop of a process ends, and another one begins in it a moment later."""
    cancelled: float = 0.0
    secondary_down: int = 0
    primary_down: int = 0
    skewed: bool = False
    steps: int = 0
    """How often the wall clock of the host is set, forward or back, by up to ten times the limit."""
    flips: int = 0
    """Changes of the primary under traffic; with one process, for several do not yet agree on one."""
    repairs: int = 0
    reads: float = 0.1
    narrow: bool = False
    """A lane of one worker and two places."""
    unique: bool = False
    """The documents hold marks that no two of them may have, and pass them on to each other."""
    together: bool = False
    """The secondary can change several documents in one step."""
    deaths_known: bool = True
    choosing: bool = True
    """The store called MongoDB finds the document of a write by filter by itself; the other one never does."""
    replicas: bool = False
    """The store called MongoDB is a replica set: see `replicas`."""
    divisions: int = 0
    """How often the set is divided, with the processes on either side of it."""
    asked: str = "majority"
    """The write concern of the application's client, a name of `replicas.CONCERNS`."""
    primary: StoreName = StoreName.MONGO
    """At the beginning."""
    verifications: int = 0
    fleet: bool = False
    """The processes begin in phase `off` or `dual_write`, and change between them: see `fleets`."""
    raised: bool = False
    """Their files ask for dual writes as the run begins."""
    changes: int = 0
    everywhere: float = 0.0
    """How often a change of the phase comes to the files of all processes and not of one."""
    control_down: int = 0
    cut_off: int = 0
    """How often one process alone loses the control store, for long."""
    verbs: tuple[tuple[str, int], ...] = VERBS
    transactions: float = 0.0
    """How much of what callers do is a transaction."""
    lasting: float = 0.0
    """The longest pause in a transaction, in seconds."""
    uncertain: float = 0.0
    """A commit has no answer, applied later or not at all."""
    many: float = 0.0
    """How often a caller changes several documents by one call."""
    batches: bool = False
    """The store called DynamoDB makes replays that wait together in one batch."""
    alone: float = 0.0
    """How much of what callers write only MongoDB can make: see `alone`."""
    expires: bool = False
    """Documents expire, and each store deletes them in its own time: see `expiry`."""

    @classmethod
    def drawn(cls, rng: random.Random) -> Conditions:
        made = cls._drawn(rng)
        # Without the generator: what a seed draws otherwise stays as it was.
        made = made.but(batches=not made.unique and (made.callers + made.keys) % 2 == 0)
        return made.but(many=0.3) if not made.fleet and (made.callers + made.operations) % 3 == 0 else made

    @classmethod
    def _drawn(cls, rng: random.Random) -> Conditions:
        def rate(most: float) -> float:
            return rng.random() * most if rng.random() < 0.5 else 0.0

        def some(most: int) -> int:
            return rng.randint(1, most) if rng.random() < 0.4 else 0

        if rng.random() < 0.15:
            return cls._of_a_fleet(rng, rate, some)
        if rng.random() < 0.07:
            return cls._of_flips(rng, rate, some)
        return cls(
            processes=rng.randint(1, 3),
            keys=rng.randint(1, 3),
            counters=rng.randint(0, 1),
            callers=rng.randint(2, 5),
            operations=rng.randint(2, 8),
            haste=rng.choice((0.0, 0.01, 0.05, 0.3)),
            mode=rng.choice((WriteMode.BACKGROUND, WriteMode.BACKGROUND, WriteMode.SYNC, WriteMode.STRICT)),
            seeded=rng.random() < 0.3,
            refused=rate(0.05),
            lost=rate(0.1),
            unanswered=rate(0.1),
            late=rate(0.1),
            hung=rate(0.03),
            slow=rate(0.2),
            partial=rate(0.5),
            wrong=rate(0.1) if rng.random() < 0.3 else 0.0,
            journal_failing=rate(0.1),
            journal_slow=rate(0.05),
            crash_at_point=rate(0.02),
            crashes=some(2),
            restarts=some(1),
            cancelled=rate(0.2),
            secondary_down=some(1),
            primary_down=some(1) if rng.random() < 0.5 else 0,
            skewed=rng.random() < 0.5,
            repairs=some(4),
            reads=rate(0.4),
            narrow=rng.random() < 0.2,
            deaths_known=rng.random() < 0.7,
            choosing=rng.random() < 0.7,
            steps=some(3),
            **cls._trading(rng),
            unreadable=rate(0.1),
            half=rate(0.05),
            verifications=some(3),
            **cls._replicated(rng),
        )

    @classmethod
    def _of_a_fleet(cls, rng: random.Random, rate: Callable[[float], float], some: Callable[[int], int]) -> Conditions:
        return cls(
            fleet=True,
            changes=rng.randint(1, 5),
            raised=rng.random() < 0.5,
            everywhere=rng.choice((0.0, 0.0, 0.5)),
            control_down=some(2),
            cut_off=some(1),
            processes=rng.randint(2, 3),
            keys=rng.randint(1, 2),
            counters=1,
            callers=rng.randint(2, 4),
            operations=rng.randint(4, 10),
            haste=rng.choice((0.05, 0.3)),
            seeded=rng.random() < 0.5,
            refused=rate(0.05),
            lost=rate(0.1),
            unanswered=rate(0.1),
            late=rate(0.1),
            slow=rate(0.2),
            dawdling=rate(0.2),
            journal_failing=rate(0.05),
            crashes=some(2),
            restarts=some(1),
            cancelled=rate(0.2),
            secondary_down=some(1),
            skewed=rng.random() < 0.5,
            steps=some(2),
            repairs=some(2),
            reads=0.0,
            verifications=some(4),
            loops=some(2),
            verbs=DRIVEN,
        )

    @classmethod
    def _of_flips(cls, rng: random.Random, rate: Callable[[float], float], some: Callable[[int], int]) -> Conditions:
        """With few faults: a flip is not made while the secondary lags."""
        return cls(
            fleet=True,
            flips=rng.randint(1, 3),
            control_down=some(1),
            cut_off=some(1),
            processes=rng.randint(1, 3),
            keys=rng.randint(1, 3),
            counters=1,
            callers=rng.randint(2, 5),
            operations=rng.randint(2, 8),
            haste=rng.choice((0.05, 0.3)),
            mode=rng.choice((WriteMode.BACKGROUND, WriteMode.BACKGROUND, WriteMode.SYNC, WriteMode.STRICT)),
            refused=rate(0.05),
            lost=rate(0.02),
            unanswered=rate(0.03),
            late=rate(0.03),
            hung=rate(0.01),
            slow=rate(0.1),
            partial=rate(0.5),
            wrong=rate(0.1) if rng.random() < 0.3 else 0.0,
            journal_failing=rate(0.02),
            crash_at_point=rate(0.01),
            crashes=some(1),
            restarts=some(2),
            loops=some(1),
            cancelled=rate(0.2),
            secondary_down=some(1) if rng.random() < 0.5 else 0,
            skewed=rng.random() < 0.5,
            steps=some(1),
            repairs=some(4),
            reads=rate(0.3),
            narrow=rng.random() < 0.2,
            choosing=rng.random() < 0.7,
            unreadable=rate(0.03),
            half=rate(0.02),
            verifications=some(1),
            **cls._trading(rng),
            **cls._replicated(rng),
        )

    @classmethod
    def _replicated(cls, rng: random.Random) -> dict[str, Any]:
        if rng.random() < 0.7:
            return {}
        return {
            "replicas": True,
            "divisions": rng.randint(1, 2),
            "asked": rng.choice(("1", "none", "majority", "here")),
            "primary": rng.choice((*StoreName, StoreName.MONGO)),
        }

    @classmethod
    def _trading(cls, rng: random.Random) -> dict[str, Any]:
        if rng.random() < 0.7:
            return {}
        verbs = (*VERBS, ("take", 8), ("drop", 3))
        return {"unique": True, "together": rng.random() < 0.5, "verbs": verbs}

    @property
    def mixed(self) -> bool:
        """Whether one store is written alone at times."""
        return self.fleet and not self.flips

    def but(self, **changes: Any) -> Conditions:
        return dataclasses.replace(self, **changes)

    def transacting(self) -> Conditions:
        """The same with transactions, which need one server as the primary all the time."""
        plain: dict[str, Any] = dict.fromkeys(("flips", "changes", "control_down", "cut_off", "loops", "divisions"), 0)
        return self.but(
            **plain,
            fleet=False,
            raised=False,
            everywhere=0.0,
            replicas=False,
            primary=StoreName.MONGO,
            unique=False,
            together=False,
            verbs=VERBS,
            transactions=0.5,
            uncertain=0.2,
            lasting=(0.0, 0.3, LIMIT)[(self.keys + self.callers) % 3],
        )

    def of_one_store(self) -> Conditions:
        """The same with writes that only MongoDB can make."""
        return self._plain(alone=0.5)

    def expiring(self) -> Conditions:
        """The same with documents that expire, with either store as the primary."""
        primary = tuple(StoreName)[(self.keys + self.operations) % 2]
        return self._plain(expires=True, primary=primary, choosing=primary is StoreName.MONGO, steps=0)

    def _plain(self, **changes: Any) -> Conditions:
        """One server each, both written all the time."""
        never = ("flips", "changes", "control_down", "cut_off", "loops", "divisions")
        nothing: dict[str, Any] = dict.fromkeys(never, 0)
        plain: dict[str, Any] = {"fleet": False, "raised": False, "everywhere": 0.0, "replicas": False, "many": 0.0}
        return self.but(**{**nothing, **plain, "unique": False, "together": False, "verbs": VERBS, **changes})

    def limits(self) -> Limits:
        return Limits(
            loop_lag=0.0,
            operation=LIMIT,
            write_deadline=0.5,
            read_deadline=0.5,
            write_workers=1 if self.narrow else 4,
            write_queue=2 if self.narrow else 100,
            settle=0.05,
            recover_every=0.5,
            recover_batch=8,
            drain=1.0,
            in_flight_timeout=LIMIT,
        )
