"""The guards of a ramp and of a watched flip: conditions on the figures of all processes together.

A guard holds, is broken, or is not known; unknown is never good news, and never a reason to step back either: a ramp
waits then. Whoever decides gives the rows of processes that were heard of lately.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shadow.control.members import Member
from shadow.model.guards import GuardLimits, quantile
from shadow.model.health import CollectionHealth, GuardHealth

__all__ = ["Guard", "figures_of", "ramp_guards", "unheard", "watch_guards"]


@dataclass(frozen=True, slots=True)
class Guard:
    """`holds`: None if it is not known. `said`: the figure with its limit."""

    name: str
    holds: bool | None
    said: str


def figures_of(guards: Iterable[Guard]) -> dict[str, str]:
    """For receipts and hooks: the figures by name."""
    return {each.name: each.said for each in guards}


def ramp_guards(
    health: Sequence[CollectionHealth], limits: GuardLimits, *, share: float, number: int, plan: str
) -> list[Guard]:
    """The guards of a ramp at `share`, which is step `number` of its record. `health`: of the collection, in every
    process of the application."""
    counted = [each.guards for each in health if each.guards is not None and each.guards.number == number]
    guards = [
        _in_step(health, number, plan),
        _answers(health),
        _works(health),
        _mismatches(counted, limits),
        _throttled(counted, limits),
    ]
    if share:
        failed = _rate(counted, "routed_failed", "routed"), _rate(counted, "asked_failed", "asked")
        guards.append(_errors(*failed, sum(each.routed for each in counted), limits, "routed reads"))
        guards.append(_slower(_times(counted, "routed_times"), _times(counted, "primary_times"), limits))
    return guards


def watch_guards(health: Sequence[CollectionHealth], limits: GuardLimits, *, epoch: int, plan: str) -> list[Guard]:
    """The guards of a watched flip, of one collection: the store that is the primary now against the one that was it
    before, over the whole traffic. `epoch`: of the route that the flip has made; `plan`: names the window. `health` as
    for `ramp_guards`."""
    of_it = [each.guards for each in health if each.guards is not None]
    counted = [each for each in of_it if (each.number, each.plan) == (epoch, plan)]
    answers = _answers(health)
    works = _works(health)
    if not answers.holds:
        # The old primary is down: that says nothing about the new one, and nothing can be compared.
        answers, works = (dataclasses.replace(each, holds=None) for each in (answers, works))
    failed = _rate(counted, "asked_failed", "asked"), _rate(counted, "followed_failed", "followed")
    return [
        _reported(health, len(counted)),
        answers,
        works,
        _mismatches(counted, limits),
        _throttled(counted, limits),
        _errors(*failed, sum(each.asked for each in counted), limits, "requests"),
        _refused(counted, limits),
        _slower_of_both(counted, limits),
    ]


def unheard(rows: Iterable[Member]) -> Guard:
    """Beside the guards while some process was not heard of lately."""
    names = ", ".join(row.name for row in rows)
    return Guard("processes", None, f"not heard of lately: {names}")


def _in_step(health: Sequence[CollectionHealth], number: int, plan: str | None) -> Guard:
    if not health:
        return Guard("processes", None, "no process of the application is registered")
    plans = {each.guards.plan for each in health if each.guards is not None}
    late = sum(each.guards is None or each.guards.number != number for each in health)
    if plan is not None and plans - {plan}:
        return Guard("processes", None, "their configuration files have different ramps")
    if late:
        return Guard("processes", None, f"{late} of {len(health)} do not report figures of this step yet")
    return Guard("processes", True, f"{len(health)}, all at this step")


def _reported(health: Sequence[CollectionHealth], count: int) -> Guard:
    if not health:
        return Guard("processes", None, "no process of the application is registered")
    if count < len(health):
        late = len(health) - count
        return Guard("processes", None, f"{late} of {len(health)} do not report figures of this window yet")
    return Guard("processes", True, f"{count}, all in this window")


def _answers(health: Sequence[CollectionHealth]) -> Guard:
    down = sorted({str(store) for each in health if each.secondary is not None for store in each.secondary.down})
    return Guard("secondary", not down, f"{', '.join(down)} counts as down" if down else "up")


def _works(health: Sequence[CollectionHealth]) -> Guard:
    found = [each.comparison for each in health]
    if any(each is not None and each.planted and not each.works and not each.undecided for each in found):
        return Guard("comparison works", False, "planted differences are not found")
    if not found or any(each is None or not each.planted or not each.works for each in found):
        return Guard("comparison works", None, "no differences are planted yet")
    return Guard("comparison works", True, "planted differences are found")


def _mismatches(counted: Sequence[GuardHealth], limits: GuardLimits) -> Guard:
    matched, differing = sum(each.matched for each in counted), sum(each.differing for each in counted)
    # A handful of comparisons of the primary with itself says nothing about its noise.
    noise = _rate(counted, "noisy", "noise") if sum(each.noise for each in counted) >= limits.at_least else 0.0
    rate, most = differing / matched if matched else 0.0, noise + limits.mismatches
    said = f"{differing} of {matched} comparisons ({rate:.2%}), at most {most:.2%} with the noise of {noise:.2%}"
    # One difference between few comparisons is far above every limit, and would be in a million as well.
    broken = rate > most and (matched >= limits.at_least or differing > 1)
    return Guard("mismatches", _of(broken, matched, limits), said)


def _throttled(counted: Sequence[GuardHealth], limits: GuardLimits) -> Guard:
    throttled, requests = sum(each.throttled for each in counted), sum(each.requests for each in counted)
    share = throttled / max(throttled, requests, 1)
    said = f"{throttled} of {requests} requests to dynamo ({share:.2%}), at most {limits.throttled:.2%}"
    broken = share > limits.throttled and max(throttled, requests) >= limits.at_least
    # No requests, no throttling: the other guards say whether there is enough traffic.
    return Guard("throttled", not broken, said)


def _errors(failed: float, other: float, count: int, limits: GuardLimits, what: str) -> Guard:
    most = other + limits.errors
    said = f"{failed:.2%} of {count} {what} failed, at most {most:.2%}"
    return Guard("errors", _of(failed > most and count >= limits.at_least, count, limits), said)


def _refused(counted: Sequence[GuardHealth], limits: GuardLimits) -> Guard:
    """The old primary has refused none of them, so nothing is allowed for it."""
    refused, operators = sum(each.unsupported for each in counted), Counter[str]()
    for each in counted:
        for text in each.unsupported_for:
            count, _, operator = text.partition(" ")
            operators[operator] += int(count) if count.isdecimal() else 0
    calls = refused + sum(each.asked for each in counted)
    share = refused / max(1, calls)
    said = f"{refused} of {calls} calls ({share:.2%}) are not supported, at most {limits.errors:.2%}"
    if operators:
        said += ": " + ", ".join(f"{operator} {count}" for operator, count in operators.most_common())
    return Guard("refused", _of(share > limits.errors and calls >= limits.at_least, calls, limits), said)


def _slower(own: tuple[int, ...], other: tuple[int, ...], limits: GuardLimits) -> Guard:
    if not limits.slower:
        return Guard("slower", True, "switched off")
    ours, theirs = quantile(own, 0.95), quantile(other, 0.95)
    said = f"p95 {ours * 1000:.1f} ms to {theirs * 1000:.1f} ms, at most {limits.slower:g} times"
    count = min(sum(own), sum(other))
    return Guard("slower", _of(count >= limits.at_least and ours > limits.slower * theirs, count, limits), said)


def _slower_of_both(counted: Sequence[GuardHealth], limits: GuardLimits) -> Guard:
    """Reads that both stores were asked, and writes of one document. One of both kinds is enough to know."""
    if not limits.slower:
        return Guard("slower", True, "switched off")
    found = {
        "reads": _slower(_times(counted, "paired_times"), _times(counted, "paired_secondary_times"), limits),
        "writes": _slower(_times(counted, "single_writes"), _times(counted, "secondary_single_writes"), limits),
    }
    said = "; ".join(f"{kind}: {each.said}" for kind, each in found.items())
    states = {each.holds for each in found.values()}
    return Guard("slower", False if False in states else True if True in states else None, said)


def _of(broken: bool, count: int, limits: GuardLimits) -> bool | None:
    return False if broken else True if count >= limits.at_least else None


def _rate(counted: Sequence[GuardHealth], part: str, whole: str) -> float:
    parts = sum(int(getattr(each, part)) for each in counted)
    return parts / max(1, sum(int(getattr(each, whole)) for each in counted))


def _times(counted: Sequence[GuardHealth], name: str) -> tuple[int, ...]:
    """Without those of older versions, which do not count all of them."""
    return tuple(map(sum, zip(*(found for each in counted if (found := getattr(each, name))), strict=True)))
