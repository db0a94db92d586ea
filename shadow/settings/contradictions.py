"""Settings that are right by themselves, and cannot work together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from shadow.errors import Fault

__all__ = ["contradictions"]


class JournalSettings(Protocol):
    """The part of the journal's settings, or the control store's, that is looked at."""

    @property
    def kind(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def table(self) -> str: ...


class All(Protocol):
    """The part of the settings that is looked at."""

    limits: Any
    observe: Any
    dynamo: Any

    def specs(self) -> Mapping[str, Any]:
        """By collection."""

    def places(self) -> Mapping[str, JournalSettings]:
        """Journal and control store, by the field that says where they are."""


def contradictions(settings: All) -> Iterator[Fault]:
    """One fault for each."""
    yield from _times(settings)
    yield from _places(settings)


def _times(settings: All) -> Iterator[Fault]:
    limits, observe = settings.limits, settings.observe
    for name in ("write_deadline", "read_deadline"):
        value = getattr(limits, name)
        if value > limits.operation:
            yield Fault(f"limits.{name}", f"{value:g}", f"at most limits.operation ({limits.operation:g})")
    if observe.canary_within < observe.canary_every:
        expected = f"at least observe.canary_every ({observe.canary_every:g}): none is planted more often"
        yield Fault("observe.canary_within", f"{observe.canary_within:g}", expected)


def _places(settings: All) -> Iterator[Fault]:
    tables = {f"{settings.dynamo.table_prefix}{name}": name for name in settings.specs()}
    places = settings.places()
    for field, place in places.items():
        if place.kind == "dynamodb" and place.table in tables:
            expected = f"another table: {tables[place.table]} of `collections` is kept in this one"
            yield Fault(field, place.table, expected)
    paths = [place.path.absolute() for place in places.values() if place.kind == "sqlite"]
    if len(paths) > len(set(paths)):
        yield Fault("control.url", str(paths[0]), "another file than the journal's")
