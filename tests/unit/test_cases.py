"""Many small cases in one test: every case runs, and the failure names those that failed."""

from __future__ import annotations

import inspect

import pytest

from tests.support.cases import each_of


def test_every_case_runs_and_those_that_failed_are_named() -> None:
    ran = []

    @each_of("text, length", [("a", 1), pytest.param("bc", 3), ("def", 3), ("g", 2)])
    def test(text: str, length: int) -> None:
        ran.append(text)
        assert len(text) == length

    with pytest.raises(BaseExceptionGroup) as raised:
        test()
    assert ran == ["a", "bc", "def", "g"]
    assert raised.value.message == ("2 of 4 cases failed:\n  1: text='bc', length=3\n  3: text='g', length=2")
    assert [type(each) for each in raised.value.exceptions] == [AssertionError, AssertionError]


async def test_the_cases_of_a_coroutine_are_awaited() -> None:
    ran = []

    @each_of("number", range(3), ids=["none", "one", "two"])
    async def test(number: int) -> None:
        ran.append(number)
        assert number != 1

    with pytest.raises(BaseExceptionGroup, match="1 of 3 cases failed:\n  1: one"):
        await test()
    assert ran == [0, 1, 2]


def test_every_combination_runs_and_other_arguments_stay_fixtures() -> None:
    ran = []

    @each_of("left", "ab")
    @each_of("right", "cd", ids=str.upper)
    def test(fixture: str, left: str, right: str) -> None:
        ran.append(fixture + left + right)

    assert list(inspect.signature(test).parameters) == ["fixture"]
    test(fixture="-")
    assert ran == ["-ac", "-ad", "-bc", "-bd"]


def test_a_case_that_skips_or_fails_by_name_is_a_failure() -> None:
    @each_of("end", [pytest.skip, pytest.fail])
    def test(end: object) -> None:
        end("said so")  # type: ignore[operator]

    with pytest.raises(BaseExceptionGroup, match="2 of 2 cases failed"):
        test()


def test_a_test_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no case of number"):
        each_of("number", [])
    with pytest.raises(ValueError, match="takes no other"):
        each_of("other", [1])(lambda number: None)
