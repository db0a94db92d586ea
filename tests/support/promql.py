"""What a PromQL expression asks for, and whether an exporter has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Series", "complaints", "expression", "series_of"]

Series: TypeAlias = list[tuple[str, dict[str, str]]]
"""(name, labels) of each series of an exposition."""

_VARIABLES: Final = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$collection": ".*",
    "$read_price": "0.125",
    "$write_price": "0.625",
}
_MADE_BY_PROMETHEUS: Final = {"job", "instance"}
_ALERTS: Final = ("alertname", "alertstate", "severity", "collection", "store")
"""Labels of the series that Prometheus makes of our alert rules."""


def expression(text: str) -> str:
    """The expression with Grafana's variables replaced. Raises `ValueError` for a variable that is not known."""
    for name, value in _VARIABLES.items():
        text = text.replace(name, value)
    if "$" in text:
        raise ValueError(f"an unknown variable in {text}")
    return text


def series_of(exposition: str) -> Series:
    """The series of a text in Prometheus' exposition format."""
    families = text_string_to_metric_families(exposition)
    return [(sample.name, dict(sample.labels)) for family in families for sample in family.samples]


def complaints(text: str, series: Series) -> list[str]:
    """What is wrong with an expression: it does not parse (with the types of its parts), or selects or groups by
    something that no series has."""
    try:
        tree = promql_parser.parse(expression(text))
    except ValueError as error:
        return [f"{text}: {error}"]
    found = []
    labels: set[str] = set()
    for node in _walk(tree):
        if isinstance(node, promql_parser.VectorSelector):
            if node.name == "ALERTS":
                labels |= {*_ALERTS}
                continue
            matching = [has for name, has in series if name == node.name and _matches(has, node.matchers.matchers)]
            labels |= {label for has in matching for label in has}
            if not matching:
                found.append(f"no series is selected by {node.prettify()}")
    for node in _walk(tree):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            unknown = set(node.modifier.labels) - labels - _MADE_BY_PROMETHEUS
            found += [f"{label} is a label of nothing in {text}" for label in sorted(unknown)]
    return found


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for part in ("lhs", "rhs", "expr", "args", "param", "vector_selector"):
        value = getattr(node, part, None)
        for child in value if isinstance(value, list) else [value]:
            if type(child).__module__ == type(node).__module__:
                yield from _walk(child)


def _matches(labels: dict[str, str], matchers: list[Any]) -> bool:
    """Whether a series is selected. Stricter than Prometheus: a label that the series lacks matches nothing."""
    for matcher in matchers:
        has = labels.get(matcher.name)
        if has is None:
            return False
        pattern = matcher.value if matcher.op in (promql_parser.MatchOp.Re, promql_parser.MatchOp.NotRe) else None
        same = has == matcher.value if pattern is None else re.fullmatch(pattern, has) is not None
        if same != (matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re)):
            return False
    return True
