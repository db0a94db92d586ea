"""`shadow ramp`: how far each ramp of reads is, and an operator's orders for it."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow.cli.jobs import control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import Settings, load
from shadow.control import guard_record
from shadow.control.guard_record import GuardRecord, Ramp, RampState
from shadow.fleet.ramp import described, ramp_move
from shadow.host.user import user
from shadow.jobs.target import JobRefused

__all__ = ["app", "show"]

app = typer.Typer(help="Shows the ramps of reads, and stops, resumes or takes them back.", no_args_is_help=True)

Collections = Annotated[list[str], typer.Argument(help="The collections.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the receipt.")]


@app.command("list")
def list_ramps(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Lists the ramps: the share of reads now, and the next one.

    With the time of the next step, or what it waits for."""
    settings = load(config)
    with contextlib.closing(control_of(settings)) as records:
        seen = guard_record.load(records)
    found = [described(each, _plan(settings, each), time.time()) for each in seen.ramps.values()]
    if as_json:
        print_json({"ramps": found})
    else:
        show(Console(), found)


@app.command("stop")
def stop(collections: Collections, config: ConfigFile = Path("config/shadow.yaml"), reason: Reason = "") -> None:
    """Keeps the share as it is until it is resumed.

    The guards still count: one that breaks takes the share back."""
    _order(config, collections, reason, lambda ramp: _at(ramp, ramp.share, RampState.STOPPED, f"stopped by {_who()}"))


@app.command("resume")
def resume(collections: Collections, config: ConfigFile = Path("config/shadow.yaml"), reason: Reason = "") -> None:
    """Lets a ramp that was stopped step on again, from where it is.

    Once the guards have held for its time."""
    _order(config, collections, reason, lambda ramp: _at(ramp, ramp.share, RampState.RAMPING, ""))


@app.command("back")
def back(collections: Collections, config: ConfigFile = Path("config/shadow.yaml"), reason: Reason = "") -> None:
    """Gives all reads back to the primary in every process, and stops the ramp there."""
    _order(config, collections, reason, lambda ramp: _at(ramp, 0.0, RampState.STOPPED, f"taken back by {_who()}"))


def _who() -> str:
    return f"{user()} at {socket.gethostname()}"


def _at(ramp: Ramp, share: float, state: RampState, waits: str) -> Ramp:
    return ramp.moved(share, state, time.time(), waits)


def _order(config: Path, names: Sequence[str], reason: str, make: Callable[[Ramp], Ramp]) -> None:
    """Raises `JobRefused` for a collection without a ramp, before anything is changed."""

    def ordered(seen: GuardRecord) -> GuardRecord:
        missing = [name for name in names if name not in seen.ramps]
        if missing:
            raise JobRefused(
                f"{', '.join(missing)}: no ramp is under way",
                hint="a ramp begins when a running process has `reads: {dynamo: {ramp: [...]}}` in its file, in phase "
                "shadow: shadow ramp list",
            )
        for name in names:
            before = seen.ramps[name]
            after = make(before)
            seen = seen.with_ramp(after, ramp_move(before, after, by=_who(), reason=reason, figures={}))
        return seen

    settings = load(config)
    with contextlib.closing(control_of(settings)) as records:
        seen = guard_record.change(records, ordered)
    for name in names:
        ramp = seen.ramps[name]
        typer.echo(f"{name}: {ramp.state}, {ramp.store} answers {ramp.share:.4g} of the reads")


def _plan(settings: Settings, ramp: Ramp) -> Any:
    return settings.ramps().get(ramp.collection, {}).get(ramp.store)


def show(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """A table of ramps as `described` returns them."""
    table = Table("collection", "store", "reads", "next", "state", "since")
    for each in found:
        cells = (each["collection"], each["store"], f"{each['share']:.4g}", following(each), each["state"])
        table.add_row(*map(escape, cells), moment(each["since"]))
    console.print(table)
    for each in found:
        if each["waits"]:
            console.print(escape(f"{each['collection']}: {each['waits']}"))


def following(each: Mapping[str, Any]) -> str:
    """The next step, for people."""
    if each["next_share"] is None:
        return "-"
    when = "once the guards hold" if each["next_at"] is None else f"at {moment(each['next_at'])}"
    return f"{each['next_share']:.4g} {when}"


def moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
