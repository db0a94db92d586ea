"""`shadow fleet`: the processes that share the routing, and the removal of dead ones."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow.cli.jobs import control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import load
from shadow.control import flip_record as routing
from shadow.control import members, portability, receipts
from shadow.fleet.description import described
from shadow.observe.portability import shown_uses

__all__ = ["app"]

app = typer.Typer(help="Shows the processes that share the control store, and their decisions.", no_args_is_help=True)


@app.command("list")
def list_fleet(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Lists the processes: the route of each, and what its file asks for.

    Also the routes in force, and the last flip. Exit code 1 if processes disagree."""
    with contextlib.closing(control_of(load(config))) as records:
        found = described(routing.load(records), members.members(records))
        found["journals"] = sorted(members.journals(records))
        found["control"] = records.place
    if as_json:
        print_json(found)
    else:
        _show(Console(), found)
    raise typer.Exit(1 if found["disagreements"] else 0)


@app.command("forget")
def forget(
    id: Annotated[str, typer.Argument(help="A process, as `shadow fleet list` shows it; with --journal, a journal.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    journal: Annotated[
        bool, typer.Option("--journal", help="Abandon a journal: its entries are never replicated.")
    ] = False,
) -> None:
    """Removes a process that has ended for good from the list.

    Make sure that it has ended: a process that still writes would write to the old primary until it reaches the control
    store again. Exit code 1 if there is no such process."""
    with contextlib.closing(control_of(load(config))) as records:
        done = members.forget_journal(records, id) if journal else members.forget(records, id)
    typer.echo(f"{id}: {'forgotten' if done else 'not on the list'}")
    raise typer.Exit(0 if done else 1)


@app.command("receipts")
def list_receipts(
    config: ConfigFile = Path("config/shadow.yaml"),
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Lists flips, rehearsals, completions, repairs and steps of ramps, newest first.

    Who, why, the gates, and for how long writes were paused."""
    with contextlib.closing(control_of(load(config))) as records:
        found = receipts.listed(records, limit=limit)
    if as_json:
        print_json(found)
        return
    table = Table("receipt", "kind", "collections", "done", "by", "reason", "paused, ms")
    for each in found:
        held = max(each.get("held_seconds", {}).values(), default=0.0) * 1000
        to = ", ".join(f"{name} to {store}" for name, store in each.get("to", {}).items())
        if "share" in each:
            to = f"{each['collection']}: {each['store']} answers {each['share']:.4g} of the reads"
        row = (
            each["id"],
            each["kind"],
            to,
            each.get("done"),
            each.get("by", ""),
            each.get("reason", ""),
            f"{held:.0f}",
        )
        table.add_row(*(escape(str(cell)) for cell in row))
    Console().print(table)


@app.command("not-portable")
def not_portable(
    config: ConfigFile = Path("config/shadow.yaml"),
    forget: Annotated[str | None, typer.Option(help="Forget what was used of this collection.")] = None,
    operator: Annotated[str | None, typer.Option(help="With --forget: only this operator or option.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists what the processes have left to MongoDB alone.

    DynamoDB as primary refuses it. An operator that the application no longer uses is forgotten by itself after
    `control.keep_not_portable`, or at once with --forget. Exit code 1 if there was nothing to forget."""
    if operator is not None and forget is None:
        raise typer.BadParameter("--operator goes with --forget COLLECTION")
    settings = load(config)
    keep = settings.control.keep_not_portable
    with contextlib.closing(control_of(settings)) as records:
        gone = None if forget is None else portability.forget(records, forget, operator)
        found = portability.listed(records, now=time.time(), keep=keep)
    if gone is not None:
        typer.echo(f"{forget}: forgotten: {', '.join(gone) or 'nothing'}")
        raise typer.Exit(0 if gone else 1)
    accepted = {name: entry.accept_not_portable for name, entry in settings.collections.items()}
    shown = shown_uses(found, accepted)
    if as_json:
        print_json(shown)
        return
    table = Table("collection", "operator", "count", "verbs", "first seen", "last seen", "accepted")
    for name, each in shown.items():
        for used, of_it in each["operators"].items():
            verbs = ", ".join(f"{count} {verb}" for verb, count in of_it["verbs"].items())
            row = (name, used, of_it["count"], verbs, of_it["first_seen"], of_it["last_seen"])
            table.add_row(*(escape(str(cell)) for cell in row), "no" if used in each["not_accepted"] else "yes")
    Console().print(table)


def _show(console: Console, found: dict[str, Any]) -> None:
    table = Table("id", "process", "collection", "primary", "phase", "its file asks for")
    for each in found["members"]:
        name = f"{each['name']}{' (tool)' if each['tool'] else ''}{' DEAD' if each['dead'] else ''}"
        for collection, standing in each["standing"].items():
            row = (each["id"], name, collection, standing["primary"], standing["phase"], standing["file"])
            table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for name, each in found["routing"].items():
        marks = [text for text, there in _MARKS.items() if each[there]]
        console.print(escape(f"{name}: {each['primary']}, epoch {each['epoch']}{''.join(marks)}"))
    for name, apart in found["disagreements"].items():
        said = "; ".join(f"{', '.join(who)} at {where}" for where, who in apart.items())
        console.print(f"[bold red]processes disagree[/] on {escape(name)}: {escape(said)}")
    if found["flip"] is not None:
        flip = found["flip"]
        console.print(
            escape(f"last flip: {flip['state']}, by {flip['by']}{': ' if flip['said'] else ''}{flip['said']}")
        )
    console.print(escape(f"control store: {found['control']}; journals: {', '.join(found['journals']) or 'none'}"))


_MARKS = {", with a way back": "way_back", ", complete": "completed", ", some files behind": "files_behind"}
