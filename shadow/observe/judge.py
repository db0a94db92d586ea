"""Is it safe to flip, and what is the one thing to look at? Told from what `/status` says, and from nothing else.

A figure that is missing, or that rests on nothing, is never good news: what was not compared is not equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["ENOUGH", "Gate", "gates", "judge"]

ENOUGH: Final = 1000
"""Comparisons with a verdict, since the application started, below which a rate of zero says little."""

OLD: Final = 60.0
"""Seconds that an intent may be open before the journal counts as behind."""

MOST_SHED: Final = 0.1
"""The share of shadow reads that may be shed."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of one collection. `said` is the figure beside its limit; `look_at` what to do if it fails."""

    collection: str
    name: str
    ok: bool
    said: str
    look_at: str = ""


def judge(status: Mapping[str, Any], more: Iterable[Gate] = ()) -> dict[str, Any]:
    """JSON-able: {"safe": bool, "look_at": text, "collections": {name: bool}, "gates": [gate]}.

    `more`: gates that others answer for. `safe` holds when every gate of every collection does. `look_at` is about the
    failed gate that weighs most.
    """
    found = [*gates(status), *more]
    failed = sorted((gate for gate in found if not gate.ok), key=lambda gate: _ORDER.index(gate.name))
    names = dict.fromkeys(gate.collection for gate in found)
    return {
        "safe": bool(found) and not failed,
        "look_at": failed[0].look_at if failed else ("" if found else "no collection is configured"),
        "collections": {name: not any(gate.collection == name for gate in failed) for name in names},
        "gates": [asdict(gate) for gate in found],
    }


def gates(status: Mapping[str, Any]) -> Iterator[Gate]:
    """Every condition of every configured collection."""
    for name, route in status["collections"].items():
        yield _secondary(status, name, route)
        yield _findings(status, name)
        yield _verified(status, name)
        yield _bypassed(status, name)
        yield _working(status, name)
        yield _journal(status, name)
        yield _phase(name, route)
        yield from _compared(status, name)


_ORDER: Final = (
    "secondary",
    "findings",
    "comparison works",
    "journal",
    "verified",
    "copied",
    "equal",
    "writers",
    "phase",
    "compared",
    "shed",
)


def _secondary(status: Mapping[str, Any], name: str, route: Mapping[str, Any]) -> Gate:
    down = [store for store, each in status["stores"].items() if store != route["primary"] and not each["up"]]
    said = f"{', '.join(down)} is taken to be down" if down else "up"
    return Gate(name, "secondary", not down, said, f"the secondary of {name} does not answer")


def _findings(status: Mapping[str, Any], name: str) -> Gate:
    count = status["findings"].get("open_by_collection", {}).get(name, 0)
    look = f"{count} documents or answers of {name} differ: shadow findings list --collection {name}"
    return Gate(name, "findings", count == 0, f"{count} open", look)


def _working(status: Mapping[str, Any], name: str) -> Gate:
    said = status.get("comparison", {}).get(name)
    if said is None:
        look = f"nothing shows that differences in {name} would be found"
        return Gate(name, "comparison works", False, "not watched by planted differences", look)
    works = bool(said["working"])
    look = f"planted differences in {name} are not found: the comparison does not work"
    return Gate(name, "comparison works", works, "planted differences are found" if works else "not found", look)


def _journal(status: Mapping[str, Any], name: str) -> Gate:
    journal = status["journal"]
    count = journal["open"].get(name, 0) + journal["deferred"].get(name, 0)
    oldest = journal["oldest_seconds"] if count else 0.0
    said = f"{count} open, the oldest {oldest:.0f} s (at most {OLD:.0f} s)"
    look = f"writes of {name} have not reached the secondary: see the journal"
    return Gate(name, "journal", oldest <= OLD, said, look)


def _verified(status: Mapping[str, Any], name: str) -> Gate:
    since = status["journal"].get("verify_since", {}).get(name)
    said = f"not since {since}" if since else "nothing is known to be lost"
    return Gate(name, "verified", not since, said, f"{name} wants to be verified: intents may have been lost")


def _bypassed(status: Mapping[str, Any], name: str) -> Gate:
    count = int(_number(status.get("bypassing", {}).get(name, 0)))
    look = f"{name} is written past shadow: find the writer"
    return Gate(name, "writers", count == 0, f"{count} writes past shadow", look)


def _number(value: Any) -> float:
    return float(value.get("count", 0) if isinstance(value, Mapping) else value)


def _phase(name: str, route: Mapping[str, Any]) -> Gate:
    share = route["shadow_reads"]
    look = f"{name} is in phase {route['phase']} with shadow_reads at {share:g}: nothing is compared"
    compares = route["phase"] == "shadow" and share > 0
    return Gate(name, "phase", compares, f"{route['phase']}, {share:.0%} of the reads", look)


def _compared(status: Mapping[str, Any], name: str) -> Iterator[Gate]:
    verdicts: Mapping[str, int] = status["totals"].get("collections", {}).get(name, {})
    decided = sum(verdicts.get(each, 0) for each in ("match", "excused", "mismatch"))
    shed = verdicts.get("shed", 0)
    share = shed / (decided + shed) if shed else 0.0
    look = f"only {decided} comparisons of {name} yet: more traffic, or a higher shadow_reads"
    yield Gate(name, "compared", decided >= ENOUGH, f"{decided} with a verdict (at least {ENOUGH})", look)
    look = f"{share:.0%} of the shadow reads of {name} are shed: see the reasons under shed"
    yield Gate(name, "shed", share <= MOST_SHED, f"{share:.1%} (at most {MOST_SHED:.0%})", look)
