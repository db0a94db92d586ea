"""The page: self-contained, for print too, no scripts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shadow.compare.rules import Rule, active
from shadow.evidence.model import Evidence, StoreTimes
from shadow.evidence.plots import comparisons, mismatches
from shadow.jobs.jobs import Job, reasons_of
from shadow.jobs.verify import summary
from shadow.markup import Child, Markup, join, tag
from shadow.model.compared import Compared, together
from shadow.model.latencies import QUANTILES, percentile, total
from shadow.report_page import section, shown_tiles, table, whole_page

__all__ = ["page"]

_DAY: Final = 24
_STATES: Final = {True: "open", False: "closed"}


def page(found: Evidence) -> str:
    context = found.context
    made = f"made {_moment(context.now)} by {context.by}; {found.primary} is the primary, epoch {found.epoch}"
    parts: tuple[tuple[str, Sequence[Child]], ...] = (
        ("Gates", [_gates(found)]),
        (f"What was compared in the last {context.days} days", _compared(found)),
        ("What comparison rules ignored", [_rules(found)]),
        ("Verifications", [_verifications(found)]),
        ("Backfills", [_backfills(found)]),
        ("Store against store", [_times(found)]),
        ("Flips, rehearsals, repairs: the receipts", [_receipts(found)]),
        ("Processes and versions", [_processes(found), _versions(found)]),
        ("Configuration", [tag("pre", context.settings)]),
    )
    return whole_page(
        f"shadow evidence: {found.collection}",
        tag("header", tag("h1", f"{found.collection}: evidence for a flip to {found.to}"), tag("p", made)),
        _verdict(found),
        tag("main", _tiles(found), *(section(title, *children) for title, children in parts)),
        tag("footer", "Names of fields, counts, times and reasons; no value of a document is on this page."),
    )


def _verdict(found: Evidence) -> Markup:
    closed = found.closed
    if not closed:
        return tag("div", tag("strong", f"Every gate is open: {len(found.gates)}"), class_="verdict good")
    text = f"{len(closed)} of {len(found.gates)} gates are closed: {', '.join(gate.name for gate in closed)}"
    return tag("div", tag("strong", text), class_="verdict bad")


def _tiles(found: Evidence) -> Markup:
    all_of_it = found.compared
    last = next((summary(job) for job in found.verifications if job.finished is not None), None)
    verified = ("never", "") if last is None else (last.outcome, _moment(last.finished))
    return shown_tiles((
        ("compared", f"{all_of_it.decided:,}", f"in {found.context.days} days, with a verdict"),
        ("mismatches", f"{all_of_it.differing:,}", _share(all_of_it.differing, all_of_it.decided)),
        ("noise", f"{all_of_it.noisy:,}", f"{_share(all_of_it.noisy, all_of_it.measured)} of {all_of_it.measured:,}"),
        ("last verification", *verified),
        ("processes", str(len(found.processes)), "that report themselves"),
    ))  # fmt: skip


def _gates(found: Evidence) -> Markup:
    rows: list[list[Child]] = [
        [
            _whole(each.name),
            _mark("open" if each.ok else "closed", good=each.ok),
            each.said,
            "" if each.ok else each.look_at,
        ]
        for each in sorted(found.gates, key=lambda gate: gate.ok)
    ]
    return table(["Gate", "State", "Figure", "What to do"], rows, "No process has reported anything.")


# --- comparisons ------------------------------------------------------------------------------------------------


def _compared(found: Evidence) -> list[Child]:
    last = int(found.context.now) // 3600
    first = last - found.context.days * _DAY + 1
    plots = tag("div", comparisons(found.hours, first, last), mismatches(found.hours, first, last), class_="plots wide")
    note = "By day, UTC. Each process writes its counts every five minutes; the rates have the verdicts as denominator."
    head = ["Day", "Compared", "Equal", "Equal by a rule", "Mismatches", "Rate", "Noise", "Undecided", "Shed"]
    days: dict[str, list[Compared]] = {}
    for hour, each in found.hours.items():
        days.setdefault(_moment(hour * 3600)[:10], []).append(each)
    rows = [_day(day, together(each)) for day, each in sorted(days.items(), reverse=True)]
    return [plots, table(head, rows, "Nothing was compared."), tag("p", note, class_="quiet")]


def _day(day: str, found: Compared) -> list[Child]:
    counts = found.verdicts
    undecided = sum(counts.get(each, 0) for each in ("transient", "lagging", "incomparable"))
    return [
        day,
        f"{found.decided:,}",
        f"{counts.get('match', 0):,}",
        f"{counts.get('excused', 0):,}",
        f"{found.differing:,}",
        _share(found.differing, found.decided),
        f"{_share(found.noisy, found.measured)} of {found.measured:,}",
        f"{undecided:,}",
        f"{counts.get('shed', 0):,}",
    ]


def _rules(found: Evidence) -> Markup:
    counts, now = found.compared.rules, dt.datetime.fromtimestamp(found.context.now, dt.UTC).date()
    rows: list[list[Child]] = [_rule(each, counts, now) for each in found.context.rules]
    gone = sorted(set(counts) - {each.name for each in found.context.rules})
    rows += [[name, "no longer configured", "-", "-", f"{counts[name]:,}"] for name in gone]
    return table(["Rule", "Kind", "Path", "Holds until", "Ignored"], rows, "No comparison rule is configured.")


def _rule(rule: Rule, counts: Mapping[str, int], today: dt.date) -> list[Child]:
    ends = "for good" if rule.expires is None else rule.expires.isoformat()
    if not active([rule], today):
        ends = f"{ends}: it has expired"
    return [rule.name, rule.rule, tag("code", rule.path), ends, f"{counts.get(rule.name, 0):,}"]


# --- jobs -------------------------------------------------------------------------------------------------------


def _verifications(found: Evidence) -> Markup:
    head = ["Job", "Began", "Took", "Compared", "What", "Missing", "Extra", "Different", "Unreadable", "Undecided",
            "Outcome", "Counts now"]  # fmt: skip
    return table(head, [_verification(found, job) for job in found.verifications], "Never verified.")


def _verification(found: Evidence, job: Job) -> list[Child]:
    one = summary(job)
    what = f"{one.mode}, {one.sample:.0%}{', filtered' if one.filtered else ''}"
    figures = (one.missing, one.extra, one.different, one.unreadable, one.undecided)
    return [
        job.id,
        _moment(job.started),
        _whole(_took(job)),
        f"{one.compared:,}",
        what,
        *(f"{each:,}" for each in figures),
        _mark(one.outcome, good=one.clean),
        _counts(found, job),
    ]


def _backfills(found: Evidence) -> Markup:
    head = ["Job", "Began", "Took", "Seen", "Copied", "Present", "Not copied", "Outcome", "Counts now"]
    rows: list[list[Child]] = [
        [
            job.id,
            _moment(job.started),
            _whole(_took(job)),
            *(f"{job.counts.get(each, 0):,}" for each in ("seen", "copied", "present")),
            join(
                [f"{sum(job.issues.values()):,}", *(tag("code", f"{why}: {n}") for why, n in reasons_of(job).items())]
            ),
            _mark(job.outcome or "not ended", good=job.outcome == "complete"),
            _counts(found, job),
        ]
        for job in found.backfills
    ]
    return table(head, rows, "Never copied.")


def _not_copied(job: Job) -> Markup:
    return join((f"{sum(job.issues.values()):,}", *(tag("code", f"{why}: {n}") for why, n in reasons_of(job).items())))


def _counts(found: Evidence, job: Job) -> str:
    """Whether the job began in the current epoch of dual writes."""
    return "yes" if job.epoch and job.epoch == found.proof else "no: dual writes were interrupted since"


def _took(job: Job) -> str:
    return "-" if job.finished is None else str(dt.timedelta(seconds=round(job.finished - job.started)))


# --- latency, receipts, processes -------------------------------------------------------------------------------


def _times(found: Evidence) -> Markup:
    rows = [row for each in found.times for row in _both(found, each)]
    return table(["Operation", "Store", "Times", "p50", "p95", "p99"], rows, "Nothing was timed on both stores.")


def _both(found: Evidence, each: StoreTimes) -> list[list[Child]]:
    rows: list[list[Child]] = []
    for store, times in ((found.primary, each.primary), (found.to, each.secondary)):
        if total(times):
            shown = (f"{percentile(times, share) * 1000:.1f} ms" for share in QUANTILES)
            rows.append([each.what, str(store), f"{total(times):,}", *shown])
    if len(rows) == 2:
        ratios = (percentile(each.secondary, share) / (percentile(each.primary, share) or 1) for share in QUANTILES)
        rows.append([each.what, f"{found.to} to {found.primary}", "", *(f"{ratio:.1f} times" for ratio in ratios)])
    return rows


def _receipts(found: Evidence) -> Markup:
    head = ["Receipt", "At", "Kind", "By", "Ended", "Writes paused", "Reason, and gates that were closed"]
    return table(head, [_receipt(found, each) for each in found.receipts], "None yet.")


def _receipt(found: Evidence, each: Mapping[str, Any]) -> list[Child]:
    closed = [gate for collection, gate, ok, _ in each.get("gates", ()) if collection == found.collection and not ok]
    why = [str(each.get("reason") or each.get("said") or "")]
    if closed:
        why.append(f"{'forced past' if each.get('forced') else 'closed'}: {', '.join(closed)}")
    paused = max((each.get("held_seconds") or {}).values(), default=None)
    return [
        each["id"],
        _moment(each["at"]),
        each["kind"],
        str(each.get("by") or each.get("who") or "-"),
        "-" if "done" not in each else _mark("done" if each["done"] else "not done", good=bool(each["done"])),
        "-" if paused is None else f"{paused * 1000:.0f} ms at most",
        "; ".join(filter(None, why)) or "-",
    ]


def _processes(found: Evidence) -> Markup:
    rows: list[list[Child]] = []
    for row in found.processes:
        route = row.standing.get(found.collection)
        where = "does not have it" if route is None else f"{route.primary}, {route.phase}"
        rows.append([row.name, where, f"heartbeat {row.beat}"])
    return table(["Process", "Primary and phase", "Last sign"], rows, "No process is registered.")


def _versions(found: Evidence) -> Markup:
    shown = (join((tag("dt", name), tag("dd", version))) for name, version in found.context.versions.items())
    return tag("dl", *shown)


# --- words ------------------------------------------------------------------------------------------------------


def _mark(text: str, *, good: bool) -> Markup:
    return tag("span", text, class_=f"mark word {'good' if good else 'bad'}")


def _whole(text: str) -> Markup:
    """On one line."""
    return tag("span", text, class_="word")


def _share(some: int, of: int) -> str:
    return f"{some / of:.3%}" if of else "not measured"


def _moment(seconds: float | None) -> str:
    return "-" if seconds is None else f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
