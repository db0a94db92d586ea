"""Is a flip safe, and if not, what has to be fixed first? Each gate is a function of the health of a collection.

Unknown is never good news: data that was not compared is not equal.

`gates_of` decides for one process or for a whole fleet: compared and shed reads are added up, everything else must hold
in every process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from shadow.model.health import (
    CollectionHealth,
    ComparisonHealth,
    FindingsHealth,
    IndexHealth,
    JournalHealth,
    LatencyHealth,
    OutOfBandHealth,
    PortabilityHealth,
    RecentReads,
    RouteHealth,
    SecondaryHealth,
)
from shadow.model.latencies import Times, added, of_text, percentile, total
from shadow.model.phase import Phase

__all__ = ["ENOUGH", "Gate", "ProcessHealth", "Readiness", "gates_of"]

ENOUGH: Final = 1000
"""Recent comparisons with a verdict, as the collection is routed now, below which a rate of zero proves little."""

OLD: Final = 60.0
"""Seconds that an intent may be open before the journal counts as behind."""

MOST_SHED: Final = 0.1
"""The share of shadow reads that may be shed."""

QUIET: Final = 60.0
"""Seconds without a relayed out-of-band write before a flip: nothing relays one after it."""

BEHIND: Final = 10.0
"""Seconds that the relay of out-of-band writes may be behind."""

ProcessHealth: TypeAlias = "Mapping[str, CollectionHealth]"
"""The health of one process, by collection."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of one collection. `said` is the figure with its limit; `look_at` what to do if it fails."""

    collection: str
    name: str
    ok: bool
    said: str
    look_at: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The gates of every collection, and whether a flip is safe."""

    gates: tuple[Gate, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether every gate of every collection is open. Without gates, nothing is safe."""
        return bool(self.gates) and all(gate.ok for gate in self.gates)

    @property
    def look_at(self) -> str:
        """What to do about the most important closed gate; "" if all are open."""
        if not self.gates:
            return "no collection is configured"
        closed = sorted((gate for gate in self.gates if not gate.ok), key=_weight)
        return closed[0].look_at if closed else ""

    @property
    def collections(self) -> dict[str, bool]:
        """By collection: whether all its gates are open."""
        return {gate.collection: not self.closed(gate.collection) for gate in self.gates}

    def closed(self, collection: str) -> list[Gate]:
        return [gate for gate in self.gates if gate.collection == collection and not gate.ok]


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
    "writers after",
    "indexes",
    "portable",
    "phase",
    "compared",
    "shed",
    "fast enough",
)


def _weight(gate: Gate) -> int:
    return _ORDER.index(gate.name) if gate.name in _ORDER else len(_ORDER)


def gates_of(processes: Sequence[ProcessHealth]) -> Iterator[Gate]:
    """Every gate of every collection that any of the processes has. A process that does not report what a gate needs
    closes it."""
    for name in dict.fromkeys(name for each in processes for name in each):
        health = [each.get(name, CollectionHealth()) for each in processes]
        for gate, condition, *sections in _CONDITIONS:
            needed = [[getattr(each, section) for each in health] for section in sections]
            if any(section is None for each in needed for section in each):
                advice = f"not every process reports what the gate {gate} of {name} needs"
                yield Gate(name, gate, False, f"not known of all of {_processes(len(health))}", advice)
            else:
                yield condition(name, *needed)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _secondary(name: str, of: Sequence[SecondaryHealth]) -> Gate:
    down = sorted({store for each in of for store in each.down})
    text = f"{', '.join(down)} counts as down" if down else "up"
    return Gate(name, "secondary", not down, text, f"the secondary of {name} does not answer")


def _works(of: Sequence[ComparisonHealth]) -> bool:
    return all(each.planted and each.works for each in of)


_NOTHING_SAID: Final = "0, which proves nothing: planted differences are not found"


def _advice_for_comparison(name: str) -> str:
    return f"planted differences in {name} are not found: the comparison does not work"


def _findings(name: str, of: Sequence[FindingsHealth], comparison: Sequence[ComparisonHealth]) -> Gate:
    # The processes of a host keep them together, so a sum would count the same ones again.
    count = max(each.findings for each in of)
    kept = sorted({each.kept for each in of if each.findings and each.kept})
    advice = f"open findings in {name}: {count}; shadow findings list --collection {name}"
    if kept:
        # A verification closes those of the host that it runs on.
        advice += f"; kept on {', '.join(kept)}: `shadow verify {name}` there closes those that are no more"
    if count == 0 and not _works(comparison):
        return Gate(name, "findings", False, _NOTHING_SAID, _advice_for_comparison(name))
    return Gate(name, "findings", count == 0, f"{count} open", advice)


def _working(name: str, of: Sequence[ComparisonHealth]) -> Gate:
    if not all(each.planted for each in of):
        advice = f"nothing shows that differences in {name} would be found"
        return Gate(name, "comparison works", False, "no differences are planted", advice)
    works = _works(of)
    text = "planted differences are found" if works else "not found"
    return Gate(name, "comparison works", works, text, _advice_for_comparison(name))


def _journal(name: str, of: Sequence[JournalHealth]) -> Gate:
    count, oldest = max(each.waiting for each in of), max(each.oldest for each in of)
    text = f"{count} open, the oldest {oldest:.0f} s (at most {OLD:.0f} s)"
    if not all(each.read for each in of):
        advice = f"the journal does not answer, so it is unknown which writes of {name} wait in it"
        return Gate(name, "journal", False, "the journal does not answer", advice)
    refused = max(each.refused for each in of)
    if refused:
        text = f"{refused} of {count} open can never reach the secondary as they are: it refuses to hold them"
        advice = (
            f"the secondary refuses {refused} documents of {name}: shadow journal list --collection {name} "
            "names them and says what to change in the primary"
        )
        return Gate(name, "journal", False, text, advice)
    advice = f"writes of {name} have not reached the secondary: see the journal"
    return Gate(name, "journal", oldest <= OLD, text, advice)


def _verified(name: str, of: Sequence[JournalHealth]) -> Gate:
    since = min((text for each in of if (text := each.unverified.strip())), default="")
    text = f"not since {since}" if since else "nothing is known to be lost"
    return Gate(name, "verified", not since, text, f"writes of {name} may have been lost: shadow verify {name}")


def _out_of_band(name: str, of: Sequence[OutOfBandHealth], comparison: Sequence[ComparisonHealth]) -> Gate:
    count = sum(each.bypassing for each in of)
    advice = f"{name} is written past shadow: find the writer"
    relayed = [each for each in of if each.behind >= 0]
    if relayed:
        return _relayed(name, count, relayed)
    if count == 0 and not _works(comparison):
        return Gate(name, "writers", False, _NOTHING_SAID, _advice_for_comparison(name))
    return Gate(name, "writers", count == 0, f"out-of-band writes: {count}", advice)


def _relayed(name: str, count: int, of: Sequence[OutOfBandHealth]) -> Gate:
    """What was relayed closes nothing. A writer that is still active does: after the flip it would write to the
    secondary, which answers nobody."""
    unrelayed = sorted({each.unrelayed for each in of if each.unrelayed})
    if unrelayed:
        return Gate(name, "writers", False, f"not relayed: {unrelayed[0]}", f"{name}: {unrelayed[0]}")
    behind, last = max(each.behind for each in of), max(each.last for each in of)
    quiet = max(0.0, time.time() - last)
    total = max(each.relayed for each in of)
    text = f"{count} not relayed; {total} relayed"
    if last:
        text += f", the last {quiet:.0f} s ago (at least {QUIET:.0f} s)"
    text += f"; {behind:.1f} s behind (at most {BEHIND:.0f} s)"
    advice = f"{name} is written past shadow, to the store that does not answer, so nothing relays it: find the writer"
    if count == 0:
        advice = f"the relay of the out-of-band writers is {behind:.0f} s behind: see the log of {name}'s processes"
    if count == 0 and behind <= BEHIND:
        advice = f"an out-of-band writer is still active in {name}: move it to shadow, or stop it before the flip"
    return Gate(name, "writers", count == 0 and behind <= BEHIND and (not last or quiet >= QUIET), text, advice)


def _out_of_band_after(name: str, of: Sequence[OutOfBandHealth]) -> Gate:
    """Whether the store that is to be the primary tells its changes. A writer that nobody knows of shows itself when
    the old primary is gone, and then writes there."""
    if not any(each.behind >= 0 for each in of):
        return Gate(name, "writers after", True, "observe.follow_writers is off")
    untold = sorted({each.unrelayed_after for each in of if each.unrelayed_after})
    if not untold:
        return Gate(name, "writers after", True, "after a flip they would be relayed")
    advice = f"out-of-band writers of {name} would not be relayed after the flip: {untold[0]}"
    return Gate(name, "writers after", False, f"would not be relayed: {untold[0]}", advice)


def _indexes(name: str, of: Sequence[IndexHealth]) -> Gate:
    lost = sorted({index for each in of for index in each.indexes_lost})
    if lost:
        advice = (
            f"indexes of {name} without counterpart on DynamoDB: {', '.join(lost)}; `/status` says what each means: "
            "change what needs them, or name them in accept_lost_indexes"
        )
        return Gate(name, "indexes", False, f"{len(lost)} have no counterpart on DynamoDB", advice)
    if not all(each.indexes_known for each in of):
        advice = f"MongoDB does not tell which indexes {name} has: the user needs the right listIndexes"
        return Gate(name, "indexes", False, "not known", advice)
    return Gate(name, "indexes", True, "none is lost that is not acknowledged")


def _portable(name: str, of: Sequence[PortabilityHealth]) -> Gate:
    found = sorted({operator for each in of for operator in each.not_portable})
    advice = (
        f"{name} uses what DynamoDB does not support ({', '.join(found)}): change the application, or name it in "
        "accept_not_portable"
    )
    text = f"not portable yet: {', '.join(found)}" if found else "nothing was used that DynamoDB does not support"
    return Gate(name, "portable", not found, text, advice)


def _phase(name: str, of: Sequence[RouteHealth]) -> Gate:
    least = min(of, key=lambda each: (each.phase is Phase.SHADOW, each.shadow_reads))
    phase, share = least.phase, least.shadow_reads
    advice = f"{name} is in phase {phase} with shadow_reads at {share:g}: nothing is compared"
    if len({each.primary for each in of}) > 1:
        return Gate(name, "phase", False, "processes have different primaries", f"{name}: processes disagree")
    return Gate(name, "phase", phase is Phase.SHADOW and share > 0, f"{phase}, {share:.0%} of the reads", advice)


def _recent(of: Sequence[RecentReads]) -> tuple[int, int, str]:
    """The compared and shed reads of all processes, and their time span."""
    minutes = max(each.seconds for each in of) / 60
    lately = f"the last {minutes:.0f} min" if minutes >= 1 else "less than a minute"
    return sum(each.compared for each in of), sum(each.shed for each in of), lately


def _compared(name: str, of: Sequence[RecentReads]) -> Gate:
    compared, _, lately = _recent(of)
    advice = f"too few comparisons of {name}, {compared} in {lately}: more traffic, or a higher shadow_reads"
    text = f"{compared} with a verdict in {lately} (at least {ENOUGH})"
    return Gate(name, "compared", compared >= ENOUGH, text, advice)


def _shed(name: str, of: Sequence[RecentReads]) -> Gate:
    compared, shed, lately = _recent(of)
    if not compared + shed:
        advice = f"no read of {name} was compared in {lately}"
        return Gate(name, "shed", False, f"nothing was read from the secondary in {lately}", advice)
    share = shed / (compared + shed)
    advice = f"{share:.0%} of the shadow reads of {name} are shed: see the reasons under shed"
    return Gate(name, "shed", share <= MOST_SHED, f"{share:.1%} in {lately} (at most {MOST_SHED:.0%})", advice)


def _fast(name: str, of: Sequence[LatencyHealth]) -> Gate:
    limits = [each.slower for each in of if each.slower]
    if not limits:
        return Gate(name, "fast enough", True, "switched off")
    slow, told = [], []
    for family in ("read", "write"):
        primary, secondary = _of_both(of, f"{family}_times")
        count = min(total(primary), total(secondary))
        if count < ENOUGH:
            told.append(f"{family}s: not known, {count} in the last hour (at least {ENOUGH})")
            continue
        ours, theirs = percentile(secondary, 0.95), percentile(primary, 0.95)
        told.append(f"{family}s: p95 {ours * 1000:.1f} ms to {theirs * 1000:.1f} ms, {ours / theirs:.1f} times")
        if ours > min(limits) * theirs:
            slow.append(f"{family}s")
    advice = (
        f"the secondary is too slow for {' and '.join(slow)} of {name}: shadow status --latency names the queries; "
        "slower sets the limit"
    )
    # Open where it is not known: the gate `compared` asks for the traffic, and this one only for what it shows.
    return Gate(name, "fast enough", not slow, f"{'; '.join(told)} (at most {min(limits):g} times)", advice)


def _of_both(of: Sequence[LatencyHealth], field: str) -> tuple[Times, Times]:
    """The times of the primary and of the secondary, in all processes."""
    texts = [getattr(each, field) for each in of]
    primary, secondary = (added(of_text(each[place]) for each in texts) for place in (0, 1))
    return primary, secondary


_CONDITIONS: Final[tuple[tuple[Any, ...], ...]] = (
    ("secondary", _secondary, "secondary"),
    ("findings", _findings, "findings", "comparison"),
    ("verified", _verified, "journal"),
    ("writers", _out_of_band, "out_of_band", "comparison"),
    ("writers after", _out_of_band_after, "out_of_band"),
    ("comparison works", _working, "comparison"),
    ("journal", _journal, "journal"),
    ("indexes", _indexes, "indexes"),
    ("portable", _portable, "portability"),
    ("phase", _phase, "route"),
    ("compared", _compared, "recent"),
    ("shed", _shed, "recent"),
    ("fast enough", _fast, "latency"),
)
"""By name of the gate: its condition, and the sections of the health that it takes, of every process."""
