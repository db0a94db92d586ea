"""Writes that only MongoDB can make: one of a document, and one of all that match, each of them by its key.

The simulated stores could make them all. So the one called DynamoDB does what it does not understand wrongly, if it is
asked to replay it, and a statement at a version has no other condition, as on the server.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from shadow.errors import UnsupportedOperation
from shadow.model.operation import ANY, Change, Delete, Insert, MongoOnly, Update, Write, mongo_only
from shadow.model.version import Image
from tests.simulation.history import WRONG

__all__ = ["ONLY", "everywhere", "misunderstood", "stated"]

ONLY: Final = MongoOnly("$simulated", UnsupportedOperation("$simulated", "only the simulated MongoDB knows it"))


def everywhere(change: Change) -> Change:
    """The same as one that MongoDB alone can make. What it finds by itself to delete has names that nobody knows."""
    if isinstance(change, Insert) or (isinstance(change, Delete) and change.key is ANY):
        return change
    return dataclasses.replace(change, mongo_only=ONLY)


def stated(change: Change, seen: Image) -> Change | None:
    """What the server is asked to change, where it holds `seen`; None: it is not at the version any more."""
    if not isinstance(change, Update | Delete) or change.pin is None:
        return change
    if seen.state != change.pin:
        return None
    return dataclasses.replace(change, pin=None, filter={"_id": change.key})


def misunderstood(write: Write, image: Image) -> Image:
    """What a store makes of a write that it does not know."""
    if image.document is None or mongo_only(write.change) is None:
        return image
    return Image(image.state, {**image.document, WRONG: True})
