"""Manages tables: creates, describes, and waits for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.context import OnLacking
from shadow.stores.dynamo.tables.drift import drift
from shadow.stores.dynamo.tables.options import look
from shadow.stores.dynamo.tables.spec import TableDefinition
from shadow.stores.dynamo.tables.tables import TableState, prepare_table, state_of

__all__ = ["TableManager"]


async def _nothing() -> None:
    """An index on a table of small records needs no change of its items."""


class TableManager:
    """`timeout`: seconds for a table to become ready."""

    def __init__(self, gateway: Gateway, timeout: float, on_lacking: OnLacking) -> None:
        self._gateway = gateway
        self._timeout = timeout
        self._on_lacking = on_lacking

    async def prepare(self, wanted: TableDefinition, reindex: Callable[[], Awaitable[object]] = _nothing) -> bool:
        """See `tables.prepare_table`. Returns whether the table is new."""
        prepared = await prepare_table(self._gateway, wanted, self._timeout, reindex)
        for text in prepared.lacking:
            self._on_lacking(wanted.name, text)
        return prepared.is_new

    async def drift(self, tables: Iterable[TableDefinition]) -> dict[str, tuple[list[str], list[str]]]:
        """By table: how it differs from its definition, and what could not be checked because the server does not
        support it."""
        found = {wanted.name: (wanted, await look(self._gateway, wanted)) for wanted in tables}
        return {name: (drift(wanted, there), there.lacking) for name, (wanted, there) in found.items()}

    async def states(self, tables: Iterable[TableDefinition]) -> dict[str, TableState]:
        """The state of each table, and whether it is usable."""
        return {wanted.name: await state_of(self._gateway, wanted) for wanted in tables}
