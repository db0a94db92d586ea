"""`shadow config`: checks, shows and changes the settings; connects to nothing unless asked to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pymongo.errors import OperationFailure, PyMongoError

from shadow.cli.jobs import chosen
from shadow.cli.options import AsJson, ConfigFile, print_json, why_unwritable
from shadow.config import Settings, load, parse
from shadow.errors import ConfigurationError, Fault, StoreUnavailable, UnsupportedOperation
from shadow.jobs.config_file import edited, replace_file
from shadow.jobs.target import JobRefused
from shadow.model.phase import Phase, Route, neighbours
from shadow.rights import LackedRights, ask
from shadow.settings.sources import given, not_used
from shadow.stores.dynamo.store import DynamoContext, DynamoStore
from shadow.stores.mongo.drivers import connect as open_client
from shadow.stores.mongo.kinds import UnfitKind
from shadow.stores.mongo.store import MongoStore

__all__ = ["app"]

_PATIENCE: Final = 5.0
"""Seconds within which MongoDB has to have answered for all of them."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """`refused`: the collections that two stores cannot keep equal. `not_seen`: why nobody answered, and then nothing
    is known of any; "" where all were checked."""

    refused: Sequence[UnfitKind] = ()
    not_seen: str = ""


app = typer.Typer(help="Checks, shows and changes the settings.", no_args_is_help=True)


@app.command("check")
def check(
    config: ConfigFile = Path("config/shadow.yaml"),
    connect: Annotated[
        bool, typer.Option("--connect", help="Also check MongoDB's rights and collections, and streams.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checks the file and the environment together; prints one line per fault.

    Exit code 2 if there is a fault. With --connect, 1 if a MongoDB user lacks a right that reads or writes need, or
    if a collection with dual writes is of a kind that two stores cannot keep equal. Where out-of-band writes are
    relayed, it warns of each table whose stream cannot be read."""
    settings = load(config)
    faults = [*_of_files(settings)]
    if faults:
        raise ConfigurationError(str(config), faults)
    found = asyncio.run(_rights(settings)) if connect else []
    both = [name for name, route in settings.routes().items() if route.dual_write]
    looked = asyncio.run(_look_at(settings, both)) if connect else _Looked()
    streams = asyncio.run(_streams(settings, both)) if connect and settings.observe.follow_writers else []
    stops = any(each.stops for each in found) or bool(looked.refused)
    routes = {
        name: f"{route.primary} {route.phase} writes={route.writes} shadow_reads={route.shadow_reads:g}{_reads(route)}"
        for name, route in settings.routes().items()
    }
    if as_json:
        asked: dict[str, Any] = {}
        if connect:
            refused = [
                {"collection": each.collection, "kind": str(each.special), "why": each.reason, "next": each.advice}
                for each in looked.refused
            ]
            asked = {"rights_lacking": [str(each) for each in found], "refused": refused, "streams": streams}
        print_json({"ok": not stops, "routes": routes, **asked})
    else:
        typer.echo(f"{config}: no faults")
        for name, text in routes.items():
            typer.echo(f"  {name}: {text}")
        if unused := not_used(given(os.environ)):
            typer.echo(f"note: {', '.join(unused)} has no effect: the keys of SHADOW_DYNAMO_... override it")
        for each in found:
            typer.echo(f"{'error' if each.stops else 'warning'}: {each}")
        for unfit in looked.refused:
            typer.echo(f"error: {unfit.error().message}; {unfit.advice}")
        for text in streams:
            typer.echo(f"warning: {text}")
        if looked.not_seen:
            typer.echo(f"warning: the collections were not checked ({looked.not_seen})")
    if stops:
        raise typer.Exit(1)


async def _rights(settings: Settings) -> list[LackedRights]:
    """Raises `StoreUnavailable`."""
    client = open_client(settings.mongo.url.get_secret_value(), "pymongo")
    try:
        return await ask(settings, settings.routes(), client.get_database)
    except PyMongoError as error:
        raise StoreUnavailable(
            f"mongo: {type(error).__name__}", hint="check mongo.url, that the server runs, user and password"
        ) from error
    finally:
        await client.close()


def _of_files(settings: Settings) -> Iterator[Fault]:
    """Whether this host can write a journal and a control store that are files. Creates nothing."""
    for field, place in settings.places().items():
        if place.kind == "sqlite" and (why_not := why_unwritable(place.path)):
            yield Fault(field, str(place.path), f"a file that can be written here: {why_not}")


def _reads(route: Route) -> str:
    """The configured shares of reads, and whether they have an effect."""
    said = "".join(f" reads={store}:{share:.4g}" for store, share in route.reads.named().items())
    return said if not said or route.secondary_reads else f"{said} (no effect: {route.primary} is the primary)"


@app.command("show")
def show(config: ConfigFile = Path("config/shadow.yaml")) -> None:
    """Prints the settings in force as JSON, with defaults filled in.

    Secrets are hidden."""
    typer.echo(load(config).model_dump_json(indent=2))


@app.command("phase")
def phase(
    phase: Annotated[Phase, typer.Argument(help="The phase to set.")],
    collections: Annotated[list[str], typer.Argument(help="The collections.")],
    config: ConfigFile = Path("config/shadow.yaml"),
) -> None:
    """Sets the phase of collections in the file; comments are kept.

    Running applications that watch the file apply it. One step at a time: off, dual_write, shadow. If MongoDB can be
    reached, it is checked first: a collection that two stores cannot keep equal is refused. Exit code 2 if the file
    would not be valid, or a collection is refused."""
    settings, before = load(config), config.read_text(encoding="utf-8")
    for name in chosen(settings, collections):
        now = settings.route(name).phase
        if phase not in (now, *neighbours(now)):
            raise JobRefused(f"{name}: it is in phase {now}", hint=f"first {neighbours(now)[0]}, in every process")
    after = edited(before, collections, {"phase": str(phase)})
    made = parse(after, source=str(config))
    behind = [name for name in collections if made.route(name).phase is not phase]
    if behind:
        raise JobRefused(
            "the file does not decide the phase", hint="look for SHADOW_COLLECTIONS_... in the environment"
        )
    note = _kinds(made, collections) if phase is not Phase.OFF else ""
    if after != before:
        replace_file(config, after)
    typer.echo(f"{', '.join(collections)}: phase {phase} in {config}")
    if note:
        typer.echo(f"note: {note}", err=True)


def _kinds(settings: Settings, names: list[str]) -> str:
    """A note if MongoDB did not answer, otherwise "". Raises `JobRefused`."""
    looked = asyncio.run(_look_at(settings, names))
    if looked.refused:
        said = "; ".join(each.error().message for each in looked.refused)
        hint = "; ".join(dict.fromkeys(f"{each.collection}: {each.advice}" for each in looked.refused))
        raise JobRefused(f"{said}; the file is unchanged", hint=hint)
    if not looked.not_seen:
        return ""
    return (
        f"MongoDB was not checked ({looked.not_seen}): an application process that finds a collection that two stores "
        "cannot keep equal leaves its phase unchanged (event config.rejected)"
    )


async def _streams(settings: Settings, collections: Iterable[str]) -> list[str]:
    """Why out-of-band writes on DynamoDB would not be relayed, one text each. Raises nothing of the driver's."""
    store = DynamoStore(settings.dynamo, settings.specs(), context=DynamoContext(database=settings.mongo.database))
    texts: list[str] = []
    try:
        async with asyncio.timeout(_PATIENCE):
            for name in collections:
                try:
                    await store.check_stream([name])
                except UnsupportedOperation as error:
                    texts.append(f"{name}: {error.reason}; {error.hint}")
    except (PyMongoError, TimeoutError) as error:
        text = str((getattr(error, "details", None) or {}).get("errmsg") or type(error).__name__)
        texts.append(f"the streams of the tables were not checked ({text.partition(chr(10))[0]})")
    finally:
        await store.close()
    return texts


async def _look_at(settings: Settings, collections: Iterable[str]) -> _Looked:
    """As at the start of the application. Reads, and raises nothing of the driver's."""
    client = open_client(settings.mongo.url.get_secret_value(), "pymongo")
    store = MongoStore(client, settings.mongo.database, settings.specs(), owned=True)
    try:
        async with asyncio.timeout(_PATIENCE):
            found = [await store.looks.look(name) for name in collections]
        return _Looked([each for each in found if each is not None])
    except (PyMongoError, TimeoutError) as error:
        code = f" {error.code}" if isinstance(error, OperationFailure) and error.code is not None else ""
        return _Looked(not_seen=f"{type(error).__name__}{code}")
    finally:
        await store.close()
