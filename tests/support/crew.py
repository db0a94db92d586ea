"""Processes that live through many scenarios of `contention`: each has some of the callers, and they begin together."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from pymongo import AsyncMongoClient

from tests.support.contention import SCENARIOS, Told, told
from tests.support.shadows import COLLECTION, Site
from tests.support.worker import forking_server

__all__ = ["Crew"]

_PATIENCE: Final = 240.0
"""Seconds in which a process has to answer, however crowded the machine is."""
_SETTLED: Final = 60.0


class Crew:
    """`size` processes. Each method is for all of the first `processes` of them; it raises RuntimeError with what one
    of them has failed at."""

    def __init__(self, size: int) -> None:
        context = forking_server()
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_live, args=(there,), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    async def open(self, processes: int, site: Site, *, bare: bool) -> None:
        """Has them use a site by the library, or `bare`, by MongoDB's driver alone."""
        await self._all([("open", site, bare)] * processes)

    async def meet(self, processes: int, scenario: str, callers: int) -> list[Told]:
        """Has `callers` callers meet, as many in each process, and answers what each was told."""
        share = [range(callers)[number::processes] for number in range(processes)]
        await self._all([("prepare", scenario, list(each)) for each in share])
        return [each for answers in await self._all([("meet",)] * processes) for each in answers]

    async def close(self, processes: int) -> None:
        """Has them leave the site, with all that is to be done for it done."""
        await self._all([("close",)] * processes)

    async def _all(self, words: Sequence[tuple[Any, ...]]) -> list[Any]:
        for pipe, each in zip(self._pipes, words, strict=False):
            pipe.send(each)
        answers = await asyncio.gather(*(asyncio.to_thread(_heard, pipe) for pipe in self._pipes[: len(words)]))
        failed = [text for ok, text in answers if not ok]
        if failed:
            raise RuntimeError("\n".join(failed))
        return [answer for _, answer in answers]

    def end(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(30)
            if process.is_alive():
                process.kill()
                process.join(30)


def _heard(pipe: Connection) -> tuple[bool, Any]:
    return pipe.recv() if pipe.poll(_PATIENCE) else (False, f"no answer within {_PATIENCE:g} s")


# --- in each process ----------------------------------------------------------------------------------------------


def _live(pipe: Connection) -> None:
    asyncio.run(_Member(pipe).run())


class _Member:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._stack = contextlib.AsyncExitStack()
        self._things: Any = None
        self._calls: list[Callable[[], Any]] = []

    async def run(self) -> None:
        with contextlib.suppress(EOFError):
            while (words := await asyncio.to_thread(self._pipe.recv)) is not None:
                try:
                    answer = True, await getattr(self, f"_{words[0]}")(*words[1:])
                except Exception:
                    answer = False, traceback.format_exc(limit=-6)
                self._pipe.send(answer)
        await self._stack.aclose()

    async def _open(self, site: Site, bare: bool) -> None:
        self._things = await self._stack.enter_async_context(_bare(site) if bare else _used(site))

    async def _prepare(self, scenario: str, callers: list[int]) -> None:
        call, things = SCENARIOS[scenario].call, self._things
        self._calls = [lambda number=number: call(things, number) for number in callers]  # type: ignore[misc]

    async def _meet(self) -> list[Told]:
        return list(await asyncio.gather(*(told(call()) for call in self._calls)))

    async def _close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def _bare(site: Site) -> AsyncIterator[Any]:
    async with AsyncMongoClient[dict[str, Any]](site.mongo_url) as client:
        yield client[site.database][COLLECTION]


@contextlib.asynccontextmanager
async def _used(site: Site) -> AsyncIterator[Any]:
    async with site.shadow() as shadow:
        # Whatever a first use brings about is no part of a scenario.
        await shadow[COLLECTION].find_one({"_id": "none"})
        yield shadow[COLLECTION]
        await shadow.settled(_SETTLED)
