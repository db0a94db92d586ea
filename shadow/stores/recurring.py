"""Copies to a store that deletes documents by itself, so that a key may hold nothing again and again.

Every other state is there once: versions and tombstones have ids of their own. Nothing is not, where MongoDB's monitor
deletes what has expired and leaves no tombstone: a late copy of an older version, conditional on nothing being there,
would find that so once more, and bring back what the primary has long replaced. So nothing is never the condition of a
document there. A fresh tombstone takes the place first, and the document is put on the condition that exactly this one
is still there. DynamoDB needs no such thing: it keeps what has expired for a day (`mongoql.expiry.MARGIN`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shadow.model.version import ABSENT, Image, State, Tombstone, fresh_id

__all__ = ["put_over_nothing"]


async def put_over_nothing(put: Callable[[Image, State], Awaitable[bool]], image: Image) -> bool:
    """Puts a document where nothing is. `put`: puts an image on the condition of a state; False: it is not at that.

    The tombstone is a passing one: whoever finds it knows that the document itself is still to come."""
    place = Tombstone.in_passing(fresh_id())
    return await put(Image(place), ABSENT) and await put(image, place)
