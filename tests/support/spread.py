"""Deals the tests out to the processes of `pytest -n`: what takes longest begins first, so that the run ends short.

A unit of work is a file, or a part of a long file, whose tests share what is made for a module; each case of a long
test is one by itself. A process that is nearly through with its units takes the next one. What they took in an earlier
run is in `durations.json`; a file that is not in it counts by its tests. To measure again, from the log of a run with
`--durations=0 -vv`:

    python -m tests.support.spread LOG
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["LongestFirst", "in_order", "measured", "took", "units"]

_KEPT: Final = Path(__file__).with_name("durations.json")
_LONG: Final = 8.0
"""Mean seconds of a test's cases from which each of them is a unit."""
_PART: Final = 60.0
"""Seconds of a file from which it is cut."""
_UNKNOWN: Final = 0.3
"""Seconds that a test counts for in a file that was never measured."""
_LINE: Final = re.compile(r"([0-9.]+)s (call|setup|teardown) +(\S+?)::(\w+)")


def measured(log: Iterable[str]) -> dict[str, float]:
    """Seconds by test of those that are long (`file::test`, one case of it), and by file of its other tests."""
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    lines: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for line in log:
        if found := _LINE.match(line):
            key = found[3], found[4]
            sums[key] += float(found[1])
            lines[key][found[2]] += 1
    kept: defaultdict[str, float] = defaultdict(float)
    for (path, test), seconds in sums.items():
        mean = seconds / max(lines[path, test].values())  # a phase that took no time has no line
        if mean >= _LONG:
            kept[f"{path}::{test}"] = mean
        else:
            kept[path] += seconds
    return {key: round(seconds) for key, seconds in sorted(kept.items()) if seconds >= 1}


def units(tests: Iterable[str], known: Mapping[str, float]) -> dict[str, list[str]]:
    """The units of these tests by name, longest first. `tests`: node ids in their order."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    made: dict[str, tuple[float, list[str]]] = {}
    for test in tests:
        if (seconds := known.get(test.partition("[")[0])) is not None:
            made[test] = seconds, [test]
        else:
            files[test.partition("::")[0]].append(test)
    for path, those in files.items():
        seconds = known.get(path, _UNKNOWN * len(those))
        parts = min(max(1, round(seconds / _PART)), len(those))
        for number in range(parts):
            part = those[len(those) * number // parts : len(those) * (number + 1) // parts]
            made[f"{path} {number}"] = seconds / parts, part
    return {name: those for name, (_, those) in sorted(made.items(), key=lambda each: -each[1][0])}


def took() -> dict[str, float]:
    """What was measured."""
    kept: dict[str, float] = json.loads(_KEPT.read_text())
    return kept


def in_order(tests: Sequence[str]) -> dict[str, int]:
    """Test to its place, unit after unit."""
    ordered = [test for unit in units(tests, took()).values() for test in unit]
    return {test: place for place, test in enumerate(ordered)}


class LongestFirst(LoadScopeScheduling):
    """Deals out `units`, in the order in which the processes have put the tests by `in_order`."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._unit_of: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._unit_of:
            made = units(next(iter(self.registered_collections.values())), took())
            self._unit_of = {test: name for name, tests in made.items() for test in tests}
        return self._unit_of[nodeid]


if __name__ == "__main__":
    with Path(sys.argv[1]).open() as log:
        _KEPT.write_text(json.dumps(measured(log), indent=1) + "\n")
