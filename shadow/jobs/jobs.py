"""The jobs in the control store: their ranges with the place that each has come to, and what could not be done and why.

    jobs                              the last number given, and the newest job of each kind and collection
    job/<number>                      what it is, its rate, whether it is to stop; when it is over, its figures
    range/<number>/<layout>/<range>   whose it is, the place it has come to, its counts
    issue/<number>/<digest>           one key that wants something

Processes of any host share a job: whatever they have to agree on is one record that changes only if it is still the one
that was seen. A range belongs to one claim at a time. It is free again when the process that holds it is known to be
dead, or when its record has not changed for a while as this process's own clock sees it: no other host's clock is
trusted. Work is idempotent, so a worker that comes back late does no harm; its checkpoint is refused.

Issues are written before the checkpoint that counts them: a process that dies in between leaves some that are not
counted yet. They are as true as when they were found, and the count at the end of a job goes by the issues.
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
from shadow.jobs.target import JobRefused
from shadow.model.order import key_digest
from shadow.model.version import Document, Key, fresh_id

__all__ = ["FORMAT", "SILENT", "Issue", "Job", "Jobs", "RangeClaim", "reasons_of"]

FORMAT: Final = 2
"""Of checkpoints: a job of another format is not gone on with."""

SILENT: Final = 60.0
"""Seconds without any change of its record after which a claimed range may be claimed by another."""

_PROVING: Final = ("backfill", "verify")
"""The kinds of jobs that gates rest on."""
_LONG_AGO: Final = 600.0
"""Seconds, by this host's clock, after which the last sign of a process counts as old; in figures for people alone."""
_KEPT: Final = 20
"""Jobs of one kind and collection whose figures are kept."""
_INDEX: Final = "jobs"
_PAGE: Final = 500

Reasons = dict[str, dict[str, int]]
"""Kind of issue to reason to count."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a job over one collection. Times are epoch seconds; `rate` is documents a second over all workers;
    `counts` adds up the ranges, and what came of their issues afterwards; `issues` counts by kind, while it runs a key
    that two ranges came upon twice; `parts`: how many processes, or tasks of a cluster, are at work on it;
    `epoch`: the id of the epoch of dual writes in which it began, "" if what it finds proves nothing; `doubts`: what
    `Journal.doubts` answered before it read anything."""

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
    """A range in a worker's hands, and the place that was reached (None: its beginning). What else is in it belongs
    to `Jobs`."""

    job: int
    range: Document
    place: Document | None
    key: str
    token: str
    value: dict[str, Any]
    revision: str
    written: float
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Issue:
    """One key that wants something: `kind` is a kind of difference or "failed", `reason` a short text without any
    value; the states are those seen, as JSON."""

    key: Key
    kind: str
    reason: str = ""
    primary_state: str = ""
    secondary_state: str = ""


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
        dual writes; `restart` gives it up instead."""
        made = {
            "kind": kind, "collection": collection, "fingerprint": fingerprint, "format": FORMAT,
            "options": json.dumps(options, sort_keys=True), "started": self._now(), "finished": None, "outcome": None,
            "rate": None, "total": 0, "stopping": False, "layout": None, "ranges": 0,
            "epoch": proof_of(self._records, collection),
        }  # fmt: skip
        name, given_up = f"{kind}/{collection}", None
        while True:
            index = self._records.get(_INDEX)
            last, open_ = (0, {}) if index is None else (index.value["last"], index.value["open"])
            if restart and given_up is None:
                given_up = open_.get(name)
            if name in open_ and open_[name] != given_up:
                # Where two begin at once, or one died in between, either writes the record.
                self._records.put(_head(open_[name]), made, expected=MISSING)
                if self._gone_on_with(open_[name], made):
                    return int(open_[name])
            wanted = {"last": last + 1, "open": {**open_, name: last + 1}}
            seen = MISSING if index is None else index.revision
            if self._records.put(_INDEX, wanted, expected=seen) is not None:
                self._records.put(_head(last + 1), made, expected=MISSING)
                self._gone_on_with(last + 1, made)
                self._tidy(kind, collection, last + 1)
                return int(last + 1)

    def _gone_on_with(self, id: int, wanted: Mapping[str, Any]) -> bool:
        """Whether a job is unfinished, which is not to stop then. Raises `JobRefused` if it is not the one wanted."""
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
        for place, (number, head) in enumerate(reversed(older), start=1):
            if head["finished"] is None:
                self.finish(number, "abandoned")
            if not head.get("tidied"):
                self._records.delete_all(f"range/{number:010}/")
                self._records.delete_all(f"issue/{number:010}/")
                self._update(number, {"tidied": True})
            if place >= _KEPT:
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
            head.update(finished=self._now(), outcome=outcome, figures=figures, reasons=_plain(now.reasons))
            return True

        self._change(job, end)

    def set_rate(self, job: int, rate: float | None) -> None:
        self._update(job, {"rate": rate})

    def stop(self, job: int) -> None:
        """Asks the workers of a job to end after the batch at hand; it can be gone on with."""
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
            _add(reasons, each.value["reasons"])
        at_work = {each.value["part"] for each in ranges if self._is_at_work(each)}
        done = sum(1 for each in ranges if each.value["done"])
        return {"counts": counts, "reasons": reasons, "done": done, "parts": len(at_work)}

    def _head(self, id: int) -> Record:
        found = self._records.get(_head(id))
        if found is None:
            raise JobRefused(f"there is no job {id}", hint="`shadow jobs list` names those that there are")
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
        """A range that is not done and that nobody is at work on; None if there is none now. `part` names whoever
        works on the job by itself: a process, or a task in one."""
        ranges = self._ranges(job, self._head(job).value["layout"])
        free = [each for each in ranges if not each.value["done"] and not self._is_held(each)]
        # Those that begin together shall not all ask for the same one.
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

    def advance(self, claim: RangeClaim, place: Document, counts: Mapping[str, int], issues: Sequence[Issue]) -> bool:
        """Notes what was done up to `place`. False: the range is another worker's now, and nothing was noted."""
        if issues:
            self._records.put_many({_issue(claim.job, each.key): _packed(each, claim.token) for each in issues})
        with claim.lock:
            counted, reasons = Counter(claim.value["counts"]), _plain(claim.value["reasons"])
            counted.update(counts)
            _add(reasons, _reasons(issues))
            done = self._write(claim, {"reached": place, "counts": dict(counted), "reasons": reasons})
        if done:
            claim.place = place
        else:
            self._take_back(claim, issues)
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
            # A write of before whose answer was lost leaves the token, or what was wanted.
            if found is None or found.value["token"] != claim.token:
                return found is not None and found.value == value
            claim.revision = found.revision
        claim.value, claim.revision, claim.written = value, revision, self._clock()
        return True

    # --- issues -------------------------------------------------------------------------------------------------

    def tried_again(self, job: int, keys: Sequence[Key], counts: Mapping[str, int], issues: Sequence[Issue]) -> None:
        """What came of keys that were issues, when the ranges were done: some still are, the others are none any more,
        and `counts` of them are added."""
        self._records.put_many({_issue(job, each.key): _packed(each, "") for each in issues})

        def add(head: dict[str, Any]) -> bool:
            head["after"] = dict(Counter(head.get("after", {})) + Counter(counts))
            return True

        if counts:
            self._change(job, add)
        still = {key_digest(each.key) for each in issues}
        for key in keys:
            if key_digest(key) not in still:
                self._records.delete(_issue(job, key))

    def _take_back(self, claim: RangeClaim, issues: Sequence[Issue]) -> None:
        """Issues of a batch that did not count, unless whoever has the range now came upon them too."""
        for each in issues:
            found = self._records.get(_issue(claim.job, each.key))
            if found is not None and found.value["by"] == claim.token:
                self._records.delete(found.key, expected=found.revision)

    def issues(self, job: int) -> Iterator[list[Issue]]:
        """The issues of a job, some at a time."""
        after = ""
        while page := self._records.scan(f"issue/{job:010}/", after=after, limit=_PAGE):
            after = page[-1].key
            yield [_unpacked(each.value) for each in page]

    def count_issues(self, job: int) -> Job:
        """Counts the issues of a job whose ranges are done one by one, so that none counts twice."""
        reasons: Reasons = {}
        for page in self.issues(job):
            _add(reasons, _reasons(page))

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


def _issue(job: int, key: Key) -> str:
    return f"issue/{job:010}/{key_digest(key)}"


def _packed(issue: Issue, by: str) -> dict[str, Any]:
    states = {"primary": issue.primary_state, "secondary": issue.secondary_state}
    return {"key": issue.key, "kind": issue.kind, "reason": issue.reason, "by": by, **states}


def _unpacked(value: Mapping[str, Any]) -> Issue:
    return Issue(value["key"], value["kind"], value["reason"], value["primary"], value["secondary"])


def _reasons(issues: Sequence[Issue]) -> Reasons:
    found: Reasons = {}
    for each in issues:
        _add(found, {each.kind: {each.reason: 1}})
    return found


def _add(to: Reasons, more: Mapping[str, Mapping[str, int]]) -> None:
    for kind, reasons in more.items():
        counts = to.setdefault(kind, {})
        for reason, count in reasons.items():
            counts[reason] = counts.get(reason, 0) + count


def _plain(reasons: Mapping[str, Mapping[str, int]]) -> Reasons:
    return {kind: dict(each) for kind, each in reasons.items()}


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `JobRefused` if an unfinished job cannot be gone on with."""
    parts = {"fingerprint": "the configuration", "format": "the format of checkpoints", "options": "the options"}
    changed = [said for part, said in parts.items() if found[part] != wanted[part]]
    if found["kind"] in _PROVING and found.get("epoch", "") != wanted["epoch"]:
        changed.append("the epoch of dual writes")
    if changed:
        raise JobRefused(
            f"{found['kind']} of {found['collection']}: there is one that has not ended, and {' and '.join(changed)} "
            "changed since",
            hint="go on with it as it was, or give it up and begin anew with --restart",
        )
