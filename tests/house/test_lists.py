"""Whatever the lists of events, components and metrics name is written or counted by the package: an operator who is
sent to one of them finds it move."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from itertools import chain
from typing import Final

import pytest

from shadow.model.background import Background
from shadow.model.events import Noted
from shadow.observe.log import Event
from shadow.observe.metric_labels import COMPONENT_OF
from shadow.observe.metric_row import Component, MetricRow
from shadow.observe.metric_table import metric_table
from tests.support import package

_FAIL: Final = ("failed", "on_failure", "_failed")


@functools.cache
def attributes_of(name: str, *, apart_from: str = "") -> frozenset[str]:
    """The attributes of `name` that the package uses."""
    nodes = (node for path, those in package.nodes().items() if path != apart_from for node in those)
    return frozenset(
        node.attr for node in nodes if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == name
    )


@functools.cache
def parts_that_fail() -> frozenset[str]:
    """The literal first arguments of `failed` and of the event `ComponentFailed`."""
    nodes = chain.from_iterable(package.nodes().values())
    calls = (node for node in nodes if isinstance(node, ast.Call) and _fails(node.func))
    return frozenset(str(each.value) for node in calls for each in node.args[:1] if isinstance(each, ast.Constant))


def _fails(called: ast.expr) -> bool:
    return getattr(called, "attr", "") in _FAIL or getattr(called, "id", "") == "ComponentFailed"


@pytest.mark.parametrize("event", Event, ids=str)
def test_every_event_is_written_somewhere(event: Event) -> None:
    assert event.name in attributes_of("Event", apart_from="observe/log.py")


@pytest.mark.parametrize("component", Component, ids=str)
def test_every_component_is_counted_somewhere(component: Component) -> None:
    by_name = {
        Component[each] for each in attributes_of("Component", apart_from="observe/metric_row.py") if each.isupper()
    }
    assert component in {*parts_that_fail(), *COMPONENT_OF.values(), *by_name}


def test_every_background_task_has_a_component() -> None:
    assert set(COMPONENT_OF) == set(Background)


def constants_of_metrics() -> Iterator[tuple[str, str]]:
    """The constants of the table, and the metrics that they declare."""
    trees = package.trees()
    files = ("metric_table", "guard_metrics", "relay_metrics")
    for node in chain.from_iterable(trees[f"observe/{name}.py"].body for name in files):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and node.value.args:
            yield getattr(node.target, "id", ""), getattr(node.value.args[0], "value", "")


@functools.cache
def called() -> frozenset[str]:
    """The names that the package calls."""
    nodes = chain.from_iterable(package.nodes().values())
    return frozenset(getattr(node.func, "id", "") for node in nodes if isinstance(node, ast.Call))


@pytest.mark.parametrize("row", metric_table(), ids=lambda row: row.name)
def test_every_metric_is_moved_somewhere(row: MetricRow) -> None:
    """Some part publishes an event that moves it, or the gauges read it."""
    if row.type != "gauge":
        for by in row.moved_by:
            name = "noted" if by.event is Noted else by.event.__name__
            assert name in called()
        return
    (constant,) = [name for name, metric in constants_of_metrics() if metric == row.name]
    assert any(getattr(each, "id", "") == constant for each in package.nodes()["observe/gauges.py"])
