"""Settings that are valid on their own but contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from shadow.errors import Fault

__all__ = ["contradictions"]


class JournalSettings(Protocol):
    """The part of the journal's or control store's settings that is checked."""

    @property
    def kind(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def table(self) -> str: ...


class All(Protocol):
    """The part of the settings that is checked."""

    limits: Any
    observe: Any
    dynamo: Any

    def specs(self) -> Mapping[str, Any]:
        """By collection."""

    def places(self) -> Mapping[str, JournalSettings]:
        """Journal and control store, by the field that sets their place."""


def contradictions(settings: All) -> Iterator[Fault]:
    """Yields a fault for each contradiction."""
    yield from _times(settings)
    yield from _places(settings)


def _times(settings: All) -> Iterator[Fault]:
    limits, observe = settings.limits, settings.observe
    for name in ("write_deadline", "read_deadline"):
        value = getattr(limits, name)
        if value > limits.operation:
            yield Fault(f"limits.{name}", f"{value:g}", f"at most limits.operation ({limits.operation:g})")
    if limits.late_writes < 2 * limits.operation:
        expected = f"at least twice limits.operation ({limits.operation:g}): no key is compared again before that"
        yield Fault("limits.late_writes", f"{limits.late_writes:g}", expected)
    if observe.canary_within < observe.canary_every:
        expected = f"at least observe.canary_every ({observe.canary_every:g}): differences are not injected more often"
        yield Fault("observe.canary_within", f"{observe.canary_within:g}", expected)


def _places(settings: All) -> Iterator[Fault]:
    tables = {f"{settings.dynamo.table_prefix}{name}": name for name in settings.specs()}
    places = settings.places()
    for field, place in places.items():
        if place.kind == "dynamodb" and place.table in tables:
            expected = f"another table: this one holds the collection {tables[place.table]}"
            yield Fault(field, place.table, expected)
    paths = [place.path.absolute() for place in places.values() if place.kind == "sqlite"]
    if len(paths) > len(set(paths)):
        yield Fault("control.url", str(paths[0]), "a file other than the journal's")
