"""The results as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.bench.harness import Result

__all__ = ["HEADINGS", "as_json", "missed", "row", "table"]

HEADINGS: Final = ("bench", "what", "figure", "against", "ratio [min..max]", "microseconds", "budget", "met")


def row(result: Result) -> tuple[str, ...]:
    line = result.line
    budget = "" if line.budget is None else f"{'>=' if line.at_least else '<='} {line.budget:g}"
    met = {None: "", True: "yes", False: f"NO, shed {result.shed}" if result.shed else "NO"}[result.met]
    return (
        result.bench,
        line.name,
        line.metric,
        # A ratio that is to be large is the peer's time over ours.
        line.contender if line.at_least else line.base,
        f"{result.ratio:.2f} [{min(result.ratios):.2f}..{max(result.ratios):.2f}]",
        f"{_short(result.seconds[0])} / {_short(result.seconds[1])}",
        budget,
        met,
    )


def _short(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def table(results: Iterable[Result], *, headings: bool = True) -> str:
    """A Markdown table with a row for each result."""
    rows: list[Sequence[str]] = [row(each) for each in results]
    if headings:
        rows = [HEADINGS, tuple("---" for _ in HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in rows)


def missed(results: Iterable[Result]) -> list[str]:
    """The names of the budget lines that were not met."""
    return [f"{each.bench}: {each.line.name}" for each in results if each.met is False]


def as_json(results: Iterable[Result], *, command: str) -> str:
    machine: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    return json.dumps({"command": command, **machine, "lines": [each.as_json() for each in results]}, indent=2)
