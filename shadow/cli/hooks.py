"""`shadow hooks`: calls the configured hooks, so that an operator sees that they work."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.config import load
from shadow.hooks.hooks import TEST, body_of
from shadow.hooks.sending import attempt
from shadow.model.hooks import Hook, HookEvent
from shadow.model.version import fresh_id
from shadow.observe.log import scrub

__all__ = ["app"]

app = typer.Typer(help="Calls the configured hooks.", no_args_is_help=True)

_WHY: Final = "a test by `shadow hooks send`"


@app.callback()
def hooks() -> None:
    """Calls the configured hooks."""


@app.command("send")
def send(
    names: Annotated[list[str] | None, typer.Argument(help="Hooks, by name; default: all of them.")] = None,
    event: Annotated[
        HookEvent | None,
        typer.Option(help="Send this event, to the hooks that are called for it; default: the event `test`, to all."),
    ] = None,
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Sends a test event to the configured hooks.

    Each gets one attempt, with its time limit and signature. The body has `"test": true` and the event `test`, which no
    other call has; with --event the body is still marked, but a hook that does not look may act on it. Exit code 1 if a
    hook has not agreed."""
    configured = {hook.name: hook for hook in load(config).hook_list()}
    unknown = sorted(set(names or ()) - set(configured))
    if unknown:
        raise typer.BadParameter(f"no such hook: {', '.join(unknown)}; configured: {', '.join(configured) or 'none'}")
    chosen = [hook for name, hook in configured.items() if not names or name in names]
    if event is not None:
        chosen = [hook for hook in chosen if event in hook.on]
    found = [_sent(hook, TEST if event is None else str(event)) for hook in chosen]
    if as_json:
        print_json(found)
    else:
        _show(found)
    raise typer.Exit(0 if all(each["ok"] for each in found) else 1)


def _sent(hook: Hook, event: str) -> dict[str, Any]:
    id, started = fresh_id(), time.monotonic()
    done = attempt(hook, event, id, body_of(event, id, {"test": True, "reason": _WHY}, time.time()))
    seconds = round(time.monotonic() - started, 3)
    return {"hook": hook.name, "event": event, **dataclasses.asdict(done), "said": scrub(done.said), "seconds": seconds}


def _show(found: list[dict[str, Any]]) -> None:
    if not found:
        typer.echo("no hook is configured for it")
        return
    table = Table("hook", "event", "result", "seconds", "its answer")
    for each in found:
        result = "agreed" if each["ok"] else "said no" if each["answered"] else "no answer"
        row = (each["hook"], each["event"], result, each["seconds"], each["said"])
        table.add_row(*(escape(str(cell)) for cell in row))
    Console().print(table)
