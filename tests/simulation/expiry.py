"""Documents that expire: MongoDB's monitor and DynamoDB's own TTL delete them past everybody, each in its own time.

Their clock is the loop's, and those of the processes differ from it. MongoDB deletes at once, in either role: a pass of
its monitor may come at any moment. DynamoDB keeps what has expired for longer than a request can be late.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from shadow.compare.equality import agree
from shadow.model.operation import Applied, Change
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.schema import ExpirySpec
from shadow.model.version import ABSENT, Image, Key
from shadow.mongoql.expiry import has_expired
from shadow.stores.memory import MemoryStore
from tests.simulation.conditions import COLLECTION, LIMIT

if TYPE_CHECKING:
    from tests.simulation.stores import Server
    from tests.simulation.world import World

__all__ = ["EXPIRY", "agree_but_for_expired", "begin", "date", "seen"]

EXPIRY: Final = ExpirySpec("at", 1)
_KEPT: Final = 1.5 * LIMIT
"""Seconds for which DynamoDB keeps what has expired."""
_EPOCH: Final = dt.datetime(1970, 1, 1)


def date(world: World) -> dt.datetime:
    """Of a document that has expired, or will soon, or after the run."""
    return _EPOCH + dt.timedelta(seconds=round(world.loop.time() + world.rng.choice((-2, 0, 0.5, 2, 1000)), 3))


def begin(world: World) -> None:
    """Has both servers look for what has expired, now and again, to the end."""
    for server in world.servers.values():
        _look(world, server)


def _look(world: World, server: Server) -> None:
    kept = 0.0 if server.name is StoreName.MONGO else kept_for(server.name)
    for key in world.keys:
        image = server.image(COLLECTION, key)
        if has_expired(EXPIRY, image.document, world.loop.time() - kept) and world.rng.random() < 0.7:
            world.note(f"{server.name} deletes {key}, which has expired")
            server.memory._images[COLLECTION].pop(key_digest(key))
            server.memory._chosen.pop((COLLECTION, key_digest(key)), None)
            if server.primary:
                server.history.expired(key)
            else:
                server.history.secondary_expired(key)
    world.loop.call_later(0.2 + world.rng.random(), _look, world, server)


def kept_for(name: StoreName) -> float:
    return _KEPT


def seen(server: Server, change: Change, now: float) -> Image | None:
    """What DynamoDB holds under the key of a change although it has expired: a write finds nothing there, and takes its
    place. None: there is nothing like that."""
    if server.name is not StoreName.DYNAMO:
        return None
    image = server.image(COLLECTION, change.key)
    return image if has_expired(EXPIRY, image.document, now) else None


def applied_over(memory: MemoryStore, change: Change, make: Any) -> Applied | None:
    """The change, where a document has expired."""
    images = memory._images[COLLECTION]
    place = images.pop(key_digest(change.key))
    applied: Applied | None = None
    try:
        applied = make()
    finally:
        if applied is None:
            images[key_digest(change.key)] = place
    return applied


def agree_but_for_expired(world: World, primary: Image, secondary: Image, key: Key) -> bool:
    """Whether no read could tell one from the other."""
    if agree(primary, secondary):
        return True
    if not world.conditions.expires:
        return False
    now = world.loop.time()
    one, other = (Image(ABSENT) if has_expired(EXPIRY, each.document, now) else each for each in (primary, secondary))
    return not one.present and not other.present
