"""`shadow watch`: the watch windows of flips, and an operator's end of one."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from shadow.cli.jobs import control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.ramp import moment
from shadow.config import load
from shadow.control import flip_record, guard_record
from shadow.control.guard_record import GuardRecord, WatchState, WatchWindow
from shadow.control.records import Records
from shadow.fleet.watch_window import ended, listed
from shadow.host.user import user
from shadow.jobs.target import JobRefused

__all__ = ["app", "show"]

app = typer.Typer(help="Shows the watch windows of flips, and ends one early.", no_args_is_help=True)


@app.command("list")
def list_windows(config: ConfigFile = Path("config/shadow.yaml"), as_json: AsJson = False) -> None:
    """Lists the watch windows of flips: until when, and the figures of the guards.

    Those that are over last."""
    settings = load(config)
    with contextlib.closing(control_of(settings)) as records:
        found = listed(flip_record.load(records), guard_record.load(records), time.time())
    if as_json:
        print_json({"watches": found})
    else:
        show(Console(), found, over=True)


@app.command("end")
def end(
    collections: Annotated[list[str], typer.Argument(help="The collections; what was flipped together ends together.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    reason: Annotated[str, typer.Option(help="Why; kept in the receipt.")] = "",
) -> None:
    """Ends the watch window of a flip: the flip stays as it is.

    Nothing takes it back by itself from then on."""
    settings = load(config)
    with contextlib.closing(control_of(settings)) as records:
        for window in _end(records, collections, reason or f"ended by {user()} at {socket.gethostname()}"):
            typer.echo(f"{', '.join(window.collections)}: no longer watched; {window.to} stays the primary")


def _end(records: Records, names: Sequence[str], reason: str) -> list[WatchWindow]:
    """Raises `JobRefused` for a collection without a window, before anything is changed."""
    done: dict[str, WatchWindow] = {}

    def make(record: GuardRecord) -> GuardRecord:
        seen = flip_record.load(records)
        windows = guard_record.open_windows(seen, record)
        done.clear()
        for name in names:
            of_it = [each for each in windows.values() if name in each.left(seen)]
            if not of_it:
                raise JobRefused(f"{name}: no flip of it is watched", hint="shadow watch list")
            done.update({each.flip: each for each in of_it})
        for window in done.values():
            after, moves = ended(window, WatchState.ENDED, reason, time.time())
            record = record.with_watch(after, moves)
        return record

    guard_record.change(records, make)
    return [*done.values()]


def show(console: Console, found: Sequence[Mapping[str, Any]], *, over: bool = False) -> None:
    """The windows as `described` returns them; `over`: also those that are over."""
    for each in found:
        if each["open"] or over:
            console.print(f"watched: {escape(_told(each))}", soft_wrap=True)
            for name, said in each["guards"].items() if each["open"] else ():
                console.print(escape(f"  {name}: {said}"), soft_wrap=True)


def _told(each: Mapping[str, Any]) -> str:
    names = f"{', '.join(each['collections'])} on {each['to']} since {moment(each['since'])}"
    state = each["state"].replace("_", " ")
    if not each["open"]:
        return f"{names}: {state} at {moment(each['ended'])}: {each['reason']}"
    until = "its time does not count now" if each["ends_at"] is None else f"until {moment(each['ends_at'])}"
    if each["left_seconds"] is None:
        until = each["reason"]
    waits = f"; not known or not possible yet: {each['waits']}" if each["waits"] else ""
    takes = "" if each["takes_back"] else ", only reported"
    return f"{names}{takes}: {state}, {until}{waits}"
