"""Which tests a run has, and which have their turn in another one.

All that the suites could run takes an hour on two processors, so that nobody would wait for it. A run has all that is
short, and draws from its seed (`support.drawn`: the commit's, in CI) among

- tests with the marker `takes_turns`, which take long: one of three,
- the cases of a test, in the suites that take longest: one of three neighbours, or of two where there are no more.

So each of them runs with every second or third commit. `SHADOW_LONG=1` and `--all-drawn` have all of them, and so
has whoever names a test by its id or by `-k`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, TypeVar

import pytest

__all__ = ["for_another_run", "groups", "left"]

T = TypeVar("T")

_SUITES: Final = ("contract", "compat", "simulation", "faults", "races", "suites", "e2e")
"""Where a third of a test's cases is enough for a run."""
_TURNS: Final = 3
"""Of so many long tests, or neighbouring cases of a test, a run has one."""


def groups(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Neighbours, `size` at a time; the last ones may be fewer."""
    return (things[start : start + size] for start in range(0, len(things), size))


def left(chance: random.Random, groups: Iterable[Sequence[T]]) -> Iterator[T]:
    """All but one of each group."""
    for group in groups:
        chosen = chance.randrange(len(group))
        yield from (each for place, each in enumerate(group) if place != chosen)


def for_another_run(seed: int, items: Sequence[pytest.Item], known: Mapping[str, float]) -> set[pytest.Item]:
    """`known`: seconds by test (`support.spread`), so that every run takes about as long."""
    tests: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    long: list[pytest.Item] = []
    for item in items:
        if item.get_closest_marker("takes_turns") is not None:
            long.append(item)
        elif item.path.parent.name in _SUITES:
            tests[item.nodeid.partition("[")[0]].append(item)
    long.sort(key=lambda item: (-known.get(item.nodeid.partition("[")[0], 0.0), item.nodeid))
    cases = (groups(each, _TURNS) for each in tests.values())
    chance = random.Random(f"{seed}:turns")
    return {*left(chance, groups(long, _TURNS)), *left(chance, chain.from_iterable(cases))}
