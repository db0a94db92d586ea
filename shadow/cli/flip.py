"""`shadow flip`: makes the other store the primary of collections, when the gates are open."""

from __future__ import annotations

import contextlib
import difflib
import getpass
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from shadow.cli.jobs import control_of
from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.remote import Url, ask
from shadow.config import Settings, load, parse
from shadow.control import receipts
from shadow.errors import ConfigurationError
from shadow.migrate.flip import edited, living, replace_file
from shadow.migrate.sides import JobRefused
from shadow.model.phase import Phase, StoreName

__all__ = ["flip"]

_POLL: Final = 0.1
_MARGIN: Final = 5.0


def flip(
    collections: Annotated[list[str], typer.Argument(help="The collections, flipped together.")],
    to: Annotated[StoreName, typer.Option(help="The store that is to answer.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    url: Url = "http://127.0.0.1:8000",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show gates and steps, change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Flip though gates are closed; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the receipt.")] = "",
    as_json: AsJson = False,
) -> None:
    """Sets `primary` of the collections in the configuration file, and waits until the running application has changed
    over; if it has not in time, the file is put back. For an application of one process; the way back is the same
    command. Exit code 0 done, 1 if gates are closed or the application did not change over, 2 if it was refused."""
    if force and not reason:
        raise typer.BadParameter("--force needs a --reason, which is kept")
    settings, before = load(config), config.read_text(encoding="utf-8")
    after = _wanted(config, before, settings, collections, to)
    status = ask(url, "/status")
    _check_running(settings, status, collections, to)
    closed = [gate for gate in status["verdict"]["gates"] if gate["collection"] in collections and not gate["ok"]]
    report = {"collections": collections, "to": str(to), "closed": closed, "forced": force, "reason": reason}
    if dry_run or (closed and not force):
        _show({**report, "flipped": False, "diff": _diff(config, before, after)}, dry_run=dry_run, as_json=as_json)
        raise typer.Exit(1 if closed and not force else 0)
    started = time.time()
    done = _change(config, before, after, settings, url, collections, to)
    receipt = {**report, "flipped": done, "seconds": round(time.time() - started, 3), "who": getpass.getuser()}
    with contextlib.closing(control_of(settings)) as records:
        number = receipts.file(records, "flip", {**receipt, "gates": status["verdict"]["gates"]})
    _show({**receipt, "receipt": number}, dry_run=False, as_json=as_json)
    raise typer.Exit(0 if done else 1)


def _wanted(path: Path, text: str, settings: Settings, collections: Sequence[str], to: StoreName) -> str:
    """The file as it has to be. Raises `JobRefused` if the flip is no step that can be taken from here."""
    for name in collections:
        if name not in settings.collections:
            raise JobRefused(f"{name}: not in the configuration")
        route = settings.route(name)
        if route.primary is to:
            raise JobRefused(f"{name}: {to} is its primary already")
        if route.phase is not Phase.SHADOW:
            raise JobRefused(f"{name}: in phase {route.phase}; a flip starts from phase shadow")
    after = edited(text, collections, to)
    try:
        made = parse(after, source=str(path))
    except ConfigurationError:
        made = settings
    others = {name: route for name, route in settings.routes().items() if name not in collections}
    rest = {name: route for name, route in made.routes().items() if name not in collections}
    if others != rest or any(made.route(name).primary is not to for name in collections):
        raise JobRefused(
            "the file alone does not decide the primary", hint="look for SHADOW_COLLECTIONS_... in the environment"
        )
    return after


def _check_running(settings: Settings, status: Mapping[str, Any], collections: Sequence[str], to: StoreName) -> None:
    """The application that answers is the only one, and stands where the file says."""
    for name in collections:
        found = status["collections"].get(name)
        if found is None or found["primary"] != str(to.other) or found["phase"] != "shadow":
            raise JobRefused(f"{name}: the running application does not stand where the file says")
    if settings.journal.kind != "sqlite":
        raise JobRefused("a journal on a server may be shared by other hosts, which this flip cannot hold together")
    others = living(settings.journal.path)
    if others > 1:
        raise JobRefused(
            f"{others} processes share the journal; this flip can hold one",
            hint="end jobs that run; run the application as one process for the flip",
        )


def _change(
    path: Path,
    before: str,
    after: str,
    settings: Settings,
    url: str,
    collections: Sequence[str],
    to: StoreName,
) -> bool:
    """Writes the file and waits for the application. False: it did not change over, and the file is as it was."""
    patience = settings.limits.drain + settings.watch_every + _MARGIN

    def stand(store: StoreName) -> Callable[[], bool]:
        def look() -> bool:
            routes = ask(url, "/status")["collections"]
            return all(routes[name]["primary"] == str(store) for name in collections)

        return look

    replace_file(path, after)
    if _until(stand(to), patience):
        return True
    replace_file(path, before)
    if not _until(stand(to.other), patience):
        raise JobRefused(
            "the application neither changed over nor back; the file is as it was before",
            hint="look at `shadow status`: it changes back as soon as the secondary is level",
        )
    return False


def _until(condition: Callable[[], bool], patience: float) -> bool:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True


def _diff(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(path), str(path), n=1)
    return "".join(lines)


def _show(report: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for gate in report["closed"]:
        typer.echo(f"closed: {gate['collection']}: {gate['name']}: {gate['said']}; {gate['look_at']}")
    names = ", ".join(report["collections"])
    if "diff" in report:
        typer.echo(report["diff"])
        if report["closed"] and not report["forced"]:
            typer.echo("refused: gates are closed (--force --reason TEXT goes on all the same, and is recorded)")
        if dry_run:
            typer.echo("the steps: write the file as above; the application holds the writes of each collection, waits")
            typer.echo("until the secondary is level, changes over, lets the writes go on; else the file is put back")
        return
    outcome = f"{report['to']} is primary now" if report["flipped"] else "not changed over; all is as before"
    typer.echo(f"{names}: {outcome} ({report['seconds']} s; receipt {report['receipt']})")
