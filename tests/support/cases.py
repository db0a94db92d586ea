"""Many small cases in one test.

pytest takes one to three milliseconds for a test, in the process that runs it, in each other one that collects it and
in the one that spreads them (`pytest -n`): for a case that takes next to nothing that is nearly all of its price, and
`tests/unit` has thousands of them. `each_of` is `pytest.mark.parametrize` without it: every case runs, also after one
that failed, and the test's failure names the cases that failed, with their errors.

What a fixture makes for the test is made once for all its cases. A case that changes it needs `parametrize`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import pytest

__all__ = ["each_of"]

_LENGTH: Final = 120
"""Characters of a value in the name of a case."""
_FAILURES: Final = (Exception, pytest.fail.Exception, pytest.skip.Exception)
"""A case that skips would take those after it along, so it is no less than a failure."""


def each_of(
    names: str | Sequence[str], cases: Iterable[Any], *, ids: Iterable[Any] | Callable[[Any], Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The test runs with each of these cases in turn. Arguments as for `pytest.mark.parametrize`.

    Raises `ValueError` where there is no case, for a test that proves nothing.
    """
    called = [each.strip() for each in names.split(",")] if isinstance(names, str) else list(names)
    made = [_arguments(called, case) for case in cases]
    if not made:
        raise ValueError(f"no case of {', '.join(called)}")
    said = ids if ids is None or callable(ids) else list(ids)
    named = [_name(place, case, said) for place, case in enumerate(made)]

    def of(test: Callable[..., Any]) -> Callable[..., Any]:
        async def every(**fixtures: Any) -> None:
            failed = _Failed()
            for name, case in zip(named, made, strict=True):
                try:
                    if inspect.isawaitable(ending := test(**case, **fixtures)):
                        await ending
                except _FAILURES as error:
                    failed.add(name, error)
            failed.tell(len(made))

        if inspect.iscoroutinefunction(test):
            run = functools.wraps(test)(every)
        else:
            run = functools.wraps(test)(lambda **fixtures: _without_a_loop(every(**fixtures)))

        signature = inspect.signature(test)
        if unknown := set(called) - set(signature.parameters):
            raise ValueError(f"{test.__qualname__} takes no {', '.join(sorted(unknown))}")
        left = [each for name, each in signature.parameters.items() if name not in called]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return of


def _without_a_loop(running: Coroutine[Any, Any, None]) -> None:
    """To its end, which it comes to without waiting: what it calls may run a loop of its own."""
    try:
        running.send(None)
    except StopIteration:
        return
    running.close()
    raise TypeError("a test that is no coroutine gave something to wait for")


def _arguments(names: Sequence[str], case: Any) -> dict[str, Any]:
    values = case.values if isinstance(case, type(pytest.param())) else (case,) if len(names) == 1 else case
    return dict(zip(names, values, strict=True))


def _name(place: int, case: dict[str, Any], ids: Sequence[Any] | Callable[[Any], Any] | None) -> str:
    if callable(ids):
        return f"{place}: {', '.join(str(ids(value)) for value in case.values())}"
    if ids is not None:
        return f"{place}: {ids[place]}"
    return f"{place}: {', '.join(f'{name}={value!r}'[:_LENGTH] for name, value in case.items())}"


class _Failed:
    """The cases of a test that failed."""

    def __init__(self) -> None:
        self._errors: dict[str, BaseException] = {}

    def add(self, case: str, error: BaseException) -> None:
        error.add_note(f"case {case}")
        self._errors[case] = error

    def tell(self, of: int) -> None:
        if self._errors:
            names = "".join(f"\n  {case}" for case in self._errors)
            raise BaseExceptionGroup(f"{len(self._errors)} of {of} cases failed:{names}", [*self._errors.values()])
