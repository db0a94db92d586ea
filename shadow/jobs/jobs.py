"""The jobs in the control store: what each of them is, and its ranges with the cursor that each has reached.

    jobs                              the last number given, and the newest job of each kind and collection
    job/<number>                      what it is, its rate, whether it must stop; when it is over, its figures
    range/<number>/<layout>/<range>   whose it is, its cursor, its counts
    issue/<number>/<digest>           see `issues`

Processes of any host share a job: whatever they have to agree on is one record that changes only if it is still the one
that was seen. A range belongs to one claim at a time. It is free again when the process that holds it is known to be
dead, or when its record has not changed for a while by this process's own clock: no other host's clock counts. Work is
idempotent, so a worker that comes back late does no harm; its checkpoint is refused.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.control.epochs import proof_of
from shadow.control.records import MISSING, Record, Records
from shadow.host.process import Owner
from shadow.jobs.issues import Issue, Issues, Reasons, add_reasons, copied, tally
from shadow.jobs.target import JobRefused
from shadow.model.version import Document, Key, fresh_id

__all__ = ["FORMAT", "SILENT", "Job", "Jobs", "RangeClaim", "reasons_of"]

FORMAT: Final = 2
"""Of checkpoints: a job of another format cannot be resumed."""

SILENT: Final = 60.0
"""Seconds without any change of its record after which a claimed range may be claimed by another."""

_PROVING: Final = ("backfill", "verify")
"""The kinds of jobs that gates rest on."""
_LONG_AGO: Final = 600.0
"""Seconds, by this host's clock, after which the last sign of a process counts as old; in figures for people alone."""
_KEPT: Final = 20
"""Jobs of one kind and collection whose figures are kept."""
_INDEX: Final = "jobs"


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a job over one collection. Times are epoch seconds; `rate` is documents a second over all workers;
    `counts` adds up the ranges, and the second attempts at their issues; `issues` counts by kind: while the job runs, a
    key that two ranges found counts twice; `parts`: how many processes, or tasks of a cluster, work on it; `epoch`: the
    id of the epoch of dual writes in which it began, "" if its result proves nothing; `doubts`: what `Journal.doubts`
    returned before the job read anything."""

    id: int
    kind: str
    collection: str
    fingerprint: str
    options: Mapping[str, Any]
    started: float
    finished: float | None
    outcome: str | None
    rate: float | None
    total: int
    stopping: bool
    laid_out: bool
    ranges: int
    ranges_done: int
    counts: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, int]]
    parts: int
    epoch: str
    doubts: str = ""

    @property
    def issues(self) -> Mapping[str, int]:
        return {kind: sum(each.values()) for kind, each in self.reasons.items()}

    @property
    def done(self) -> bool:
        """Whether no range is left to be worked on."""
        return self.finished is not None or (self.laid_out and self.ranges == self.ranges_done)


@dataclass(slots=True)
class RangeClaim:
    """A range that one worker has claimed, and the cursor that it has reached (None: its beginning). The other fields
    belong to `Jobs`."""

    job: int
    range: Document
    cursor: Document | None
    key: str
    token: str
    value: dict[str, Any]
    revision: str
    written: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class Jobs:
    """Synchronous, thread-safe; raises `ControlError`, and `JobRefused` where a checkpoint belongs to something else.

    The caller closes `records`. `now`: epoch seconds; `clock`: seconds of this process's own that never go back.
    """

    def __init__(
        self,
        records: Records,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._issues = Issues(records)
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str, float]] = {}
        """Claimed ranges, each with the revision that was last seen and when that was seen first."""

    # --- jobs ---------------------------------------------------------------------------------------------------

    def begin(
        self, kind: str, collection: str, fingerprint: str, options: Mapping[str, Any], *, restart: bool = False
    ) -> int:
        """The unfinished job of this kind and collection, or a new one. Raises `JobRefused` if the unfinished one
        belongs to another configuration, other options, another format or, where it proves something, another epoch of
        dual writes; `restart` abandons it instead."""
        made = {
            "kind": kind, "collection": collection, "fingerprint": fingerprint, "format": FORMAT,
            "options": json.dumps(options, sort_keys=True), "started": self._now(), "finished": None, "outcome": None,
            "rate": None, "total": 0, "stopping": False, "layout": None, "ranges": 0,
            "epoch": self.proof(collection),
        }  # fmt: skip
        name, abandoned = f"{kind}/{collection}", None
        while True:
            index = self._records.get(_INDEX)
            last, open_ = (0, {}) if index is None else (index.value["last"], index.value["open"])
            if restart and abandoned is None:
                abandoned = open_.get(name)
            if name in open_ and open_[name] != abandoned:
                # Where two begin at once, or one died in between, either writes the record.
                self._records.put(_head(open_[name]), made, expected=MISSING)
                if self._resumed(open_[name], made):
                    return int(open_[name])
            wanted = {"last": last + 1, "open": {**open_, name: last + 1}}
            seen = MISSING if index is None else index.revision
            if self._records.put(_INDEX, wanted, expected=seen) is not None:
                self._records.put(_head(last + 1), made, expected=MISSING)
                self._resumed(last + 1, made)
                self._tidy(kind, collection, last + 1)
                return int(last + 1)

    def _resumed(self, id: int, wanted: Mapping[str, Any]) -> bool:
        """Resumes a job that is unfinished; whether it was. Raises `JobRefused` if it is not the one wanted."""
        head = self._head(id).value
        if head["finished"] is not None:
            return False
        _check(head, wanted)
        if head["stopping"]:
            self._update(id, {"stopping": False})
        return True

    def _tidy(self, kind: str, collection: str, newest: int) -> None:
        """Ends the older jobs, and keeps their figures alone; of the oldest, nothing."""
        heads = [(_number(each.key), each.value) for each in self._records.scan("job/")]
        older = [
            (n, head) for n, head in heads if (head["kind"], head["collection"]) == (kind, collection) and n < newest
        ]
        for age, (number, head) in enumerate(reversed(older), start=1):
            if head["finished"] is None:
                self.finish(number, "abandoned")
            if not head.get("tidied"):
                self._records.delete_all(f"range/{number:010}/")
                self._issues.delete_all(number)
                self._update(number, {"tidied": True})
            if age >= _KEPT:
                self._records.delete(_head(number))

    def create_ranges(self, job: int, ranges: Sequence[Document], total: int, doubts: str = "") -> None:
        """Gives a job its ranges, unless it has some; `total` is about how many documents there are; `doubts` as in
        `Job`."""
        layout = fresh_id()
        prefix = f"range/{job:010}/{layout}/"
        self._records.put_many({f"{prefix}{number:05}": _untouched(each) for number, each in enumerate(ranges)})

        def laid(head: dict[str, Any]) -> bool:
            if head["layout"] is not None:
                return False
            head.update(layout=layout, ranges=len(ranges), total=total, doubts=doubts)
            return True

        if not self._change(job, laid):
            self._records.delete_all(prefix)

    def finish(self, job: int, outcome: str) -> None:
        """Ends a job once, with its figures; later ends change nothing."""
        now = self.job(job)

        def end(head: dict[str, Any]) -> bool:
            if head["finished"] is not None:
                return False
            figures = {"counts": dict(now.counts), "done": now.ranges_done}
            head.update(finished=self._now(), outcome=outcome, figures=figures, reasons=copied(now.reasons))
            return True

        self._change(job, end)

    def amend(self, job: int, outcome: str) -> None:
        """Gives a job that has ended the outcome of a later attempt at its issues, with the figures of now."""
        head = self._head(job).value
        figures = self._figures(self._ranges(job, head["layout"]), head.get("after", {}))
        self._update(job, {"outcome": outcome, "figures": {"counts": dict(figures["counts"]), "done": figures["done"]}})

    def set_rate(self, job: int, rate: float | None) -> None:
        self._update(job, {"rate": rate})

    def stop(self, job: int) -> None:
        """Asks the workers of a job to end after the current batch; the job can be resumed."""
        self._update(job, {"stopping": True})

    def job(self, id: int) -> Job:
        """Raises `JobRefused` if there is none of this number."""
        return self._job(self._head(id))

    def jobs(self, *, kind: str | None = None, collection: str | None = None, limit: int = 50) -> list[Job]:
        """The newest first. One scan, and one more for each that has not ended."""
        wanted = [
            each
            for each in reversed(self._records.scan("job/"))
            if kind in (None, each.value["kind"]) and collection in (None, each.value["collection"])
        ]
        return [self._job(each) for each in wanted[:limit]]

    def proof(self, collection: str) -> str:
        """The id of the epoch of dual writes that a job would have if it began now; see `Job.epoch`."""
        return proof_of(self._records, collection)

    def _job(self, head: Record) -> Job:
        id, value = _number(head.key), head.value
        figures = value.get("figures") or self._figures(self._ranges(id, value["layout"]), value.get("after", {}))
        return Job(
            id=id,
            kind=value["kind"],
            collection=value["collection"],
            fingerprint=value["fingerprint"],
            options=json.loads(value["options"]),
            started=value["started"],
            finished=value["finished"],
            outcome=value["outcome"],
            rate=value["rate"],
            total=value["total"],
            stopping=value["stopping"],
            laid_out=value["layout"] is not None,
            ranges=value["ranges"],
            ranges_done=figures["done"],
            counts=Counter(figures["counts"]),
            reasons=value["reasons"] if "reasons" in value else figures["reasons"],
            parts=figures.get("parts", 0),
            epoch=value.get("epoch", ""),
            doubts=value.get("doubts", ""),
        )

    def _figures(self, ranges: Sequence[Record], after: Mapping[str, int]) -> dict[str, Any]:
        counts = Counter(after)
        reasons: Reasons = {}
        for each in ranges:
            counts.update(each.value["counts"])
            add_reasons(reasons, each.value["reasons"])
        at_work = {each.value["part"] for each in ranges if self._is_at_work(each)}
        done = sum(1 for each in ranges if each.value["done"])
        return {"counts": counts, "reasons": reasons, "done": done, "parts": len(at_work)}

    def _head(self, id: int) -> Record:
        found = self._records.get(_head(id))
        if found is None:
            raise JobRefused(f"there is no job {id}", hint="`shadow jobs list` lists the jobs")
        return found

    def _update(self, id: int, values: Mapping[str, Any]) -> None:
        def change(head: dict[str, Any]) -> bool:
            head.update(values)
            return True

        self._change(id, change)

    def _change(self, id: int, change: Callable[[dict[str, Any]], bool]) -> bool:
        """Changes a job's own record; False if `change` did not want to, as things are."""
        while True:
            found = self._head(id)
            if not change(found.value):
                return False
            if self._records.put(found.key, found.value, expected=found.revision) is not None:
                return True

    # --- ranges -------------------------------------------------------------------------------------------------

    def _ranges(self, job: int, layout: str | None) -> list[Record]:
        return [] if layout is None else self._records.scan(f"range/{job:010}/{layout}/")

    def claim(self, job: int, part: str, owner: Owner) -> RangeClaim | None:
        """A range that is not done and that nobody works on; None if there is none now. `part` names the worker: a
        process, or a task in one."""
        ranges = self._ranges(job, self._head(job).value["layout"])
        free = [each for each in ranges if not each.value["done"] and not self._is_held(each)]
        # So that workers that begin together do not all claim the same one.
        random.shuffle(free)
        for each in sorted(free, key=lambda each: each.value["token"] is not None):
            token, held = fresh_id(), {"host": owner.place, "pid": owner.pid, "born": owner.started}
            value: dict[str, Any] = {**each.value, **held, "token": token, "part": part, "at": self._now()}
            revision = self._records.put(each.key, value, expected=each.revision)
            if revision is not None:
                return RangeClaim(
                    job, value["range"], value["reached"], each.key, token, value, revision, self._clock()
                )
        return None

    def _is_held(self, record: Record) -> bool:
        value = record.value
        if value["token"] is None:
            return False
        return self._unchanged(record) < SILENT and not Owner(value["host"], value["pid"], value["born"]).known_dead()

    def _unchanged(self, record: Record) -> float:
        """Seconds for which this process has seen a record as it is."""
        now = self._clock()
        with self._lock:
            revision, since = self._seen.get(record.key, (None, now))
            if revision != record.revision:
                since = now
                self._seen[record.key] = record.revision, now
        return now - since

    def _is_at_work(self, record: Record) -> bool:
        lately = abs(self._now() - record.value["at"]) < _LONG_AGO
        return lately and not record.value["done"] and record.value["token"] is not None and self._is_held(record)

    def advance(self, claim: RangeClaim, cursor: Document, counts: Mapping[str, int], issues: Sequence[Issue]) -> bool:
        """Notes what was done up to `cursor`. False: the range is another worker's now, and nothing was noted."""
        if issues:
            self._issues.write(claim.job, issues, claim.token)
        with claim.lock:
            counted, reasons = Counter(claim.value["counts"]), copied(claim.value["reasons"])
            counted.update(counts)
            add_reasons(reasons, tally(issues))
            done = self._write(claim, {"reached": cursor, "counts": dict(counted), "reasons": reasons})
        if done:
            claim.cursor = cursor
        else:
            self._issues.take_back(claim.job, issues, claim.token)
        return done

    def complete(self, claim: RangeClaim) -> bool:
        with claim.lock:
            return self._write(claim, {"done": True, "token": None})

    def release(self, claim: RangeClaim) -> bool:
        """Gives a range back as it is."""
        with claim.lock:
            return self._write(claim, {"token": None})

    def beat(self, claim: RangeClaim) -> bool:
        """Says that the worker is alive, where a batch takes long."""
        with claim.lock:
            return self._write(claim, {})

    def _write(self, claim: RangeClaim, values: Mapping[str, Any]) -> bool:
        """Whether a claimed range was still this claim's. Safe to repeat after a `ControlError`."""
        value = {**claim.value, **values, "at": self._now()}
        while (revision := self._records.put(claim.key, value, expected=claim.revision)) is None:
            found = self._records.get(claim.key)
            # An earlier write whose answer was lost leaves the token, or the wanted value.
            if found is None or found.value["token"] != claim.token:
                return found is not None and found.value == value
            claim.revision = found.revision
        claim.value, claim.revision, claim.written = value, revision, self._clock()
        return True

    # --- issues -------------------------------------------------------------------------------------------------

    def tried_again(self, job: int, keys: Sequence[Key], counts: Mapping[str, int], issues: Sequence[Issue]) -> None:
        """Notes the second attempt at keys that were issues, made when all ranges were done: `issues` are those that
        still are, and `counts` are added to the job's."""
        self._issues.write(job, issues)

        def add(head: dict[str, Any]) -> bool:
            head["after"] = dict(Counter(head.get("after", {})) + Counter(counts))
            return True

        if counts:
            self._change(job, add)
        self._issues.resolve(job, keys, issues)

    def issues(self, job: int) -> Iterator[list[Issue]]:
        """The issues of a job, some at a time."""
        return self._issues.pages(job)

    def count_issues(self, job: int) -> Job:
        """Counts the issues of a job whose ranges are done one by one, so that none counts twice."""
        reasons: Reasons = {}
        for page in self.issues(job):
            add_reasons(reasons, tally(page))

        def counted(head: dict[str, Any]) -> bool:
            head["reasons"] = reasons
            return True

        self._change(job, counted)
        return self.job(job)


def reasons_of(job: Job) -> dict[str, int]:
    """How many issues there are by kind and reason, as "kind: reason", the most first."""
    found = {
        f"{kind}: {reason}" if reason else kind: count
        for kind, reasons in job.reasons.items()
        for reason, count in reasons.items()
    }
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _head(id: int) -> str:
    return f"job/{id:010}"


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def _untouched(within: Document) -> dict[str, Any]:
    return {
        "range": within, "reached": None, "done": False, "counts": {}, "reasons": {}, "token": None, "part": "",
        "host": "", "pid": 0, "born": 0.0, "at": 0.0,
    }  # fmt: skip


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `JobRefused` if an unfinished job cannot be resumed."""
    parts = {"fingerprint": "the configuration", "format": "the format of checkpoints", "options": "the options"}
    changed = [name for part, name in parts.items() if found[part] != wanted[part]]
    if found["kind"] in _PROVING and found.get("epoch", "") != wanted["epoch"]:
        changed.append("the epoch of dual writes")
    if changed:
        raise JobRefused(
            f"{found['kind']} of {found['collection']}: an unfinished job exists, and {' and '.join(changed)} "
            "changed since it started",
            hint="resume it with the settings that it started with, or abandon it and start again with --restart",
        )
