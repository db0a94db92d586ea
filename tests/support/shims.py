"""A Shadow over real servers, with its settings made in code, and the proof that both stores hold the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from shadow import Shadow
from shadow.config import CollectionSettings, Defaults, JournalSettings, MongoSettings, ObserveSettings, Settings
from shadow.embedded.audit import Audit
from shadow.model.limits import Limits
from shadow.model.phase import Phase, StoreName
from shadow.stores.dynamo.client.settings import DynamoSettings
from tests.support.drawn import driver_of
from tests.support.topologies import admit, drop

__all__ = ["assert_level", "audit_of", "prepared", "settings_for", "without_heartbeats"]

QUICK: Final = Limits(recover_every=0.05, settle=0.05, loop_lag=0, write_deadline=20.0, read_deadline=20.0)
"""What settles is soon looked at again; what a busy machine takes long for is no late answer."""


def settings_for(
    folder: Path,
    mongo_url: str,
    dynamo_url: str,
    name: str,
    collections: Iterable[str],
    *,
    primary: StoreName = StoreName.MONGO,
    phase: Phase = Phase.SHADOW,
    driver: str | None = None,
    limits: Limits = QUICK,
) -> Settings:
    """`name` is the database, which the application's user is admitted to, and the prefix of the tables. `driver`: if
    none is named, what was drawn with the url."""
    admit(mongo_url, name)
    return Settings(
        mongo=MongoSettings(url=mongo_url, database=name, driver=driver or driver_of(mongo_url, "motor")),
        dynamo=DynamoSettings(
            endpoint_url=dynamo_url,
            access_key_id="local",
            secret_access_key="local",
            table_prefix=f"{name}-",
            connect_timeout=20.0,
            read_timeout=20.0,
        ),
        journal=JournalSettings(url=f"sqlite:///{folder / 'journal.db'}"),
        defaults=Defaults(primary=primary, phase=phase),
        limits=limits,
        observe=ObserveSettings(noise_share=0.0, holdout=0.0),
        collections={each: CollectionSettings() for each in collections},
    )


def without_heartbeats(made: Settings) -> Settings:
    """A heartbeat would put the fleet's own routes in the place of those that a test sets."""
    return made.model_copy(update={"control": made.control.model_copy(update={"heartbeat": 60.0})})


@asynccontextmanager
async def prepared(
    folder: Path, mongo_url: str, dynamo_url: str, collections: Iterable[str], **options: Any
) -> AsyncIterator[Shadow]:
    """A Shadow over a database and tables of its own; the database is dropped at the end. `options`: of
    `settings_for`."""
    name = f"t{uuid.uuid4().hex[:12]}"
    async with Shadow.from_settings(
        settings_for(folder, mongo_url, dynamo_url, name, collections, **options)
    ) as shadow:
        await shadow.prepare()
        yield shadow
    drop(mongo_url, name)


def audit_of(settings: Settings) -> Audit:
    assert settings.dynamo.endpoint_url is not None
    return Audit(
        settings.mongo.url.get_secret_value(),
        settings.mongo.database,
        settings.dynamo.endpoint_url,
        settings.dynamo.table_prefix,
        settings.specs(),
    )


async def assert_level(shadow: Shadow) -> None:
    """The journal is empty, both stores hold the same documents at the same versions, and no shadow read or replay
    has said otherwise."""
    assert await shadow.settled(60), (await shadow.admin.status())["journal"]
    different, found = (
        await asyncio.to_thread(audit_of(shadow.admin.settings).disagreements),
        shadow.admin.findings.groups(),
    )
    assert different == [], different
    assert found == [], found
