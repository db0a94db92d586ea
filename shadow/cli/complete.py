"""`shadow complete`: ends a migration; from then on only one store is written."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from shadow.cli.flip import Echo, Force, Reason, carry_out
from shadow.cli.jobs import chosen, control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import load
from shadow.control import flip_record as routing
from shadow.control.flip_record import FlipKind, Routing
from shadow.control.records import Records
from shadow.fleet.flip import FlipRequest
from shadow.hooks.hooks import Hooks
from shadow.jobs.target import JobRefused
from shadow.model.phase import StoreName

__all__ = ["complete"]


def complete(
    collections: Annotated[list[str], typer.Argument(help="The collections to complete together.")],
    on: Annotated[StoreName, typer.Option(help="The store to keep; it must be the primary.")] = StoreName.DYNAMO,
    config: ConfigFile = Path("config/shadow.yaml"),
    apply: Annotated[bool, typer.Option("--apply", help="Make the change; without it, a dry run.")] = False,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Remove the mark, to start another migration, backfill included.")
    ] = False,
    force: Force = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Ends dual writes, in all processes at once.

    From then on the other store gets no more writes, and the only way back is another migration. A dry run unless
    --apply is given. Exit code 0 if it is done, 1 if gates are closed or a process did not take part, 2 if refused."""
    settings = load(config)
    collections = chosen(settings, collections)
    with contextlib.closing(control_of(settings)) as records:
        if reopen:
            _reopen(records, collections)
            if as_json:
                print_json({"collections": collections, "reopened": True})
            else:
                typer.echo(f"{', '.join(collections)}: reopened; set phase dual_write and start with a backfill")
            return
        order = FlipRequest(
            records,
            FlipKind.COMPLETE,
            collections,
            on,
            settings.control.heartbeat,
            settings.limits.drain,
            Hooks(settings.hook_list(), Echo()),
        )
        values = {"primary": str(on), "phase": "off"}
        carry_out(order, settings, config, values, dry_run=not apply, force=force, reason=reason, as_json=as_json)


def _reopen(records: Records, names: list[str]) -> None:
    def make(seen: Routing) -> Routing:
        for name in names:
            if name not in seen.placed or not seen.placed[name].completed:
                raise JobRefused(f"{name}: its migration is not complete")
        return seen.with_placed({name: dataclasses.replace(seen.placed[name], completed=False) for name in names})

    routing.change(records, make)
