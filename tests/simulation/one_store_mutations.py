"""The rules of what one store does alone, each weakened in the plainest way: writes that only MongoDB can make, and
documents that each store deletes by itself once they have expired."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final

from shadow.jobs import verify
from shadow.model.operation import Write
from shadow.model.phase import StoreName
from shadow.model.version import ABSENT, Image, State, Tombstone
from shadow.reads import read_router, sources
from shadow.stores import recurring
from shadow.stores.base import Store
from shadow.writes import by_version, heal, replicator
from shadow.writes.heal import Replayed
from tests.simulation import expiry
from tests.simulation.conditions import Conditions
from tests.simulation.mutations import Mutation, calm

__all__ = ["ALONE_MUTATIONS", "EXPIRY_MUTATIONS"]


def _alone(drawn: Conditions, **changes: Any) -> Conditions:
    return calm(drawn, **changes).of_one_store()


def _expiring(primary: StoreName, **changes: Any) -> Any:
    def conditions(drawn: Conditions) -> Conditions:
        made = calm(drawn, **changes).expiring()
        return made.but(primary=primary, choosing=primary is StoreName.MONGO)

    return conditions


async def _copied_whatever_is_there(secondary: Store, write: Write) -> tuple[Replayed, Image | None]:
    """The result is what the primary has."""
    image = write.post if write.post.present else Image(Tombstone(write.change.tombstone))  # type: ignore[union-attr]
    seen = await secondary.image(write.collection, write.key)
    done = await secondary.put(write.collection, write.key, image, seen.state)
    return (Replayed.EQUAL, image) if done else (Replayed.FENCED, None)


_copy_result = heal._copy_result


async def _copied_if_it_fits(secondary: Store, write: Write) -> tuple[Replayed, Image | None]:
    """A result that does not fit is old."""
    return Replayed.EQUAL, (await _copy_result(secondary, write))[1]


_pinned = by_version._pinned


def _at_any_version(change: Any, hit: Any) -> Any:
    """What was found is changed, and is looked at no more."""
    return dataclasses.replace(_pinned(change, hit), pin=None, filter={"_id": hit.key})


async def _put_at_once(put: Callable[[Image, State], Awaitable[bool]], image: Image) -> bool:
    return await put(image, ABSENT)


ALONE_MUTATIONS: Final = (
    Mutation(
        "a result is copied whatever the secondary has",
        ((heal, "_copy_result", _copied_whatever_is_there),),
        lambda drawn: _alone(drawn, processes=2, operations=8, slow=0.5),
    ),
    Mutation(
        "a result that does not fit is old",
        ((heal, "_copy_result", _copied_if_it_fits),),
        lambda drawn: _alone(drawn, processes=2, operations=8, slow=0.5),
    ),
    Mutation(
        "what only MongoDB can make is replayed",
        ((heal, "by_result", lambda change: False), (replicator, "by_result", lambda change: False)),
        _alone,
    ),
)

EXPIRY_MUTATIONS: Final = (
    Mutation(
        "DynamoDB deletes at once what has expired",
        ((expiry, "kept_for", lambda name: 0.0),),
        _expiring(StoreName.MONGO, late=0.3, operations=8, slow=0.5),
    ),
    Mutation(
        "where a store deletes by itself, nothing is a condition like any other",
        ((recurring, "put_over_nothing", _put_at_once),),
        _expiring(StoreName.DYNAMO, late=0.3, operations=8, slow=0.5, processes=2),
    ),
    Mutation(
        "a read shows what has expired",
        ((read_router, "unexpired", lambda rule, filter, now: filter),),
        _expiring(StoreName.MONGO, reads=0.6, operations=8),
    ),
    Mutation(
        "a read is repeated for the time at which it was first asked",
        ((sources, "renew", lambda rule, read, now: read),),
        _expiring(StoreName.MONGO, reads=0.6, operations=8),
    ),
    Mutation(
        "a verification counts what has expired as missing",
        ((verify, "has_expired", lambda rule, document: False),),
        _expiring(StoreName.MONGO, verifications=2, operations=8),
    ),
)
