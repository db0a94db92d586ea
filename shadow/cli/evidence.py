"""`shadow evidence`: one page for those who decide about a flip."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import platform
import socket
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from pymongo.errors import PyMongoError

from shadow.cli.jobs import chosen, control_of
from shadow.cli.options import AsJson, ConfigFile, print_json, why_unwritable
from shadow.config import Settings, load
from shadow.control.history import DAYS
from shadow.evidence.collect import collect
from shadow.evidence.model import Context, Evidence
from shadow.evidence.page import page
from shadow.host.user import user
from shadow.stores.mongo.drivers import connect

__all__ = ["evidence"]

_LIBRARIES: Final = ("shadow", "pymongo", "motor", "aioboto3", "deepdiff")
_PATIENCE: Final = 3.0
"""Seconds to wait for MongoDB's version, which is the only thing that a store is asked for."""


def evidence(
    collection: Annotated[str, typer.Argument(help="The collection.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file to write (HTML).")],
    config: ConfigFile = Path("config/shadow.yaml"),
    days: Annotated[int, typer.Option(min=1, max=DAYS, help="How many days of comparisons to show.")] = 7,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes one page about a collection for those who decide about a flip.

    Gates with their figures, comparisons of the last days against noise, what each comparison rule ignored,
    verifications, rehearsals, receipts, latency store against store, versions and configuration. The file needs nothing
    else, can be printed, and holds no value of a document. Exit code 0 if every gate is open, 1 if one is closed."""
    if out.exists() and not force:
        raise typer.BadParameter(f"{out} exists already; --force overwrites it")
    if why_not := why_unwritable(out):
        raise typer.BadParameter(f"{out} cannot be written: {why_not}")
    settings = load(config)
    chosen(settings, [collection])
    entry = settings.collections[collection]
    context = Context(
        settings=_settings(settings, collection),
        rules=entry.compare,
        versions=_versions(settings, config),
        by=f"{user()} at {socket.gethostname()}",
        now=time.time(),
        days=days,
    )
    with contextlib.closing(control_of(settings)) as records:
        found = collect(records, collection, context)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(found), encoding="utf-8")
    if as_json:
        print_json(_report(found, out))
    else:
        closed = ", ".join(gate.name for gate in found.closed)
        typer.echo(f"written: {out}; {f'closed gates: {closed}' if closed else 'every gate is open'}")
    raise typer.Exit(1 if found.closed else 0)


def _report(found: Evidence, out: Path) -> dict[str, Any]:
    compared = found.compared
    return {
        "collection": found.collection,
        "to": str(found.to),
        "file": str(out),
        "closed": [gate.name for gate in found.closed],
        "compared": compared.decided,
        "mismatches": compared.differing,
        "noise": {"compared": compared.measured, "mismatches": compared.noisy},
        "excused": dict(compared.rules),
    }


def _settings(settings: Settings, collection: str) -> str:
    """Those of the collection as the file has them, and what is in force for it. No section with credentials."""
    route = settings.route(collection)
    shown = {
        collection: settings.collections[collection].model_dump(mode="json", exclude_unset=True),
        "defaults": settings.defaults.model_dump(mode="json", exclude_unset=True),
        "in force": {
            "primary": str(route.primary),
            "phase": str(route.phase),
            "writes": str(route.writes),
            "shadow_reads": route.shadow_reads,
            "slower": settings.slower()[collection],
        },
        "limits": settings.limits.model_dump(mode="json"),
    }
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _versions(settings: Settings, config: Path) -> dict[str, str]:
    digest = hashlib.sha256(config.read_bytes()).hexdigest() if config.exists() else "no file"
    found = {name: metadata.version(name) for name in _LIBRARIES}
    return {
        **found,
        "Python": platform.python_version(),
        "MongoDB": asyncio.run(_server_version(settings)),
        "MongoDB's database": settings.mongo.database,
        "DynamoDB": f"{settings.dynamo.region}, tables {settings.dynamo.table_prefix}*",
        "journal": settings.journal.place,
        "configuration": f"{config}, SHA-256 {digest}",
    }


async def _server_version(settings: Settings) -> str:
    client = connect(settings.mongo.url.get_secret_value(), "pymongo")
    try:
        async with asyncio.timeout(_PATIENCE):
            return str((await client.server_info())["version"])
    except (PyMongoError, TimeoutError) as error:
        return f"it did not answer ({type(error).__name__})"
    finally:
        await client.close()
