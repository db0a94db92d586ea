"""Each test has its turn: with one of two or three seeds, and with none is anything run that another run would not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.turns import for_another_run, groups

SEEDS = range(40)


def a_test(name: str, suite: str = "contract", *, long: bool = False) -> Any:
    mark = pytest.mark.takes_turns.mark if long else None
    return SimpleNamespace(
        nodeid=f"tests/{suite}/test_a.py::{name}",
        path=Path(f"/anywhere/{suite}/test_a.py"),
        get_closest_marker={"takes_turns": mark}.get,
    )


def run_of(seed: int, items: list[Any], known: dict[str, float] | None = None) -> list[str]:
    left = for_another_run(seed, items, known or {})
    return [each.nodeid.rpartition("::")[2] for each in items if each not in left]


class Hashable(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


def hashable(items: list[Any]) -> list[Any]:
    return [Hashable(**vars(each)) for each in items]


def test_of_many_cases_a_run_has_one_of_three_neighbours_and_every_case_has_its_turn() -> None:
    items = hashable([a_test(f"test_many[{number}]") for number in range(14)])
    runs = [run_of(seed, items) for seed in SEEDS]
    assert {len(each) for each in runs} == {5}
    assert {name for each in runs for name in each} == {f"test_many[{number}]" for number in range(14)}
    for each in runs:
        numbers = [int(name.partition("[")[2].rstrip("]")) for name in each]
        assert [number // 3 for number in numbers] == [0, 1, 2, 3, 4]


def test_of_two_cases_each_has_its_turn() -> None:
    runs = [run_of(seed, hashable([a_test("test_both[mongo]"), a_test("test_both[dynamo]")])) for seed in SEEDS]
    assert {len(each) for each in runs} == {1}
    assert {name for each in runs for name in each} == {"test_both[mongo]", "test_both[dynamo]"}


def test_a_test_without_cases_and_the_quick_suites_are_run_whole() -> None:
    alone = hashable([a_test("test_alone"), a_test("test_another")])
    quick = hashable([a_test(f"test_many[{number}]", "unit") for number in range(50)])
    for seed in SEEDS:
        assert len(run_of(seed, alone + quick)) == 52


def test_of_long_tests_a_run_has_one_of_three_that_take_about_as_long() -> None:
    items = hashable([a_test(f"test_{number}", "e2e", long=True) for number in range(8)])
    known = {item.nodeid: float(10 * number) for number, item in enumerate(items)}
    runs = [run_of(seed, items, known) for seed in SEEDS]
    assert {len(each) for each in runs} == {3}
    assert {name for each in runs for name in each} == {f"test_{number}" for number in range(8)}
    for each in runs:
        numbers = sorted(int(name.removeprefix("test_")) for name in each)
        assert [number >= 5 for number in numbers] == [False, False, True]


def test_the_same_seed_has_the_same_turns() -> None:
    items = hashable([a_test(f"test_many[{number}]") for number in range(100)])
    assert run_of(7, items) == run_of(7, items)
    assert len({tuple(run_of(seed, items)) for seed in SEEDS}) == len(SEEDS)


def test_the_last_group_may_be_smaller() -> None:
    assert list(groups([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
