"""`shadow tables`: the tables and indexes that the configuration needs."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import typer
from pymongo.errors import DuplicateKeyError, PyMongoError

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.progress import Shown, progress
from shadow.cli.rights import run
from shadow.client import Shadow
from shadow.config import Settings, load
from shadow.control.dynamo import control_description
from shadow.control.place import DynamoPlace
from shadow.errors import StoreUnavailable
from shadow.journal.server.dynamo_table import table_description as journal_description
from shadow.model.schema import CollectionSpec
from shadow.stores.dynamo.store import DynamoContext, DynamoStore
from shadow.stores.dynamo.tables.policy import Use, iam_policy
from shadow.stores.dynamo.tables.spec import TableDefinition, collection_table, plain_table
from shadow.stores.dynamo.tables.tables import TableState
from shadow.stores.dynamo.tables.templates import cloudformation, terraform

__all__ = ["app"]

T = TypeVar("T")
Reports: TypeAlias = dict[str, tuple[list[str], list[str]]]
"""By table: how it differs, and what the server does not support."""

_POLL: Final = 1.0

app = typer.Typer(help="Creates, checks and exports tables and indexes.", no_args_is_help=True)


@app.callback()
def tables() -> None:
    """Creates, checks and exports tables and indexes."""


@app.command("create")
def create(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Creates missing tables and indexes, and applies changed table settings.

    On both stores. It changes in place what `table` sets (billing, capacity, stream, protection, expiry, recovery,
    tags), and waits until everything can be used. It changes no document, except those that a new index would not find.
    It reports what the server does not support, and what cannot be changed."""
    settings = load(config)
    names = run(config, _create(config))

    async def rest(store: DynamoStore) -> Reports:
        for wanted in _others(settings):
            await store.manager.prepare(wanted)
        return await store.manager.drift(_wanted(settings))

    left = _on_dynamo(settings, rest, "tables create", quiet=as_json)
    if as_json:
        print_json({"prepared": names, "tables": _reported(left)})
        return
    typer.echo(f"prepared: {', '.join(names)}")
    for table, (differences, lacking) in left.items():
        for text in differences:
            typer.echo(f"{table}: {text}; left unchanged")
        for text in lacking:
            typer.echo(f"{table}: {text}")


async def _create(config: Path) -> list[str]:
    settings = load(config)
    async with Shadow(settings, path=config, passive=True) as shadow:
        # Created like the other tables: opening the journal needs more rights than creating its table.
        await shadow.prepare(journal=_journal(settings) is None)
        return list(settings.collections)


@app.command("sweep")
def sweep(
    config: ConfigFile = Path("config/shadow.yaml"),
    apply: Annotated[bool, typer.Option("--apply", help="Delete them; without it, only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Finds the parts of large documents on DynamoDB that a crash left behind.

    Parts that are over a day old and belong to no document. A running application does this by itself every
    `dynamo.sweep_every` seconds. Scans the tables."""
    settings = load(config)

    async def each(store: DynamoStore) -> dict[str, int]:
        return {name: await store.sweep(name, dry_run=not apply) for name in settings.collections}

    left = _on_dynamo(settings, each, "tables sweep", quiet=as_json)
    if as_json:
        print_json({"left_behind": left, "deleted": apply})
        return
    for name, count in left.items():
        typer.echo(f"{name}: {count} {'deleted' if apply else 'left behind'}")


@app.command("check-unique")
def check_unique(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Checks unique values of every document on DynamoDB again.

    For collections with `unique`. It also registers the values of documents that were written without the constraint.
    Exit code 1 if two documents share a value."""
    settings = load(config)

    async def each(store: DynamoStore) -> dict[str, str]:
        return {name: await _checked(store, name) for name, spec in settings.specs().items() if spec.unique}

    said = _on_dynamo(settings, each, "tables check-unique", quiet=as_json)
    shared = {name: text for name, text in said.items() if text}
    if as_json:
        print_json({"checked": list(said), "duplicates": shared})
    else:
        if not said:
            typer.echo("no configured collection has `unique`")
        for name, text in said.items():
            typer.echo(f"{name}: {text or 'every value belongs to one document'}")
    if shared:
        raise typer.Exit(1)


@app.command("plan")
def plan(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Compares the tables on DynamoDB with the configuration; changes nothing.

    Prints what is missing and what differs. Exit code 1 if anything does; `shadow tables create` applies it. What the
    server does not support is reported, and does not count as a difference."""
    settings = load(config)
    found = _on_dynamo(settings, lambda store: store.manager.drift(_wanted(settings)), "tables plan", quiet=as_json)
    if as_json:
        print_json(_reported(found))
    else:
        for table, (differences, lacking) in found.items():
            for text in [*differences, *lacking] or ["as configured"]:
                typer.echo(f"{table}: {text}")
    if any(differences for differences, _ in found.values()):
        raise typer.Exit(1)


@app.command("wait")
def wait(
    config: ConfigFile = Path("config/shadow.yaml"),
    timeout: Annotated[float, typer.Option(min=0, help="The most seconds to wait.")] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Waits until every table and index is ACTIVE, whoever creates them.

    Changes nothing. Exit code 1 if one is not ACTIVE in time."""
    settings = load(config)

    async def until(store: DynamoStore) -> dict[str, TableState]:
        with progress("tables wait", quiet=as_json) as shown:
            return await _ready(store, _wanted(settings), timeout, shown)

    states = _on_dynamo(settings, until, "tables wait", quiet=True)
    if as_json:
        rows = {name: {**dataclasses.asdict(each), "ready": each.is_ready} for name, each in states.items()}
        print_json(rows)
    else:
        for name, each in states.items():
            indexes = [f"{index} {status}" for index, status in each.indexes.items()]
            typer.echo(f"{name}: {', '.join([each.status, *indexes])}")
    if not all(each.is_ready for each in states.values()):
        raise typer.Exit(1)


async def _ready(
    store: DynamoStore, wanted: Sequence[TableDefinition], timeout: float, shown: Shown
) -> dict[str, TableState]:
    deadline = time.monotonic() + timeout
    task = shown.add_task("", total=len(wanted))
    while True:
        states = await store.manager.states(wanted)
        left = [name for name, each in states.items() if not each.is_ready]
        text = f"{len(wanted) - len(left)} of {len(wanted)} ready{f'; waiting for {left[0]}' if left else ''}"
        shown.update(task, completed=len(wanted) - len(left), description=text)
        if not left or time.monotonic() >= deadline:
            return states
        await asyncio.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))


class Form(enum.StrEnum):
    CLOUDFORMATION = "cloudformation"
    TERRAFORM = "terraform"
    IAM = "iam"


@app.command("export")
def export(
    form: Annotated[Form, typer.Argument(help="What to print as JSON; terraform gives a *.tf.json file.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    uses: Annotated[
        list[Use] | None,
        typer.Option("--for", help="iam: the use of the rights; can be given several times. [default: application]"),
    ] = None,
) -> None:
    """Prints the tables for CloudFormation or Terraform, or the least IAM rights.

    The rights are for the application, its create_index(unique=True), jobs, or creating the tables. The tables are
    those of the collections, and of a journal on DynamoDB. It contacts no server."""
    settings = load(config)
    match form:
        case Form.CLOUDFORMATION:
            made = cloudformation(_wanted(settings))
        case Form.TERRAFORM:
            made = terraform(_wanted(settings))
        case Form.IAM:
            made = iam_policy(
                _collections(settings),
                uses or [Use.APPLICATION],
                region=settings.dynamo.region,
                journal=_journal(settings),
                control=_control(settings),
                followed=settings.observe.follow_writers,
            )
    typer.echo(json.dumps(made, indent=2))


# --- the tables of a configuration ------------------------------------------------------------------------------


def _collections(settings: Settings) -> dict[str, tuple[TableDefinition, CollectionSpec]]:
    named = {f"{settings.dynamo.table_prefix}{name}": spec for name, spec in settings.specs().items()}
    return {table: (collection_table(table, spec), spec) for table, spec in named.items()}


def _journal(settings: Settings) -> TableDefinition | None:
    if settings.journal.kind != "dynamodb":
        return None
    return plain_table(journal_description(settings.journal.table), settings.dynamo.table.shared())


def _control(settings: Settings) -> TableDefinition | None:
    """The table of the control store, which may be the same as the journal's."""
    place = settings.control_place()
    if not isinstance(place, DynamoPlace):
        return None
    describe = journal_description if place.of_journal else control_description
    return plain_table(describe(place.table), settings.dynamo.table.shared())


def _others(settings: Settings) -> list[TableDefinition]:
    """The tables that are not a collection's."""
    found = {each.name: each for each in (_control(settings), _journal(settings)) if each is not None}
    return list(found.values())


def _wanted(settings: Settings) -> list[TableDefinition]:
    return [*(wanted for wanted, _ in _collections(settings).values()), *_others(settings)]


def _reported(found: Reports) -> dict[str, dict[str, list[str]]]:
    return {table: {"differences": one, "lacking": other} for table, (one, other) in found.items()}


async def _checked(store: DynamoStore, name: str) -> str:
    try:
        await store.check_unique(name)
    except DuplicateKeyError as error:
        return str(error)
    return ""


def _on_dynamo(settings: Settings, ask: Callable[[DynamoStore], Awaitable[T]], title: str, *, quiet: bool) -> T:
    """Runs `ask` on a store of its own and shows progress. Raises `StoreUnavailable` if DynamoDB refuses or cannot be
    reached."""

    async def asked() -> T:
        store = DynamoStore(settings.dynamo, settings.specs(), context=DynamoContext(database=settings.mongo.database))
        try:
            return await ask(store)
        finally:
            await store.close()

    try:
        with progress(title, quiet=quiet) as shown:
            shown.add_task(", ".join(settings.collections))
            return asyncio.run(asked())
    except PyMongoError as error:
        raise StoreUnavailable(
            f"dynamo: {_said(error)}", hint="check that it runs, and `shadow tables create`"
        ) from error


def _said(error: PyMongoError) -> str:
    """Without the hint that shadow's own errors contain, and without the details that PyMongo appends."""
    details = getattr(error, "details", None)
    text = str(details.get("errmsg") or error) if isinstance(details, Mapping) else str(error)
    return text.partition("\n")[0]
