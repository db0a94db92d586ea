"""Events about the surroundings of a Shadow: its clients, collections and tables; each once where the same would be
found again."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Final

from shadow.journal.sqlite.recovery import Recovery
from shadow.model.events import JournalRecovered, noted
from shadow.model.phase import StoreName
from shadow.observe.log import Event
from shadow.observe.report import Report
from shadow.rights import LackedRights
from shadow.stores.mongo.kinds import expiring_in_two_stores

__all__ = ["Notices"]

_NAMES: Final = 10_000
"""Names of collections that are remembered as reported."""


class Notices:
    """Each method reports one thing; none of them raises."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._raised = False
        self._unfit: set[tuple[str, str]] = set()
        self._expiring: set[str] = set()
        self._unconfigured: set[str] = set()

    def client_stuck(self, store: StoreName, replaced: bool) -> None:
        self._report.metrics.stuck[store]()
        advice = (
            "another was made in its place"
            if replaced
            else "it was passed in, so it stays: restart the process, or let shadow make its own"
        )
        self._report.publish(noted(Event.CLIENT_STUCK, store=str(store), advice=advice))

    def raised(self, asked: str) -> None:
        """A write concern was raised; reported once, however many event loops come and go."""
        if not self._raised:
            self._raised = True
            self._report.publish(noted(Event.WRITES_RAISED, detail=f"{asked} could be rolled back: w=majority instead"))

    def unfit(self, collection: str, reason: str, advice: str) -> None:
        """A collection cannot be written to both stores; reported once for each reason."""
        if (collection, reason) not in self._unfit:
            self._unfit.add((collection, reason))
            self._report.publish(noted(Event.COLLECTION_REFUSED, collection=collection, reason=reason, advice=advice))

    def rights_lacking(self, found: LackedRights) -> None:
        self._report.publish(
            noted(
                Event.RIGHTS_LACKING if found.stops else Event.RIGHTS_LACKING_FOR_JOBS, store="mongo", detail=str(found)
            )
        )

    def table_lacking(self, table: str, text: str) -> None:
        self._report.publish(noted(Event.TABLE_LACKING, table=table, detail=text))

    def secondary_changed(self, name: StoreName, up: bool) -> None:
        self._report.publish(noted(Event.SECONDARY_UP if up else Event.SECONDARY_DOWN, store=str(name)))

    def journal_damaged(self, found: Recovery) -> None:
        self._report.metrics.surely(JournalRecovered())
        self._report.publish(
            noted(
                Event.JOURNAL_DAMAGED, path=str(found.kept), entries=found.entries, collections=len(found.collections)
            )
        )

    def unconfigured(self, name: str, configured: Collection[str]) -> None:
        """A name that is not configured, and nearly is, goes to MongoDB alone; reported once for each name."""
        if name in self._unconfigured or len(self._unconfigured) >= _NAMES or not isinstance(name, str):
            return
        self._unconfigured.add(name)
        by_small = {each.casefold(): each for each in configured}
        near = difflib.get_close_matches(name.casefold(), by_small, n=1, cutoff=0.85)
        if near:
            self._report.publish(noted(Event.COLLECTION_UNCONFIGURED, collection=name, meant=by_small[near[0]]))

    def knows_expiry(self, collection: str) -> bool:
        """Whether `expiry` was called for the collection."""
        return collection in self._expiring

    def expiry(self, collection: str, fields: Sequence[str], *, on_mongo: bool) -> None:
        """By which fields MongoDB deletes documents of a collection that is written to both stores; `on_mongo`: whether
        MongoDB is its primary."""
        self._expiring.add(collection)
        if fields:
            detail = expiring_in_two_stores(on_mongo)
            self._report.publish(
                noted(
                    Event.COLLECTION_EXPIRING,
                    collection=collection,
                    path=", ".join(fields),
                    detail=detail.why,
                    advice=detail.next,
                )
            )

    def swept(self, collection: str, deleted: int) -> None:
        """Parts of large documents that a crash left on DynamoDB were deleted."""
        self._report.publish(noted(Event.TABLE_SWEPT, collection=collection, deleted=deleted))
