"""Old spellings of commands. They still work, and print the new spelling on standard error.

shadow repair --journal [list | heal | explain]    shadow journal list | heal | explain
shadow repair-plan make | apply | undo             shadow repair plan | apply | undo
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from shadow.cli.journal import Apply, Collection, Limit, ShowKeys, What, Workers, run_journal
from shadow.cli.options import AsJson, ConfigFile

__all__ = ["HIDDEN", "WithOldSpelling", "journal", "old_repair_plan"]

_JOURNAL: Final = "--journal"

HIDDEN: Final = "journal"
"""The hidden subcommand of `repair` that implements the old spelling."""


class WithOldSpelling(TyperGroup):
    """The group `repair`, which also accepts the old `--journal`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        if _JOURNAL in options:
            args = [HIDDEN, *(each for each in args if each != _JOURNAL)]
        elif options and options[0] in list(What):
            raise typer.BadParameter(f"it is a command of `shadow journal`: shadow journal {options[0]}")
        return super().parse_args(ctx, args)


def journal(
    what: Annotated[What, typer.Argument()] = What.LIST,
    key: Annotated[str | None, typer.Argument()] = None,
    collection: Collection = None,
    apply: Apply = False,
    limit: Limit = 50,
    workers: Workers = 8,
    show_keys: ShowKeys = False,
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Replaced by `shadow journal`."""
    _notice("repair --journal", "journal list | heal | explain")
    if what is What.LIST and key is not None:
        raise typer.BadParameter("list takes no key; use `explain KEY`", param_hint="KEY")
    if apply and what is not What.HEAL:
        raise typer.BadParameter(f"--apply works with `heal`, not with {what.value}", param_hint="--apply")
    if what is What.EXPLAIN and key is None:
        raise typer.BadParameter("a key needs its collection: KEY --collection NAME", param_hint="KEY")
    run_journal(
        what,
        key,
        collection=collection,
        apply=apply,
        limit=limit,
        workers=workers,
        show_keys=show_keys,
        config=config,
        as_json=as_json,
    )


def old_repair_plan(commands: dict[str, Callable[..., None]]) -> typer.Typer:
    """The group `repair-plan`, with these commands under their old names."""
    app = typer.Typer(help="Replaced by `shadow repair`.", no_args_is_help=True)

    @app.callback()
    def notice() -> None:
        _notice("repair-plan make | apply | undo", "repair plan | apply | undo")

    for name, command in commands.items():
        app.command(name)(command)
    return app


def _notice(old: str, new: str) -> None:
    typer.echo(f"notice: `shadow {old}` is now `shadow {new}`; the old spelling still works", err=True)
