"""A real Dask cluster on this host: a scheduler, and worker processes that nannies start anew when they die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import distributed

__all__ = ["Dask", "dask"]


class Dask:
    def __init__(self, cluster: distributed.LocalCluster, client: distributed.Client) -> None:
        self.address: str = cluster.scheduler_address
        self._client = client
        self.killed: set[int] = set()

    def pids(self) -> set[int]:
        """The worker processes that live."""
        found = self._client.run(os.getpid, on_error="return")
        return {pid for pid in found.values() if isinstance(pid, int)}

    def kill(self, count: int) -> None:
        """Kills so many workers that are at work, with SIGKILL."""
        for pid in sorted(self.pids() - self.killed)[:count]:
            os.kill(pid, signal.SIGKILL)
            self.killed.add(pid)


@contextmanager
def dask(workers: int) -> Iterator[Dask]:
    import distributed  # slow to import, and every process that collects tests would

    cluster = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield Dask(cluster, client)
