"""`shadow flip`: makes the other store the primary, in all processes at once, if the gates are open."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from shadow.cli.jobs import chosen, control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.rehearsal import COLLECTION, rehearse
from shadow.cli.rights import run
from shadow.config import Settings, load
from shadow.config.flips import window_of
from shadow.control.flip_record import FlipKind
from shadow.fleet.coordinator import Aborted, Flipped
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.hooks.hooks import Hooks
from shadow.jobs.config_file import edited, put_in_file
from shadow.jobs.target import JobRefused
from shadow.model.events import Noted
from shadow.model.guards import WatchPlan
from shadow.model.phase import StoreName
from shadow.observe.log import Event as LogEvent

__all__ = ["Echo", "Force", "Reason", "carry_out", "flip"]

_HOOKS: Final = 10.0
"""Seconds that the command waits for hooks that are called in the background, when all is done."""


class Echo:
    """Shows on standard error what hooks did not take, and what they have vetoed."""

    def publish(self, event: Any) -> None:
        if isinstance(event, Noted) and event.name != LogEvent.HOOK_DELIVERED:
            about = event.fields
            typer.echo(f"{event.name}: {about['hook']}, for {about['on']}: {about['detail']}", err=True)


Watch = Annotated[
    str | None,
    typer.Option(
        help="Watch the guards for this long after the flip (30m), and take it back when one breaks; 0: not at all. "
        "Default: `flip.watch`."
    ),
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Watch, but only report it when a guard breaks.")]
Force = Annotated[bool, typer.Option("--force", help="Override closed gates; needs --reason.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the receipt.")]


def flip(
    to: Annotated[StoreName, typer.Option(help="The new primary.")],
    collections: Annotated[list[str] | None, typer.Argument(help="The collections to flip together.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every configured collection.")] = False,
    config: ConfigFile = Path("config/shadow.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show gates and steps; change nothing.")] = False,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Flip documents of a collection of its own forward and back, pause all writes once as a flip does, "
            "and stop there.",
        ),
    ] = False,
    watch: Watch = None,
    report_only: ReportOnly = False,
    force: Force = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Makes the other store the primary, in all processes at once.

    Every process pauses its writes, waits until the secondary has caught up, and switches; or none does. To go back,
    run the command with the other store. With --watch, the application's processes watch the guards of `flip.guards`
    for a time, and take the flip back by themselves when one breaks. Exit code 0 if it is done (with --dry-run: if it
    could be done), 1 if gates are closed or a process did not take part, 2 if refused."""
    settings = load(config)
    names = _names(settings, collections, every=every)
    kind = FlipKind.REHEARSAL if rehearsal else FlipKind.FLIP
    asked = _window(watch, report_only=report_only, rehearsal=rehearsal)
    with contextlib.closing(control_of(settings)) as records:
        hooks = Hooks(settings.hook_list(), Echo())
        order = FlipRequest(records, kind, names, to, settings.control.heartbeat, settings.limits.drain, hooks)
        order = dataclasses.replace(order, watch=_plan(order, settings, asked, report_only=report_only))
        carry_out(
            order, settings, config, {"primary": str(to)}, dry_run=dry_run, force=force, reason=reason, as_json=as_json
        )


def _window(watch: str | None, *, report_only: bool, rehearsal: bool) -> float | None:
    """The seconds that were asked for; None: nothing was."""
    if rehearsal and (watch is not None or report_only):
        raise typer.BadParameter("a rehearsal changes nothing, so that there is nothing to watch")
    if watch is None:
        return None
    try:
        return window_of(watch)
    except ValueError as error:
        raise typer.BadParameter(f"--watch {watch}: {error}") from None


def _plan(order: FlipRequest, settings: Settings, asked: float | None, *, report_only: bool) -> WatchPlan | None:
    """The setting is for flips to DynamoDB: a way back is only watched if that is asked for."""
    if order.kind is FlipKind.REHEARSAL:
        return None
    plan = settings.flip.plan(asked, take_back=False if report_only else None)
    if plan is None and report_only:
        raise typer.BadParameter("--report-only needs a window: --watch 30m, or flip.watch in the configuration")
    return plan if asked is not None or order.to is StoreName.DYNAMO else None


def _names(settings: Settings, given: Sequence[str] | None, *, every: bool) -> list[str]:
    if bool(given) is every:
        raise typer.BadParameter("name collections, or give --all")
    return chosen(settings, given)


def carry_out(
    order: FlipRequest,
    settings: Settings,
    path: Path,
    values: Mapping[str, str],
    *,
    dry_run: bool,
    force: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Carries out the request, from gates to receipt. `values` are then written to the file. Raises `typer.Exit`."""
    if force and not reason:
        raise typer.BadParameter("--force needs a --reason, which the receipt keeps")
    outlook = order.look()
    report: dict[str, Any] = {
        "kind": str(order.kind),
        "collections": list(order.names),
        "to": str(order.to),
        "closed": [
            {"collection": gate.collection, "name": gate.name, "said": gate.said, "look_at": gate.look_at}
            for gate in outlook.closed
        ],
        "forced": force,
        "reason": reason,
        "done": False,
        "watch": None if order.watch is None else dataclasses.asdict(order.watch),
    }
    if dry_run or (outlook.closed and not force):
        report |= {"steps": outlook.steps(order), "diff": _diff(order, path, values)}
        _tell(report, dry_run=dry_run, as_json=as_json)
        raise typer.Exit(1 if outlook.closed and not force else 0)
    if not as_json:
        # Shown before the steps: these gates are overridden.
        _tell_closed(report)
    report |= _made(order, outlook, settings, path, values, force=force, reason=reason, as_json=as_json)
    if not order.hooks.finish(_HOOKS):
        typer.echo(f"note: some hooks have not taken their call within {_HOOKS:g} s", err=True)
    _tell(report, dry_run=False, as_json=as_json)
    raise typer.Exit(0 if report["done"] else 1)


def _made(
    order: FlipRequest,
    outlook: FlipPlan,
    settings: Settings,
    path: Path,
    values: Mapping[str, str],
    *,
    force: bool,
    reason: str,
    as_json: bool,
) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if order.kind is FlipKind.REHEARSAL:
        more["canaries"] = {
            name: run(path, rehearse(settings, name, order.to), beside=[COLLECTION]) for name in order.names
        }

    def step(name: str, said: str) -> None:
        if not as_json:
            typer.echo(f"{name}: {said}")

    try:
        flipped = order.make(outlook, reason=reason, forced=force, step=step, more=more)
    except Aborted as error:
        return {"said": str(error), **more}
    after: dict[str, Any] = {**flipped.receipt(), **more, "file": ""}
    if flipped.done and order.kind is not FlipKind.REHEARSAL:
        after["file"] = put_in_file(path, order.names, values) or _overruled(path, order, values)
    return {**after, "to": str(order.to), "done": flipped.done and _well(flipped, more)}


def _well(flipped: Flipped, more: Mapping[str, Any]) -> bool:
    return all(each["equal"] for each in more.get("canaries", {}).values())


def _overruled(path: Path, order: FlipRequest, values: Mapping[str, str]) -> str:
    """The environment overrides the file and may still ask for the previous store."""
    settings = load(path)
    others = [name for name in order.names if "primary" in values and settings.route(name).primary is not order.to]
    return f"the environment still sets another primary for {', '.join(others)}: change it there" if others else ""


def _diff(order: FlipRequest, path: Path, values: Mapping[str, str]) -> str:
    if order.kind is FlipKind.REHEARSAL:
        return ""
    before = path.read_text(encoding="utf-8")
    try:
        after = edited(before, order.names, values)
    except JobRefused as error:
        return error.message
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(path), str(path), n=1)
    return "".join(lines)


def _tell(report: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    if "diff" in report:
        _tell_closed(report)
        _tell_steps(report, dry_run=dry_run)
        return
    names = ", ".join(report["collections"])
    if not report["done"]:
        typer.echo(f"{names}: not done, nothing has changed: {report['said']}")
        return
    held = max(report["held_seconds"].values(), default=0.0) * 1000
    typer.echo(f"{names}: {_outcome(report)}; writes were paused for at most {held:.0f} ms")
    if report.get("watch"):
        back = "is taken back by itself" if report["watch"]["take_back"] else "is reported"
        typer.echo(
            f"it is watched for {report['watch']['seconds']:g} s, and {back} when a guard breaks: shadow watch list"
        )
    if report["file"]:
        typer.echo(f"note: {report['file']}")


def _tell_closed(report: Mapping[str, Any]) -> None:
    word = "closed, overridden" if report["forced"] else "closed"
    for gate in report["closed"]:
        typer.echo(f"{word}: {gate['collection']}: {gate['name']}: {gate['said']}; {gate['look_at']}")


def _outcome(report: Mapping[str, Any]) -> str:
    match FlipKind(report["kind"]):
        case FlipKind.REHEARSAL:
            documents = sum(each["documents"] for each in report["canaries"].values())
            return f"rehearsed forward and back with {documents} documents of its own"
        case FlipKind.COMPLETE:
            return f"complete; only {report['to']} is written"
        case _:
            return f"{report['to']} is now the primary"


def _tell_steps(report: Mapping[str, Any], *, dry_run: bool) -> None:
    if report["closed"] and not report["forced"]:
        typer.echo("refused: gates are closed (--force --reason TEXT overrides them and is recorded)")
    if dry_run:
        typer.echo("the steps:")
        for number, step in enumerate(report["steps"], start=1):
            typer.echo(f"  {number}. {step}")
        if report["diff"]:
            typer.echo(f"and the file:\n{report['diff']}")
