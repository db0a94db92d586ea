"""Is it safe to flip, and what is the one thing to look at? Told from what `/status` says, and from nothing else.

A figure that is missing, or that rests on nothing, is never good news: what was not compared is not equal.

Each process draws its `figures` from its status; `gates_of` judges those of one process or of a whole fleet: what was
compared and shed is added up, everything else has to hold in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

__all__ = ["ENOUGH", "Gate", "figures", "gates_of", "judge", "verdict"]

ENOUGH: Final = 1000
"""Comparisons with a verdict, of late and as the collection is routed now, below which a rate of zero says little."""

OLD: Final = 60.0
"""Seconds that an intent may be open before the journal counts as behind."""

MOST_SHED: Final = 0.1
"""The share of shadow reads that may be shed."""

Figures: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""Of one process, by collection: what `figures` gives."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of one collection. `said` is the figure beside its limit; `look_at` what to do if it fails."""

    collection: str
    name: str
    ok: bool
    said: str
    look_at: str = ""


def judge(status: Mapping[str, Any], more: Iterable[Gate] = ()) -> dict[str, Any]:
    """The verdict over one process. `more`: gates that others answer for."""
    return verdict([*gates_of([figures(status)]), *more])


def verdict(found: Sequence[Gate]) -> dict[str, Any]:
    """JSON-able: {"safe": bool, "look_at": text, "collections": {name: bool}, "gates": [gate]}.

    `safe` holds when every gate of every collection does. `look_at` is about the failed gate that weighs most.
    """
    failed = sorted((gate for gate in found if not gate.ok), key=_weight)
    names = dict.fromkeys(gate.collection for gate in found)
    return {
        "safe": bool(found) and not failed,
        "look_at": failed[0].look_at if failed else ("" if found else "no collection is configured"),
        "collections": {name: not any(gate.collection == name for gate in failed) for name in names},
        "gates": [asdict(gate) for gate in found],
    }


_ORDER: Final = (
    "processes",
    "secondary",
    "findings",
    "comparison works",
    "journal",
    "verified",
    "copied",
    "equal",
    "way back",
    "writers",
    "phase",
    "compared",
    "shed",
)


def _weight(gate: Gate) -> int:
    return _ORDER.index(gate.name) if gate.name in _ORDER else len(_ORDER)


# --- the figures of one process -------------------------------------------------------------------------------------


def figures(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the gates need to know of this process, by collection, as JSON and BSON can hold it.

    Shape: {name: {"primary": store, "phase": phase, "shadow_reads": share, "down": [secondary stores], "findings": open
    ones, "kept": host and file of theirs, "works": whether planted differences are found, "planted": whether any are,
    "waiting": entries of the journal, "refused": those of them that the secondary refuses to hold, "oldest": seconds,
    "read": whether the journal could be asked just now, "unverified": since when or "", "bypassing": writes past
    shadow, "compared": n, "shed": n, "seconds": looked back on for these two}}. What is unknown is absent.
    """
    return {name: _figures(status, name, route) for name, route in status["collections"].items()}


def _figures(status: Mapping[str, Any], name: str, route: Mapping[str, Any]) -> dict[str, Any]:
    journal = status["journal"]
    waiting = journal["open"].get(name, 0) + journal["deferred"].get(name, 0)
    said = status.get("comparison", {}).get(name)
    return {
        "primary": route["primary"],
        "phase": route["phase"],
        "shadow_reads": route["shadow_reads"],
        "down": [store for store, each in status["stores"].items() if store != route["primary"] and not each["up"]],
        "findings": status["findings"].get("open_by_collection", {}).get(name, 0),
        "kept": status["findings"].get("kept", ""),
        "planted": said is not None,
        "works": said is not None and bool(said["working"]),
        "waiting": waiting,
        "refused": journal.get("refused", {}).get(name, 0),
        "oldest": journal["oldest_seconds"] if waiting else 0.0,
        "read": journal.get("state") == "ok",
        "unverified": journal.get("verify_since", {}).get(name, ""),
        "bypassing": _number(status.get("bypassing", {}).get(name, 0)),
        **status["totals"].get("recent", {}).get(name, {}),
    }


def _number(value: Any) -> int:
    return int(value.get("count", 0) if isinstance(value, Mapping) else value)


# --- the gates of one process or of many ----------------------------------------------------------------------------


def gates_of(processes: Sequence[Figures]) -> Iterator[Gate]:
    """Every condition of every collection that any of the processes has. Raises nothing: what a process does not say
    closes the gate that would need it."""
    for name in dict.fromkeys(name for each in processes for name in each):
        said = [each.get(name, {}) for each in processes]
        for gate, condition in _CONDITIONS:
            try:
                yield condition(name, said)
            except (KeyError, TypeError, ValueError, AttributeError):
                look = f"not every process says what the gate {gate} of {name} needs"
                yield Gate(name, gate, False, f"not known of all of {_processes(len(said))}", look)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


_Said: TypeAlias = "Sequence[Mapping[str, Any]]"


def _secondary(name: str, said: _Said) -> Gate:
    down = sorted({store for each in said for store in each["down"]})
    text = f"{', '.join(down)} is taken to be down" if down else "up"
    return Gate(name, "secondary", not down, text, f"the secondary of {name} does not answer")


def _works(said: _Said) -> bool:
    return all(each["planted"] and each["works"] is True for each in said)


_NOTHING_SAID: Final = "0, which says nothing: planted differences are not found"


def _look_at_comparison(name: str) -> str:
    return f"planted differences in {name} are not found: the comparison does not work"


def _findings(name: str, said: _Said) -> Gate:
    # The processes of a host keep them together, so a sum would count the same ones again.
    count = max(int(each["findings"]) for each in said)
    kept = sorted({str(each["kept"]) for each in said if each["findings"] and each.get("kept")})
    look = f"open findings in {name}: {count}; shadow findings list --collection {name}"
    if kept:
        # A verification closes those of the host that it runs on.
        look += f"; kept on {', '.join(kept)}: `shadow verify {name}` there closes those that are no more"
    if count == 0 and not _works(said):
        return Gate(name, "findings", False, _NOTHING_SAID, _look_at_comparison(name))
    return Gate(name, "findings", count == 0, f"{count} open", look)


def _working(name: str, said: _Said) -> Gate:
    if not all(each["planted"] for each in said):
        look = f"nothing shows that differences in {name} would be found"
        return Gate(name, "comparison works", False, "not watched by planted differences", look)
    works = _works(said)
    text = "planted differences are found" if works else "not found"
    return Gate(name, "comparison works", works, text, _look_at_comparison(name))


def _journal(name: str, said: _Said) -> Gate:
    count, oldest = max(int(each["waiting"]) for each in said), max(float(each["oldest"]) for each in said)
    text = f"{count} open, the oldest {oldest:.0f} s (at most {OLD:.0f} s)"
    look = f"writes of {name} have not reached the secondary: see the journal"
    if not all(each["read"] is True for each in said):
        return Gate(name, "journal", False, "it cannot be asked", f"the journal cannot be asked what of {name} waits")
    refused = max(int(each["refused"]) for each in said)
    if refused:
        text = f"{refused} of {count} open can never reach the secondary as they are: it refuses to hold them"
        look = (
            f"the secondary refuses {refused} documents of {name}: shadow journal list --collection {name} "
            "names them and says what to change in the primary"
        )
        return Gate(name, "journal", False, text, look)
    return Gate(name, "journal", oldest <= OLD, text, look)


def _verified(name: str, said: _Said) -> Gate:
    since = min((text for each in said if (text := each["unverified"].strip())), default="")
    text = f"not since {since}" if since else "nothing is known to be lost"
    return Gate(name, "verified", not since, text, f"{name} wants to be verified: intents may have been lost")


def _bypassed(name: str, said: _Said) -> Gate:
    count = sum(int(each["bypassing"]) for each in said)
    look = f"{name} is written past shadow: find the writer"
    if count == 0 and not _works(said):
        return Gate(name, "writers", False, _NOTHING_SAID, _look_at_comparison(name))
    return Gate(name, "writers", count == 0, f"writes past shadow: {count}", look)


def _phase(name: str, said: _Said) -> Gate:
    least = min(said, key=lambda each: (each["phase"] == "shadow", each["shadow_reads"]))
    phase, share = least["phase"], float(least["shadow_reads"])
    look = f"{name} is in phase {phase} with shadow_reads at {share:g}: nothing is compared"
    if len({each["primary"] for each in said}) > 1:
        return Gate(name, "phase", False, "processes have different primaries", f"{name}: processes disagree")
    return Gate(name, "phase", phase == "shadow" and share > 0, f"{phase}, {share:.0%} of the reads", look)


def _recent(said: _Said) -> tuple[int, int, str]:
    """Compared and shed in all processes, and within what time."""
    compared, shed = (sum(int(each[name]) for each in said) for name in ("compared", "shed"))
    minutes = max(float(each["seconds"]) for each in said) / 60
    return compared, shed, f"the last {minutes:.0f} min" if minutes >= 1 else "less than a minute"


def _compared(name: str, said: _Said) -> Gate:
    compared, _, lately = _recent(said)
    look = f"too few comparisons of {name}, {compared} in {lately}: more traffic, or a higher shadow_reads"
    text = f"{compared} with a verdict in {lately} (at least {ENOUGH})"
    return Gate(name, "compared", compared >= ENOUGH, text, look)


def _shed(name: str, said: _Said) -> Gate:
    compared, shed, lately = _recent(said)
    if not compared + shed:
        look = f"no read of {name} was compared in {lately}"
        return Gate(name, "shed", False, f"nothing was asked of the secondary in {lately}", look)
    share = shed / (compared + shed)
    look = f"{share:.0%} of the shadow reads of {name} are shed: see the reasons under shed"
    return Gate(name, "shed", share <= MOST_SHED, f"{share:.1%} in {lately} (at most {MOST_SHED:.0%})", look)


_CONDITIONS: Final[tuple[tuple[str, Callable[[str, _Said], Gate]], ...]] = (
    ("secondary", _secondary),
    ("findings", _findings),
    ("verified", _verified),
    ("writers", _bypassed),
    ("comparison works", _working),
    ("journal", _journal),
    ("phase", _phase),
    ("compared", _compared),
    ("shed", _shed),
)
