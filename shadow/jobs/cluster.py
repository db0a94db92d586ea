"""A job on an existing Dask cluster: each worker process of it takes part in the job, as a process of this host would.

The cluster only starts the tasks. Their ranges and cursors are in the control store, so a worker may die at any time:
its ranges become free, the others do them, and a worker that replaces it gets a task of its own. `distributed` is
imported when a cluster is named, and only here.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from shadow.errors import ShadowError
from shadow.jobs.target import JobRefused
from shadow.jobs.work import Work
from shadow.model.version import fresh_id

__all__ = ["Cluster", "ClusterUnavailable", "Ended"]

T = TypeVar("T")

_CONNECT: Final = 10.0
_TICK: Final = 0.5
_PATIENCE: Final = 60.0
"""Seconds without any worker, or scheduler, before the job gives up."""
_GOODBYE: Final = 60.0
"""Seconds that the tasks have for their current batches when the job is stopped."""


class ClusterUnavailable(ShadowError):
    """The cluster cannot be reached, has no workers, or its workers cannot do the work. The checkpoints are kept."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one task ended: `refused` and `failed` hold a message for people where it failed."""

    refused: str = ""
    failed: str = ""


class Cluster:
    """`async with Cluster("tcp://host:8786") as cluster`. Raises `JobRefused` if `distributed` is not installed,
    `ClusterUnavailable` if the scheduler does not answer or has no worker."""

    def __init__(self, scheduler: str, *, patience: float = _PATIENCE) -> None:
        self._scheduler = scheduler
        self._patience = patience
        self._client: Any = None
        self._parts: dict[str, Any] = {}
        """The task of each worker, by the worker's address."""
        self.size = 0
        """The number of worker processes at the beginning."""

    async def __aenter__(self) -> Self:
        distributed = _distributed()
        try:
            self._client = await distributed.Client(self._scheduler, asynchronous=True, timeout=_CONNECT)
            async with asyncio.timeout(self._patience):
                while not (workers := await self._client.ncores()):  # noqa: ASYNC110 - the cluster wakes nobody
                    await asyncio.sleep(_TICK)
        except (OSError, TimeoutError, ValueError) as error:
            await self.__aexit__()
            raise ClusterUnavailable(
                f"no Dask cluster with workers at {self._scheduler} ({type(error).__name__})",
                hint="start one: dask scheduler; dask worker tcp://HOST:8786",
            ) from error
        self.size = len(workers)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def work_off(self, work: Work, part: Callable[..., Ended], *arguments: Any) -> None:
        """Runs `part(*arguments)` on each worker until no range is left, or the job is stopped. Workers that come later
        get one too. Raises `JobRefused` and `ClusterUnavailable` with the message of a task."""
        try:
            await self._supervise(work, part, arguments)
        except BaseException:
            work.stop()
            raise
        finally:
            if work.stopping:
                await asyncio.to_thread(work.jobs.stop, work.job_id)
            await self._farewell()

    async def _supervise(self, work: Work, part: Callable[..., Ended], arguments: tuple[Any, ...]) -> None:
        alive = time.monotonic()
        while not (job := await work.look()).done and not job.stopping and not work.stopping:
            try:
                workers = await self._client.ncores()
            except (OSError, TimeoutError):
                workers = {}
            if workers:
                alive = time.monotonic()
            elif time.monotonic() - alive > self._patience:
                raise ClusterUnavailable(
                    f"the cluster at {self._scheduler} has had no worker for {self._patience:.0f} s",
                    hint="run the same command again when it has: it resumes from the last checkpoints",
                )
            await self._take_leave(set(workers))
            for address in workers.keys() - self._parts.keys():
                self._parts[address] = self._submit(address, part, arguments)
            await asyncio.sleep(_TICK)

    def _submit(self, address: str, part: Callable[..., Ended], arguments: tuple[Any, ...]) -> Any:
        """To this worker and no other: each process gets one task."""
        return self._client.submit(
            part, *arguments, key=f"shadow-{fresh_id()}", workers=[address], allow_other_workers=False, pure=False
        )

    async def _take_leave(self, workers: set[str]) -> None:
        """Drops the tasks of workers that are gone; raises what a task has reported."""
        for address, future in list(self._parts.items()):
            if address not in workers:
                await future.cancel(force=True)
                del self._parts[address]
            elif future.done():
                del self._parts[address]
                await _raise_failure(future)

    async def _farewell(self) -> None:
        """Waits for the tasks to end their current batches; a task that does not end in time is abandoned."""
        end = time.monotonic() + _GOODBYE
        while self._parts and time.monotonic() < end:
            workers = await self._client.ncores()
            self._parts = {
                address: future for address, future in self._parts.items() if address in workers and not future.done()
            }
            await asyncio.sleep(_TICK / 5)
        for future in self._parts.values():
            await future.cancel(force=True)


async def _raise_failure(future: Any) -> None:
    """Raises what a task raised or reported. The death of its worker is no error: the next round sees who is alive."""
    if future.status == "finished":
        ended: Ended = await future
        if ended.refused:
            raise JobRefused(f"a worker of the cluster refused: {ended.refused}")
        if ended.failed:
            raise ClusterUnavailable(f"a worker of the cluster gave up: {ended.failed}")
    elif future.status == "error":
        error = await future.exception()
        if not isinstance(error, _distributed().KilledWorker):
            raise ClusterUnavailable(
                f"a worker of the cluster could not do its task ({type(error).__name__})",
                hint="every worker needs the same version of shadow, installed; read its log",
            ) from error


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise JobRefused(
            "--scheduler needs the package distributed, which is not installed",
            hint="pip install 'shadow[dask]', here and on every worker",
        ) from error
