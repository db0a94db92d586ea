"""Spread over processes, the tests that take longest begin first, and those of one file stay together."""

from __future__ import annotations

from itertools import chain

from tests.support.spread import in_order, measured, units

LOG = """
252.73s call     tests/e2e/test_demo.py::test_long[a [b]]
20.00s call     tests/e2e/test_demo.py::test_long[c]
0.27s setup    tests/e2e/test_demo.py::test_long[c]
3.00s call     tests/e2e/test_demo.py::test_short
2.50s teardown tests/e2e/test_demo.py::test_other
0.10s call     tests/unit/test_a.py::test_a
============================= 5 passed in 9.99s call tests/x.py::test_x
"""


def test_a_long_test_counts_by_itself_and_the_others_by_file() -> None:
    assert measured(LOG.splitlines()) == {"tests/e2e/test_demo.py::test_long": 136, "tests/e2e/test_demo.py": 6}


def test_each_case_of_a_long_test_is_a_unit_and_a_long_file_is_cut() -> None:
    long = [f"a.py::test_a[{number}]" for number in range(10)]
    known = {"b.py::test_long": 90, "b.py": 2, "a.py": 150}
    made = units([*long, "b.py::test_b", "b.py::test_long[x::y]", "b.py::test_long[z]", "c.py::test_c"], known)
    assert list(made.values()) == [
        ["b.py::test_long[x::y]"],
        ["b.py::test_long[z]"],
        long[:5],
        long[5:],
        ["b.py::test_b"],
        ["c.py::test_c"],
    ]


def test_the_units_are_the_same_for_tests_that_are_in_order_already() -> None:
    tests = [f"tests/{path}.py::test_{number}" for number in range(300) for path in ("contract/test_odd_values", "new")]
    ordered = sorted(tests, key=in_order(tests).__getitem__)
    known = {"tests/contract/test_odd_values.py": 130, "tests/contract/test_odd_values.py::test_7": 9}
    made = units(tests, known)
    assert made == units(list(chain.from_iterable(made.values())), known)
    assert in_order(ordered) == in_order(tests)
    assert sorted(chain.from_iterable(made.values())) == sorted(tests)
