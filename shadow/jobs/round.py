"""One call of a job's command over several collections, which resumes where it was interrupted.

    round/<digest of command and collections>    the jobs that have ended well in it, by collection

The record is there from the first collection to the last. A collection counts as done if its job ended well and proves
as much now as it did then: the same stores, tables and primary, the same epoch of dual writes, and no later job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from shadow.control.epochs import proof_of
from shadow.control.records import Records
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.work import Task, fingerprint

__all__ = ["Round"]

_WELL: Final = ("complete", "equal")


class Round:
    """Does I/O; raises `ControlError`. `command` and `names` together say which call it is."""

    def __init__(self, records: Records, command: Sequence[str], names: Sequence[str]) -> None:
        self._records = records
        text = json.dumps([list(command), list(names)])
        self._key = f"round/{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def begin(self, *, restart: bool) -> None:
        """Resumes the interrupted call, if there is one; `restart` abandons it."""
        if restart:
            self._records.delete(self._key)

    def had(self, task: Task) -> Job | None:
        """The job in which the collection was done, if it need not be done again."""
        name = task.sides.collection
        id = self._done().get(name)
        newest = Jobs(self._records).jobs(kind=task.kind, collection=name, limit=1)
        if id is None or not newest or newest[0].id != id:
            return None
        job = newest[0]
        same = (job.outcome in _WELL, job.fingerprint, dict(job.options), job.epoch)
        return job if same == (True, fingerprint(task.sides), _plain(task), proof_of(self._records, name)) else None

    def note(self, job: Job) -> None:
        """Notes that the collection is done. One that did not end well is done again."""
        self._records.put(self._key, {"done": {**self._done(), job.collection: job.id}})

    def end(self) -> None:
        """All of them are done: the next call begins from the first."""
        self._records.delete(self._key)

    def _done(self) -> dict[str, int]:
        found = self._records.get(self._key)
        return {} if found is None else dict(found.value["done"])


def _plain(task: Task) -> dict[str, Any]:
    return dict(json.loads(json.dumps(task.options())))
