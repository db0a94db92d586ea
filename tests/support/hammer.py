"""What the processes of the fault suite run: many operations on few keys, each noted before and after.

A process ends by SIGTERM (in order), by SIGKILL from outside, or kills itself at a named point of the protocol. It
works in one event loop, in one after the other, or forks once it has used its Shadow, and both go on with it.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from pymongo.errors import DuplicateKeyError, PyMongoError

from shadow import Shadow
from shadow.errors import JournalError
from shadow.host.failpoints import Point
from shadow.model.outcome import TRANSIENT, Outcome, classify
from tests.support.shadows import COLLECTION, Site
from tests.support.stepped_clock import follow
from tests.support.trail import Trail

__all__ = ["Orders", "hammer", "trail_of_child"]

COUNTERS: Final = 10
CHURNED: Final = 40
LISTS: Final = 2
PERIOD: Final = 4.0
"""Seconds after which another list is pushed to, so that none outgrows an item of a table."""
MANY: Final = 3
ACCOUNTS: Final = 12
TRIES: Final = 3
"""How often the driver may make a transaction: it would try for two minutes."""
PARTS: Final = ("out", "in", "paid")
"""What one transaction writes, each noted in a document of its own: all of them are there, or none."""
CANCELLED: Final = 0.04
"""The share of operations whose caller goes away before the answer."""
RESTFUL: Final = 40
"""How many times longer a task rests while the processes are to work gently."""
LOOP: Final = 1.5
"""Seconds that one loop lasts where there are several, and that the child of a fork works."""
_WRITE_CONFLICT: Final = 112
LONGEST: Final = 150.0
"""Seconds. An operation that takes longer hangs, and is complained of."""

Things = Any


@dataclass(frozen=True, slots=True)
class Orders:
    """`name` is unique to the life of one process; `began`: `time.monotonic()` of the whole run. With a `point`, the
    process dies there, at the time that `after` counts down to."""

    site: Site
    name: str
    trail: str
    began: float
    tasks: int = 4
    pause: float = 0.005
    point: Point | None = None
    after: int = 0
    clock: str = ""
    """The file of a `SteppedClock` that the process goes by."""
    gently: str = ""
    """While there is a file of this name, each task rests longer between two operations."""
    life: str = "one loop"
    """What it does with event loops and forks: see `deployments.CHOICES`."""


@dataclass(frozen=True, slots=True)
class _Kind:
    weight: int
    key: Callable[[random.Random, float], str]
    call: Callable[[Things, str, str], Awaitable[Any]]
    effect: Callable[[Any], int] = lambda result: 1


def _counter(chance: random.Random, age: float) -> str:
    return f"counter-{chance.randrange(COUNTERS)}"


def _list(chance: random.Random, age: float) -> str:
    return f"list-{int(age // PERIOD)}-{chance.randrange(LISTS)}"


def _churned(chance: random.Random, age: float) -> str:
    return f"key-{chance.randrange(CHURNED)}"


def _batch(chance: random.Random, age: float) -> str:
    return "many"


def _accounts(chance: random.Random, age: float) -> str:
    """Two of them, in any order."""
    period = int(age // PERIOD)
    return " ".join(f"account-{period}-{n}" for n in chance.sample(range(ACCOUNTS), 2))


KINDS: Final = {
    "inc": _Kind(30, _counter, lambda t, key, tag: _increment(t, key, tag)),
    "push": _Kind(12, _list, lambda t, key, tag: t.update_one({"_id": key}, {"$push": {"tags": tag}}, upsert=True)),
    "insert": _Kind(18, _churned, lambda t, key, tag: t.insert_one({"_id": key, "by": tag, "n": 0})),
    "replace": _Kind(
        8, _churned, lambda t, key, tag: t.replace_one({"_id": key}, {"by": tag, "n": 0, "x": "y"}, upsert=True)
    ),
    "set": _Kind(
        12,
        _churned,
        lambda t, key, tag: t.update_one(_where(key, tag), {"$set": {"set": tag}, "$inc": {"n": 1}}),
        lambda result: result.matched_count,
    ),
    "delete": _Kind(
        12, _churned, lambda t, key, tag: t.delete_one(_where(key, tag)), lambda result: result.deleted_count
    ),
    "many": _Kind(
        2, _batch, lambda t, key, tag: t.insert_many([{"_id": f"{tag}.{n}", "by": tag} for n in range(MANY)])
    ),
    "transfer": _Kind(10, _accounts, lambda t, key, tag: _transfer(t, key, tag)),
    "read": _Kind(6, _churned, lambda t, key, tag: t.find_one({"_id": key})),
}


def _increment(things: Things, key: str, tag: str) -> Awaitable[Any]:
    """By the one verb or the other: both have the one path of the data, and answers of their own."""
    update = {"$inc": {"n": 1}}
    if tag.endswith(("1", "3")):
        return things.find_one_and_update(_where(key, tag), update, upsert=True)  # type: ignore[no-any-return]
    return things.update_one(_where(key, tag), update, upsert=True)  # type: ignore[no-any-return]


class _NotCommitted(Exception):
    """No commit of the transaction has been sent, or the last one was refused: nothing of it is there."""


def _unknown(error: Exception) -> bool:
    """Whether a commit that raised this may have been made."""
    return classify(error) is Outcome.UNKNOWN and not _may_be_repeated(error)


def _may_be_repeated(error: Exception) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(TRANSIENT)


async def _transfer(things: Things, key: str, tag: str) -> None:
    """Moves one from an account to another in a transaction, which the driver repeats, or which is made by hand. One
    in five is aborted. Raises `_NotCommitted` if it is certain that nothing of it is there."""
    source, target = key.split()

    async def statements(session: Any) -> None:
        await _move(things, source, {"$inc": {"balance": -1}, "$push": {"moved": f"{tag}.out"}}, session)
        await _move(things, target, {"$inc": {"balance": 1}, "$push": {"moved": f"{tag}.in"}}, session)
        paid = {"_id": f"{tag}.paid", "balance": 0, "moved": [f"{tag}.paid"]}
        await things.insert_one(paid, session=session)

    begun = things.database.client.start_session()
    async with await begun if inspect.isawaitable(begun) else begun as session:
        if tag.endswith(("1", "6")):
            await _by_the_driver(session, statements)
        else:
            await _by_hand(session, statements, abort=tag.endswith(("3", "8")))


async def _move(things: Things, key: str, update: dict[str, Any], session: Any) -> None:
    """In one change of the document, or in several: only their outcome is ever replicated."""
    if len(key) % 2 == int(update["$inc"]["balance"] > 0):
        await things.update_one({"_id": key}, update, upsert=True, session=session)
        return
    for operator, fields in update.items():
        await things.update_one({"_id": key}, {operator: fields}, upsert=True, session=session)


async def _by_the_driver(session: Any, statements: Callable[[Any], Awaitable[None]]) -> None:
    tries = itertools.count()

    async def tried(session: Any) -> None:
        if next(tries) == TRIES:
            raise _NotCommitted
        await statements(session)

    try:
        await session.with_transaction(tried)
    except _NotCommitted:
        raise
    except Exception as error:
        if _unknown(error):
            raise
        raise _NotCommitted from error


async def _by_hand(session: Any, statements: Callable[[Any], Awaitable[None]], *, abort: bool) -> None:
    begun = session.start_transaction()
    if inspect.isawaitable(begun):
        await begun
    try:
        await statements(session)
    except Exception as error:
        await session.abort_transaction()
        raise _NotCommitted from error
    if abort:
        await session.abort_transaction()
        raise _NotCommitted
    try:
        await session.commit_transaction()
    except Exception as error:
        if _unknown(error):
            raise
        raise _NotCommitted from error


def _where(key: str, tag: str) -> dict[str, Any]:
    """The key, named so that it is known before the primary is asked, or so that it has to be found."""
    return {"$or": [{"_id": key}]} if tag.endswith(("3", "4", "8")) else {"_id": key}


def hammer(orders: Orders) -> None:
    """Runs until SIGTERM or death."""
    os.chdir(Path(orders.trail).parent)
    if orders.clock:
        follow(orders.clock)
    process = _Process(orders)
    signal.signal(signal.SIGTERM, process.stop)
    match orders.life:
        case "loops":
            process.in_loops()
        case "forks":
            process.forking()
        case _:
            asyncio.run(process.run())


def trail_of_child(trail: Path) -> Path:
    """Where the child of a process that forks notes what it does; its first line is `child PID`."""
    return trail.with_name(f"{trail.stem}c.trail")


class _Process:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._trail = Trail(orders.trail)
        self._left = orders.after
        self._name = orders.name
        self._numbers = itertools.count()
        self._stopped = False

    def stop(self, *signal: object) -> None:
        self._stopped = True

    def _reach(self, at: Point) -> None:
        if at is not self._orders.point:
            return
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run(self, shadow: Shadow | None = None) -> None:
        """In one loop, to the end."""
        shadow = self._orders.site.shadow(self._reach) if shadow is None else shadow
        async with shadow:
            await self._work(shadow)
        self._look_at(shadow)

    def in_loops(self) -> None:
        """As a task queue does it: one Shadow, one loop after the other, and only the last one is closed."""
        shadow = self._orders.site.shadow(self._reach)
        while not self._stopped:
            asyncio.run(self._work(shadow, LOOP))
        asyncio.run(self.run(shadow))

    def forking(self) -> None:
        """As a server does it that warms up before it forks: both sides go on with a Shadow that is in use."""
        shadow = self._orders.site.shadow(self._reach)
        asyncio.run(self._work(shadow, LOOP))
        child = os.fork()
        if child == 0:
            self._as_child(shadow)
        asyncio.run(self.run(shadow))
        if os.waitpid(child, 0)[1]:
            self._complain("the child of a fork did not end well")

    def _as_child(self, shadow: Shadow) -> NoReturn:
        status = 1
        try:
            self._trail = Trail(trail_of_child(Path(self._orders.trail)))
            self._trail("child", os.getpid())
            self._name, self._left = f"{self._name}c", 1 << 62
            asyncio.run(self._work(shadow, LOOP))
            self._stopped = True
            asyncio.run(self.run(shadow))
            status = 0
        finally:
            os._exit(status)

    async def _work(self, shadow: Shadow, seconds: float = float("inf")) -> None:
        """All tasks, until the time is up or the process is to end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self._complain(str(context["message"])))
        end = loop.time() + seconds
        await asyncio.gather(*(self._task(shadow[COLLECTION], number, end) for number in range(self._orders.tasks)))

    def _look_at(self, shadow: Shadow) -> None:
        for kind, times in shadow.admin.metrics_registry.totals()["kinds"].items():
            if times:
                self._complain(f"mismatch {kind}")

    def _complain(self, what: str) -> None:
        self._trail("complaint", what)

    async def _task(self, things: Things, number: int, end: float) -> None:
        chance = random.Random(f"{self._name}.{number}.{next(self._numbers)}")
        kinds, weights = list(KINDS), [each.weight for each in KINDS.values()]
        loop = asyncio.get_running_loop()
        while not self._stopped and loop.time() < end:
            tag = f"{self._name}.{number}.{next(self._numbers)}"
            await self._step(things, chance.choices(kinds, weights)[0], tag, chance)
            await asyncio.sleep(2 * self._pause() * chance.random())

    def _pause(self) -> float:
        return self._orders.pause * (RESTFUL if self._orders.gently and os.path.exists(self._orders.gently) else 1)

    async def _step(self, things: Things, name: str, tag: str, chance: random.Random) -> None:
        kind = KINDS[name]
        key = kind.key(chance, time.monotonic() - self._orders.began)
        told = _told(name, tag, key)
        for each, where in told:
            self._trail("start", each, name, where, time.monotonic_ns())
        patience = 0.02 * chance.random() if chance.random() < CANCELLED else LONGEST
        outcome, effect = await self._outcome(kind.call(things, key, tag), kind, patience)
        for each, _ in told:
            self._trail("end", each, outcome, effect, time.monotonic_ns())

    async def _outcome(self, call: Awaitable[Any], kind: _Kind, patience: float) -> tuple[str, int]:
        try:
            async with asyncio.timeout(patience):
                return "acked", kind.effect(await call)
        except TimeoutError:
            if patience == LONGEST:
                self._complain("an operation hangs")
            return "unknown", 1
        except (DuplicateKeyError, JournalError):
            return "refused", 0
        except _NotCommitted as error:
            why = error.__cause__
            if isinstance(why, Exception) and not _to_be_expected(why):
                self._complain(f"in a transaction: {type(why).__name__} {getattr(why, 'code', '')}")
            return "refused", 0
        except Exception as error:
            if getattr(error, "code", None) == _WRITE_CONFLICT:
                return "refused", 0  # many writers of one document, and not time enough for all of them
            if classify(error) is not Outcome.UNKNOWN:
                self._complain(f"{type(error).__name__} {getattr(error, 'code', '')}")
        return "unknown", 1


def _told(name: str, tag: str, key: str) -> list[tuple[str, str]]:
    """What an operation writes: a tag for each document, and its key."""
    match name:
        case "many":
            return [(f"{tag}.{n}", f"{tag}.{n}") for n in range(MANY)]
        case "transfer":
            return list(zip((f"{tag}.{part}" for part in PARTS), (*key.split(), f"{tag}.paid"), strict=True))
        case _:
            return [(tag, key)]


def _to_be_expected(error: Exception) -> bool:
    """In a transaction that was not committed."""
    return isinstance(error, JournalError) or _may_be_repeated(error) or classify(error) is Outcome.UNKNOWN
