"""`shadow tables`: the tables and indexes that the configuration asks for."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pymongo.errors import DuplicateKeyError, PyMongoError

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.client import Shadow
from shadow.config import Settings, load
from shadow.errors import StoreUnavailable
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.templates import cloudformation, iam_policy, terraform

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(help="Tables and indexes.", no_args_is_help=True)


@app.callback()
def tables() -> None:
    """Tables and indexes."""


@app.command("create")
def create(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Makes the tables and indexes that are missing, on both stores, and waits until they can be used. Changes none
    that exists."""
    names = asyncio.run(_create(config))
    if as_json:
        print_json({"prepared": names})
        return
    typer.echo(f"prepared: {', '.join(names)}")


async def _create(config: Path) -> list[str]:
    async with Shadow.from_file(config) as shadow:
        await shadow.prepare()
        return list(shadow.settings.collections)


@app.command("sweep")
def sweep(
    config: ConfigFile = Path("config/shadow.yaml"),
    apply: Annotated[bool, typer.Option("--apply", help="Delete them; without it they are only counted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Finds the parts of large documents on DynamoDB that a crash has left behind (over a day old, named by nothing).
    A running application does so by itself every `dynamo.sweep_every` seconds. Scans the tables."""
    settings = load(config)

    async def each(store: DynamoStore) -> dict[str, int]:
        return {name: await store.sweep(name, dry_run=not apply) for name in settings.collections}

    left = _on_dynamo(settings, each)
    if as_json:
        print_json({"left_behind": left, "deleted": apply})
        return
    for name, count in left.items():
        typer.echo(f"{name}: {count} {'deleted' if apply else 'left behind'}")


@app.command("check-unique")
def check_unique(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Looks at every document of the collections with `unique` on DynamoDB once more, and takes the values that a
    writer without the constraint has left untaken. Exit code 1 if two documents share one."""
    settings = load(config)

    async def each(store: DynamoStore) -> dict[str, str]:
        return {name: await _checked(store, name) for name, spec in settings.specs().items() if spec.unique}

    said = _on_dynamo(settings, each)
    shared = {name: text for name, text in said.items() if text}
    if as_json:
        print_json({"checked": list(said), "duplicates": shared})
    else:
        for name, text in said.items():
            typer.echo(f"{name}: {text or 'every value belongs to one document'}")
    if shared:
        raise typer.Exit(1)


@app.command("plan")
def plan(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Compares the tables on DynamoDB with the configuration: what is missing, and what is otherwise than it ought to
    be. Changes nothing. Exit code 1 if something differs; `create` makes what is missing."""
    found = _on_dynamo(load(config), lambda store: store.drift())
    if as_json:
        print_json(found)
    else:
        for table, differences in found.items():
            for text in differences or ["as configured"]:
                typer.echo(f"{table}: {text}")
    if any(found.values()):
        raise typer.Exit(1)


class Form(enum.StrEnum):
    CLOUDFORMATION = "cloudformation"
    TERRAFORM = "terraform"
    IAM = "iam"


@app.command("export")
def export(
    form: Annotated[Form, typer.Argument(help="What to print, as JSON; terraform is a *.tf.json file.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    making: Annotated[bool, typer.Option("--making", help="iam: also the rights to make tables and indexes.")] = False,
) -> None:
    """Prints the tables for CloudFormation or Terraform, or the least rights that they need. Asks no server."""
    settings = load(config)
    prefix = settings.dynamo.table_prefix
    specs = {f"{prefix}{name}": spec for name, spec in settings.specs().items()}
    match form:
        case Form.CLOUDFORMATION:
            made = cloudformation(specs)
        case Form.TERRAFORM:
            made = terraform(specs)
        case Form.IAM:
            made = iam_policy(specs, region=settings.dynamo.region, making=making)
    typer.echo(json.dumps(made, indent=2))


async def _checked(store: DynamoStore, name: str) -> str:
    try:
        await store.check_unique(name)
    except DuplicateKeyError as error:
        return str(error)
    return ""


def _on_dynamo(settings: Settings, ask: Callable[[DynamoStore], Awaitable[T]]) -> T:
    """Asks a store of its own. Raises `StoreUnavailable` for what DynamoDB, or the way to it, refuses."""

    async def asked() -> T:
        store = DynamoStore(settings.dynamo, settings.specs(), database=settings.mongo.database)
        try:
            return await ask(store)
        finally:
            await store.close()

    try:
        return asyncio.run(asked())
    except PyMongoError as error:
        raise StoreUnavailable(f"dynamo: {error}", hint="check that it runs, and `shadow tables create`") from error
