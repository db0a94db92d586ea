"""What an engine is built of, as the settings say: the journal, what was handed in, names and places."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from shadow.config import Settings, revealed
from shadow.errors import ConfigurationError, Fault
from shadow.host.supervisor import Supervisor
from shadow.journal.server.driver import Driver
from shadow.journal.server.dynamo import DynamoDriver
from shadow.journal.server.dynamo_table import Access
from shadow.journal.server.mongo import MongoDriver
from shadow.journal.server.remote import RemoteJournal, patience
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.journal.sqlite.recovery import Recovery
from shadow.stores.mongo.checks import HandedIn, client_faults, handed_in

__all__ = ["admitted", "journal_name", "make_journal", "places"]


def admitted(given: Any, settings: Settings) -> HandedIn:
    """What was handed in for MongoDB. Raises `TypeError`, and `ConfigurationError` for what it is that cannot be."""
    found = handed_in(given)
    faults = [Fault(f"mongo_client({name}=...)", "set", why) for name, why in client_faults(found.client)]
    if found.database is not None and found.database.name != settings.mongo.database:
        here = f"the database of the settings, {settings.mongo.database!r}: say mongo.database: {found.database.name}"
        faults.append(Fault("mongo_client", f"a database object of {found.database.name!r}", here))
    if faults:
        raise ConfigurationError("(what was handed in)", faults)
    return found


def make_journal(
    settings: Settings, on_damage: Callable[[Recovery], None], supervisor: Supervisor
) -> SqliteJournal | RemoteJournal:
    """Where `journal.url` says."""
    where, limit = settings.journal, settings.limits.operation
    if where.kind == "sqlite":
        return SqliteJournal(
            where.path,
            synchronous=where.synchronous,
            limit=limit,
            max_bytes=where.max_bytes,
            collections=settings.collections,
            on_damage=on_damage,
            supervisor=supervisor,
        )

    def connect() -> Driver:
        if where.kind == "mongodb":
            return MongoDriver(*where.mongo(settings.mongo), patience=patience(limit))
        dynamo = settings.dynamo
        access = Access(
            dynamo.region,
            dynamo.endpoint_url,
            revealed(dynamo.access_key_id),
            revealed(dynamo.secret_access_key),
            revealed(dynamo.session_token),
        )
        return DynamoDriver(access, where.table, patience=patience(limit))

    return RemoteJournal(connect, place=where.place, limit=limit, supervisor=supervisor)


def journal_name(settings: Settings) -> str:
    """Names the journal for every host: that of a file is its own host's."""
    journal = settings.journal
    if journal.kind != "sqlite":
        return f"{journal.place} {journal.name}"
    return f"{socket.gethostname()}:{journal.path.absolute()}"


def places(settings: Settings) -> dict[str, str]:
    """What all processes of an application have to have alike, by setting; without credentials. Hosts may have names of
    their own for one server, and each host a journal in a file of its own."""
    found = {
        "mongo.database": settings.mongo.database,
        "dynamo.region": settings.dynamo.region,
        "dynamo.table_prefix": settings.dynamo.table_prefix,
    }
    if settings.journal.kind != "sqlite":
        in_mongo = settings.journal.kind == "mongodb"
        named = settings.journal.mongo(settings.mongo)[1:] if in_mongo else (settings.journal.table,)
        found["journal.url"] = f"{settings.journal.kind}: {' '.join(named)}"
    return found
