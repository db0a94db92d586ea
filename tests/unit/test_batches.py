"""Changes and results of one call: what is made when it is asked for is what would have been made at once."""

from __future__ import annotations

import gc

import pytest

from shadow.model.batches import AlikeChanges, Made, Results, first_error, keys_in
from shadow.model.operation import ANY, Applied, Change, Delete, Update
from shadow.model.version import ABSENT, Image, Version
from tests.support.cases import each_of

PLAIN = Update(ANY, {"n": 1}, {"$set": {"n": 2}}, "", False, ({"e": 1},))
PAIRS = [("a", "1"), ("b", "2"), ("c", "3")]
PIPELINE = Update(ANY, {"n": 1}, [{"$set": {"n": 2}}], "")
DELETE = Delete(ANY, {"n": 1}, "")


@each_of(
    ("model", "names", "whole"),
    [
        (PLAIN, (), [Update(k, {"n": 1}, {"$set": {"n": 2}}, "", False, ({"e": 1},)) for k in "abc"]),
        (
            PIPELINE,
            ["1", "2", "3"],
            [Update(k, {"n": 1}, [{"$set": {"n": 2}}], b) for k, b in PAIRS],
        ),
        (DELETE, ["1", "2", "3"], [Delete(k, {"n": 1}, t) for k, t in PAIRS]),
    ],
)
def test_alike_changes_are_those_that_a_list_would_hold(
    model: Update | Delete, names: list[str], whole: list[Change]
) -> None:
    changes = AlikeChanges(model, list("abc"), names)
    assert list(changes) == whole
    assert [changes[place] for place in (0, 2, -1)] == [whole[place] for place in (0, 2, -1)]
    assert list(changes[1:]) == whole[1:]
    assert list(changes[:2][1:]) == whole[1:2]
    assert len(changes[3:]) == 0
    with pytest.raises(IndexError):
        changes[3]
    assert list(keys_in(changes[1:])) == keys_in(whole[1:]) == ["b", "c"]
    assert all(each.filter is model.filter for each in changes), "what is compiled once is found by its identity"


def applied(place: int, *, counted: bool = True, modified: bool | None = True) -> Applied:
    pre = Image(Version("b", place), {"_id": place})
    return Applied(pre, Image(ABSENT), counted=counted, modified=modified)


def test_results_that_are_put_off_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []

    def make(place: int) -> Applied:
        made.append(place)
        return applied(place)

    results = Results(5)
    results.put_off(1, make, modified=True)
    results.put_off(3, make, modified=False)
    results[4] = applied(4)
    assert not made
    assert (len(results), results.late, results.late_modified) == (5, 2, 1)
    assert list(results) == [None, applied(1), None, applied(3), applied(4)]
    assert made == [1, 3]
    assert results[2:4] == [None, applied(3)]
    assert results[-1] == applied(4)
    assert results[-2] == applied(3)
    with pytest.raises(IndexError):
        results[5]


def test_the_first_error_is_that_of_the_lowest_place() -> None:
    early, late = ValueError("early"), ValueError("late")
    results = Results(4)
    assert first_error(results) is None
    results[3] = late
    results[1] = early
    assert first_error(results) is early
    assert first_error(list(results)) is early
    results[1] = None
    assert first_error(results) is late


def test_what_a_call_has_made_is_counted_alike_however_it_was_given() -> None:
    given = [applied(0), None, applied(2, counted=False), applied(3, modified=False), applied(4, modified=None)]
    results = Results(5)
    results.put_off(0, applied, modified=True)
    for place, each in enumerate(given[1:], 1):
        results[place] = each
    counts = []
    for batches in ([given, given], [results, results], [results, given]):
        made = Made()
        for batch in batches:
            made.add(batch)
        assert list(made) == [given[0], given[3], given[4]] * 2
        counts.append((len(made), made.modified(lambda each: each.modified is not False)))
    assert counts == [(6, 4)] * 3
    assert len(Made()) == 0
    assert not list(Made())


def test_a_call_for_many_documents_keeps_nothing_for_the_garbage_collector() -> None:
    """As many objects as there are documents would make it go through the whole heap, again and again."""
    count = 5000
    keys, names = [f"k{place}" for place in range(count)], [f"n{place}" for place in range(count)]
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        changes, results = AlikeChanges(DELETE, keys, names), Results(count)
        batches = [changes[start : start + 1000] for start in range(0, count, 1000)]
        for place in range(count):
            results.put_off(place, applied, modified=False)
        made = Made()
        made.add(results)
        assert len(made) == count
        assert gc.get_count()[0] - before < 50, "objects that the collector follows, per call"
        assert len(batches) == 5
    finally:
        gc.enable()
