"""The kill and fault suite: several processes over the same hot keys, and everything done to them that production does.

`python -m tests.faults.chaos --seconds 480 --seed 7` runs it on servers of its own and prints the figures. The seed
decides on what it runs (`tests.faults.deployments`; each part can be named, as in `--topology replicas`), what is done
and when; what comes of it is the machine's own.

All the while, *troublemakers* are at work beside one another: one kills processes (from outside, or sends out a process
that kills itself at a named point, or ends one in order), one troubles the secondary, one the primary, one the journal,
one sets the clock, one makes the other store the primary and
back. Few of those changes succeed, for whatever troubles a process or a store for long aborts them. So the last part of
each round is for them: under the same traffic, but only beside what a flip has to endure, the primary is changed there
and back until that has succeeded. Then all is calmed, the processes are ended, a fresh process recovers, and both
stores are read with the bare drivers: they must be equal, and hold what `tests.support.history` says that they can.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import psutil
import pymongo
from pymongo.errors import PyMongoError

from shadow import Shadow
from shadow.embedded.process import ServerProcess
from shadow.embedded.servers import FaultProxy, Mode
from shadow.errors import JournalError, ShadowError
from shadow.host.failpoints import Point
from shadow.model.phase import StoreName
from tests.faults.deployments import CHOICES, Deployment
from tests.support.hammer import Orders, hammer, trail_of_child
from tests.support.history import History
from tests.support.shadows import COLLECTION, Site
from tests.support.stepped_clock import SteppedClock
from tests.support.topologies import ReplicaSet, root_url
from tests.support.trail import notes, prepare
from tests.support.worker import Worker

__all__ = ["Chaos", "Figures", "Plan"]

MONGO_WRITES: Final = b"_shadow"
"""What only requests to documents contain: a driver watches MongoDB on connections of its own."""
CROWD: Final = 200
CROWDED: Final = 0.3
"""Callers of a process that has many, and the share of processes that have."""
HTTP_ONLY: Final = (Mode.THROTTLE, Mode.ERROR)
POINTS: Final = [point for point in Point if point is not Point.AFTER_ASIDE]
"""Those that the processes come by: no value of theirs is unique."""
ROUND: Final = 7.0
"""Seconds of a round at least, if the primary changes. It begins with all troubles, and ends with flips."""
WILD: Final = 0.6
"""The share of a round in which there are all troubles."""
FLIPS: Final = 2
"""How often each store becomes the primary at the end of a round."""
FLIPPING: Final = 480.0
"""Seconds for that; it takes ten, for flips wait until nothing that was given up on can arrive (five seconds)."""
ENDURED: Final = (Mode.DELAY,)
"""What a store may do to requests while a flip is to succeed: a replay that fails keeps flips away for five seconds."""
ENDING: Final = 120.0
"""Seconds within which a process that was asked to end must have done so; it takes two."""
RECOVERY: Final = 180.0
"""Seconds within which everything must be level once all is calm; it takes two."""


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    seconds: float
    deployment: Deployment
    processes: int = 3
    tasks: int = 4
    pause: float = 0.005
    away: float = 3.0
    """Seconds that a store is away at most, with all its connections."""


@dataclass
class Figures:
    """What was done, what came of it, and what is wrong: nothing, if `wrong` is empty."""

    seed: int
    deployment: str
    seconds: float = 0.0
    recovery_seconds: float = 0.0
    processes: int = 0
    operations: dict[str, dict[str, int]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    """Of those at the ends of rounds, by what came of them."""
    faulty_requests: int = 0
    wrong: list[str] = field(default_factory=list)

    def total(self, outcome: str) -> int:
        return sum(each.get(outcome, 0) for each in self.operations.values())


Deed = Callable[[random.Random], Awaitable[str]]
"""What came of it."""


def _without_names(said: str) -> str:
    """Without ids of processes, so that it can be counted."""
    return re.sub(r"\S*[0-9a-f]{8}\S*|\d+", "#", said)[:80]


@dataclass(slots=True)
class _Life:
    """One process, from its start to its end."""

    worker: Worker
    trail: Path
    point: Point | None
    ending: bool = False

    @property
    def process(self) -> BaseProcess:
        return self.worker.process

    def __str__(self) -> str:
        """How it ended, and what it had to say."""
        return f"{self.trail.stem} ended with {self.process.exitcode}: {self.worker.last_words()}"


class Chaos:
    """`servers`: MongoDB and DynamoDB by the name of their store; they are killed and restarted, so they keep their
    data over it."""

    def __init__(self, plan: Plan, site: Site, servers: dict[str, ServerProcess], folder: Path) -> None:
        self.plan = plan
        self.figures = Figures(plan.seed, str(plan.deployment))
        self._servers = servers
        # The drivers go to the members of a set by the addresses that these tell: no proxy stands in between.
        self._proxies = {
            name: FaultProxy.before(server.url)
            for name, server in servers.items()
            if not isinstance(server, ReplicaSet)
        }
        urls = {name: server.url for name, server in servers.items()}
        self._bare = self._on(site, urls)
        self._site = self._on(site, urls | {name: proxy.url for name, proxy in self._proxies.items()})
        self._folder = folder
        self._gently = folder / "gently"
        self._clock = SteppedClock(folder / "clock") if plan.deployment.clocks == "stepped" else None
        self._environment = self._environment_of(plan.deployment)
        self._lives: list[_Life] = []
        self._all: list[Path] = []
        self._killing = asyncio.Lock()
        self._primary = StoreName(plan.deployment.primary)
        self._began = self._made = time.monotonic()
        self._chances: dict[str, random.Random] = {}

    def _on(self, site: Site, urls: dict[str, str]) -> Site:
        return site.but(
            mongo_url=urls["mongo"] + self.plan.deployment.options,
            dynamo_url=urls["dynamo"],
            phase="shadow",
            limits={"operation": 3.0, "drain": 8.0, "write_deadline": 5.0, "read_deadline": 2.0},
        )

    def _environment_of(self, deployment: Deployment) -> dict[str, str]:
        """What the processes have in theirs."""
        found = {}
        if deployment.metrics == "shared":
            found["PROMETHEUS_MULTIPROC_DIR"] = str(self._folder / "metrics")
            (self._folder / "metrics").mkdir()
        return found

    async def run(self) -> Figures:
        with ExitStack() as stack:
            for proxy in self._proxies.values():
                stack.enter_context(proxy)
            stack.callback(self._kill_all)
            async with self._bare.shadow() as shadow:
                await shadow.prepare()
            for _ in range(self.plan.processes):
                self._send_out(None, 0)
            await self._under_way()
            self._began = time.monotonic()
            await self._trouble()
            await self._calm()
            self.figures.faulty_requests = sum(proxy.faults for proxy in self._proxies.values())
        self.figures.seconds = round(time.monotonic() - self._began, 1)
        await self._recover()
        await self._judge()
        return self.figures

    # --- the processes ------------------------------------------------------------------------------------------

    def _send_out(self, point: Point | None, after: int) -> None:
        name = f"p{len(self._all)}"
        trail = self._folder / f"{name}.trail"
        self._all.append(trail)
        chance = random.Random(f"{self.plan.seed}-{name}")
        tasks, pause = self.plan.tasks, self.plan.pause
        if chance.random() < CROWDED:
            # As many operations, by many more callers.
            tasks, pause = CROWD, pause * CROWD / tasks
        clock = "" if self._clock is None else str(self._clock.path)
        life = self.plan.deployment.life
        orders = Orders(
            self._site, name, str(trail), self._made, tasks, pause, point=point, after=after, clock=clock, life=life,
            gently=str(self._gently),
        )  # fmt: skip
        for each in (trail, trail_of_child(trail)) if life == "forks" else (trail,):
            prepare(each)
        worker = Worker(trail.with_suffix(".log"), hammer, orders, environment=self._environment)
        self._lives.append(_Life(worker, trail, point))

    def _bury(self) -> None:
        """Takes note of those that have ended, and keeps the number of the living."""
        for life in [each for each in self._lives if each.process.exitcode is not None]:
            self._lives.remove(life)
            code = life.process.exitcode
            if code == -signal.SIGKILL and life.point is not None and not life.ending:
                self.figures.kills[f"at {life.point}"] += 1
            elif code != 0 and not life.ending:
                self.figures.wrong.append(str(life))

    def _ended_in_order(self, life: _Life) -> None:
        """A process that was asked to end may still come to the point that it dies at, or not have begun."""
        code = life.process.exitcode
        died = life.point is not None and code == -signal.SIGKILL
        not_begun = code == -signal.SIGTERM and not any(notes(life.trail))
        if code not in (0, None) and not died and not not_begun:
            self.figures.wrong.append(str(life))

    def _kill_all(self) -> None:
        for life in self._lives:
            life.process.kill()
        for life in self._lives:
            life.process.join(90)

    async def _under_way(self) -> None:
        """Returns when every process has done something: a loaded machine may take long to start them."""
        async with asyncio.timeout(180):
            for life in self._lives:
                while not any(words[0] == "end" for words in notes(life.trail)):
                    assert life.process.exitcode is None, str(life)
                    await asyncio.sleep(0.05)

    # --- the troublemakers --------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        if self.plan.deployment.flips == "none":
            await self._all_troubles(self.plan.seconds)
            return
        rounds = max(1, round(self.plan.seconds / ROUND))
        for _ in range(rounds):
            await self._all_troubles(WILD * self.plan.seconds / rounds)
            await self._there_and_back()

    async def _all_troubles(self, seconds: float) -> None:
        """At any time, and together."""
        end = time.monotonic() + seconds
        primary = self.plan.deployment.primary
        secondary = "dynamo" if primary == "mongo" else "mongo"
        deeds: list[tuple[str, float, float, Deed]] = [
            ("processes", 0.3, 1.2, self._trouble_processes),
            ("secondary", 0.5, 2.5, lambda chance: self._trouble_store(secondary, chance, 3.0)),
            ("primary", 1.0, 3.0, lambda chance: self._trouble_store(primary, chance, 0.8)),
        ]
        if self.plan.deployment.journal == "sqlite":
            deeds.append(("journal", 1.5, 5.0, self._trouble_journal))
        if self.plan.deployment.flips == "some":
            deeds.append(("flip", 0.2, 1.0, self._flip))
        if self._clock is not None:
            deeds.append(("clock", 0.5, 2.0, self._trouble_clock))
        await asyncio.gather(*(self._again_and_again(*each, lambda: time.monotonic() < end) for each in deeds))

    async def _again_and_again(
        self, name: str, least: float, most: float, deed: Deed, goes_on: Callable[[], bool]
    ) -> None:
        """`least` and `most` seconds of rest between two deeds."""
        chance = self._chances.setdefault(name, random.Random(f"{self.plan.seed}-{name}"))
        while goes_on():
            await asyncio.sleep(chance.uniform(least, most))
            self.figures.troubles[f"{name}: {await deed(chance)}"] += 1

    async def _there_and_back(self) -> None:
        """Flips that succeed, both ways, under traffic."""
        deeds: list[tuple[str, float, float, Deed]] = [("endured", 0.1, 0.5, self._trouble_lightly)]
        if self.plan.deployment.journal == "sqlite":
            deeds.append(("journal", 1.0, 3.0, self._trouble_journal_of_all))
        if self._clock is not None:
            deeds.append(("clock", 0.5, 2.0, self._trouble_clock))
        self._gently.touch()
        flips = asyncio.ensure_future(self._flip_often())
        await asyncio.gather(flips, *(self._again_and_again(*each, lambda: not flips.done()) for each in deeds))
        self._gently.unlink()

    async def _flip_often(self) -> None:
        chance = self._chances.setdefault("flips", random.Random(f"{self.plan.seed}-flips"))
        said = ""
        try:
            async with asyncio.timeout(FLIPPING), self._bare.shadow() as operator:
                for _ in range(2 * FLIPS):
                    while True:
                        await self._at_work()
                        said = await self._flip_by(operator)
                        self.figures.flips[said] += 1
                        if said.startswith("to "):
                            break
                        await asyncio.sleep(chance.uniform(0.0, 0.2))
        except TimeoutError:
            self.figures.wrong.append(f"not flipped {2 * FLIPS} times within {FLIPPING:g} s: {said}")

    async def _at_work(self) -> None:
        """Returns when two processes have work behind them, of as many as ever."""
        while True:
            self._bury()
            while len(self._lives) < self.plan.processes:
                self._send_out(None, 0)
            living = [life for life in self._lives if life.process.exitcode is None]
            if sum(any(words[0] == "end" for words in notes(life.trail)) for life in living) >= 2:
                return
            await asyncio.sleep(0.05)

    async def _flip_by(self, operator: Shadow) -> str:
        """To the other store. What comes of it."""
        try:
            now = (await operator.admin.fleet.participant.look()).placed[COLLECTION].primary
            to = StoreName.MONGO if now is StoreName.DYNAMO else StoreName.DYNAMO
            flipped = await operator.admin.flip(COLLECTION, to, "chaos")
        except (ShadowError, PyMongoError, TimeoutError) as error:
            return f"refused, {type(error).__name__}"
        if flipped["done"]:
            self._primary = to
        return f"to {to}" if flipped["done"] else f"not done: {_without_names(flipped['said'])}"

    async def _trouble_lightly(self, chance: random.Random) -> str:
        """Requests to the store that follows are slow for a moment."""
        name = "mongo" if self._primary is StoreName.DYNAMO else "dynamo"
        if name not in self._proxies:
            return "nothing"
        mode = chance.choice([each for each in ENDURED if name == "dynamo" or each not in HTTP_ONLY])
        only = MONGO_WRITES if name == "mongo" else b""
        await asyncio.to_thread(self._proxies[name].set, mode, seconds=0.05, only=only, times=chance.choice([1, 3, 20]))
        await asyncio.sleep(chance.uniform(0.1, 0.4))
        await asyncio.to_thread(self._proxies[name].clear)
        return str(mode)

    async def _trouble_journal_of_all(self, chance: random.Random) -> str:
        await asyncio.to_thread(self._lock_journal, chance.uniform(0.05, 0.3))
        return "locked"

    async def _trouble_processes(self, chance: random.Random) -> str:
        async with self._killing:
            return await self._end_or_send_out(chance)

    async def _end_or_send_out(self, chance: random.Random) -> str:
        self._bury()
        if len(self._lives) < self.plan.processes:
            armed = chance.random() < 0.6
            self._send_out(
                chance.choice(POINTS) if armed else None,
                chance.randrange(120),
            )
            return "sent out"
        life = chance.choice(self._lives)
        life.ending = True
        orderly = chance.random() < 0.2
        os.kill(life.process.pid or 0, signal.SIGTERM if orderly else signal.SIGKILL)
        self.figures.kills["SIGTERM" if orderly else "at random"] += 1
        await asyncio.to_thread(life.process.join, ENDING)
        if life.process.exitcode is None:
            self.figures.wrong.append(f"{life.trail.stem} did not end within {ENDING:g} s of SIGTERM")
            life.process.kill()
        elif orderly:
            self._ended_in_order(life)
        return "ended"

    async def _trouble_store(self, name: str, chance: random.Random, longest: float) -> str:
        """A fault of the network or the server; at most `longest` seconds of it, except that a start takes longer."""
        deed = chance.random()
        if deed < 0.15:
            await self._crash(name)
            return "killed and restarted"
        if deed < 0.25:
            await asyncio.to_thread(self._servers[name].pause)
            await asyncio.sleep(chance.uniform(0.1, longest))
            await asyncio.to_thread(self._servers[name].resume)
            return "stopped and continued"
        if deed < 0.35 and name == "mongo":
            return await asyncio.to_thread(self._step_down)
        server = self._servers[name]
        if isinstance(server, ReplicaSet):
            return await asyncio.to_thread(self._divide, server, chance.random(), chance.uniform(0.1, longest))
        if deed < 0.45:
            return await self._away(name, chance)
        modes = [mode for mode in Mode if mode is not Mode.PASS and (name == "dynamo" or mode not in HTTP_ONLY)]
        mode = chance.choice(modes)
        only = MONGO_WRITES if name == "mongo" else b""
        times = chance.choice([None, 1, 3, 20])
        await asyncio.to_thread(self._proxies[name].set, mode, seconds=0.3, only=only, times=times)
        await asyncio.sleep(chance.uniform(0.1, longest))
        await asyncio.to_thread(self._proxies[name].clear)
        return str(mode)

    async def _away(self, name: str, chance: random.Random) -> str:
        """Out of reach again and again, for the connections too by which a driver watches its server."""
        proxy = self._proxies[name]
        for _ in range(chance.randint(1, 3)):
            await asyncio.to_thread(proxy.set, chance.choice([Mode.REFUSE, Mode.HANG]))
            await asyncio.sleep(chance.uniform(0.2, self.plan.away))
            await asyncio.to_thread(proxy.clear)
            await asyncio.sleep(chance.uniform(0.0, 0.5))
        return "away"

    async def _crash(self, name: str) -> None:
        server = self._servers[name]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)

    def _step_down(self) -> str:
        """The one node gives up being the primary for a second, and is elected again; in a set, another one is."""
        server = self._servers["mongo"]
        if isinstance(server, ReplicaSet):
            server.step_down()
            return "another elected"
        url = root_url(server.url)
        with pymongo.MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
            with contextlib.suppress(PyMongoError):
                client.admin.command({"replSetStepDown": 1, "force": True})
            end = time.monotonic() + ENDING
            while time.monotonic() < end:
                with contextlib.suppress(PyMongoError):
                    if client.admin.command("hello").get("isWritablePrimary"):
                        return "stepped down"
                time.sleep(0.05)
        self.figures.wrong.append(f"no primary within {ENDING:g} s of stepping down")
        return "stepped down"

    @staticmethod
    def _divide(members: ReplicaSet, deed: float, seconds: float) -> str:
        """Members of a set that do not follow, or cannot be heard."""
        if deed < 0.3:
            with members.lagging(members.secondaries()[0]):
                time.sleep(seconds)
            return "one member behind"
        if deed < 0.6:
            with members.apart():
                time.sleep(seconds)
            return "all members behind"
        with members.cut_off():
            time.sleep(seconds)
        return "primary cut off"

    async def _flip(self, chance: random.Random) -> str:
        """There, or the way back, as an operator does it who looks at no gate; faults and kills abort many."""
        to = StoreName.MONGO if self._primary is StoreName.DYNAMO else StoreName.DYNAMO
        # A process that ends aborts it, so mostly none is ended from outside meanwhile.
        unkilled = self._killing if chance.random() < 0.8 else contextlib.nullcontext()
        try:
            async with unkilled, self._bare.shadow() as operator:
                flipped = await operator.admin.flip(COLLECTION, to, "chaos")
                self._primary = operator.admin.routes()[COLLECTION].primary
        except (ShadowError, PyMongoError, TimeoutError) as error:
            return f"refused, {type(error).__name__}"
        return f"to {to}" if flipped["done"] else "not done"

    async def _trouble_clock(self, chance: random.Random) -> str:
        """By less than an operation may last, or by far more."""
        assert self._clock is not None
        seconds = chance.choice((-1, 1)) * chance.choice((0.5, 5.0, 600.0))
        self._clock.step(seconds)
        return f"set by {seconds:+g} s"

    async def _trouble_journal(self, chance: random.Random) -> str:
        if chance.random() < 0.5:
            await asyncio.to_thread(self._lock_journal, chance.uniform(0.1, 1.0))
            return "locked"
        living = [life for life in self._lives if life.process.exitcode is None and not life.ending]
        if not living:
            return "nobody there"
        life = chance.choice(living)
        with contextlib.suppress(ProcessLookupError):
            self._limit_files(life, 0)
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            self._limit_files(life, resource.RLIM_INFINITY)
        return "full"

    @staticmethod
    def _limit_files(life: _Life, size: int) -> None:
        """How far the process may write into files: to the journal it is a disk without a free byte."""
        pid = life.process.pid or 0
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    def _lock_journal(self, seconds: float) -> None:
        db = sqlite3.connect(self._site.journal, timeout=10.0, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            db.execute("ROLLBACK")
        except sqlite3.OperationalError:
            pass  # the writers were quicker all the time: no trouble this once
        finally:
            db.close()

    # --- the end ------------------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """All faults end, and so do the processes: the one half in order, the other killed."""
        self._bury()
        for number, life in enumerate(self._lives):
            life.ending = True
            os.kill(life.process.pid or 0, signal.SIGTERM if number % 2 else signal.SIGKILL)
            self.figures.kills["at the end" if number % 2 == 0 else "SIGTERM"] += 1
        await asyncio.gather(*(asyncio.to_thread(life.process.join, ENDING) for life in self._lives))
        self.figures.wrong += [
            f"{life.trail.stem} did not end within {ENDING:g} s"
            for life in self._lives
            if life.process.exitcode is None
        ]
        for life in self._lives[1::2]:
            self._ended_in_order(life)
        await asyncio.to_thread(self._bury_children)
        for server in self._servers.values():
            if isinstance(server, ReplicaSet):
                await asyncio.to_thread(server.wait_until_whole)

    def _bury_children(self) -> None:
        """Of processes that have forked; they end by themselves, whatever became of those."""
        for trail in map(trail_of_child, list(self._all)):
            pid = next((int(words[1]) for words in notes(trail) if words[0] == "child"), None)
            if pid is None:
                continue
            self._all.append(trail)
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                child = psutil.Process(pid)
                if "python" in child.name() and child.create_time() < time.time():
                    child.wait(ENDING)
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                self.figures.wrong.append(f"{trail.stem} did not end within {ENDING:g} s")

    async def _recover(self) -> None:
        """By the next process, here."""
        started = time.monotonic()
        async with self._bare.shadow() as shadow:
            if not await self._settled(shadow):
                self.figures.wrong.append(
                    f"not level within {RECOVERY:g} s: {(await shadow.admin.status())['journal']}"
                )
        self.figures.recovery_seconds = round(time.monotonic() - started, 1)

    @staticmethod
    async def _settled(shadow: Shadow) -> bool:
        """A journal on a server may be slow to answer on a busy machine, also once all is calm."""
        end = time.monotonic() + RECOVERY
        while True:
            try:
                return await shadow.settled(max(end - time.monotonic(), 0.0))
            except JournalError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)

    async def _judge(self) -> None:
        figures, history = self.figures, History()
        for trail in self._all:
            history.read(trail)
        figures.processes = len(self._all)
        figures.operations = {kind: dict(found) for kind, found in sorted(history.outcomes().items())}
        figures.wrong += [f"{times} times: {what}" for what, times in history.complaints.items()]
        figures.wrong += [f"{each.key}: {each.what}" for each in await self._bare.disagreements()]
        documents = {str(document["_id"]): document for document in (await self._bare.documents()).values()}
        figures.wrong += history.faults(documents)


async def on_own_servers(plan: Plan) -> Figures:
    """Starts servers, runs, ends them."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))  # a journal on a server leaves its files beside it here
        servers = plan.deployment.servers(lambda make: stack.enter_context(make()))
        site = plan.deployment.site(servers, "chaos", f"{folder}/shadow.db")
        return await Chaos(plan, site, servers, Path(folder)).run()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills and faults on real servers, and what is left afterwards.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seconds", type=float, default=60.0)
    for name, values in CHOICES.items():
        parser.add_argument(f"--{name}", help=f"one of {', '.join(map(repr, values))}; else the seed decides")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.005, help="mean seconds between two operations of a task")
    parser.add_argument("--away", type=float, default=3.0, help="most seconds that a store is away")
    given = vars(parser.parse_args())
    deployment = Deployment.drawn(given["seed"], **{name: given.pop(name) for name in CHOICES})
    plan = Plan(**given, deployment=deployment)
    print(f"--seed {plan.seed} {deployment}", file=sys.stderr, flush=True)
    figures = asyncio.run(on_own_servers(plan))
    print(json.dumps(vars(figures), indent=1))
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
