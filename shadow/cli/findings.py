"""`shadow findings`: lists confirmed mismatches and repairs them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from shadow.cli.options import AsJson, print_json
from shadow.cli.remote import Url, ask
from shadow.model.verdict import Kind

__all__ = ["app"]

LOCAL = "http://127.0.0.1:8000"
AT_ONCE = 100
"""Findings per repair request; more are sent in several requests."""

app = typer.Typer(help="Shows confirmed mismatches and repairs them.", no_args_is_help=True)

OfCollection = Annotated[str | None, typer.Option("--collection", help="Only of this collection.")]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="Only of this kind.")]
OfPath = Annotated[
    str | None, typer.Option("--path", help="Only with a difference at this path; * stands for positions.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="The most to show or repair.")]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        exists=True,
        dir_okay=False,
        help="Read this file (JOURNAL.findings) instead of asking an application.",
    ),
]


@app.command("list")
def list_(
    url: Url = LOCAL,
    file: FromFile = None,
    collection: OfCollection = None,
    kind: OfKind = None,
    path: OfPath = None,
    healed: Annotated[bool | None, typer.Option("--healed/--open", help="Only repaired, or only open ones.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Lists findings, last seen first, and their groups by collection, kind and path.

    Exit code 1 if any finding is open."""
    wanted = {"collection": collection, "kind": kind, "path": path, "healed": healed, "limit": limit}
    found = _list(url, file, wanted)
    if as_json:
        print_json(found)
    else:
        _show_list(found)
    raise typer.Exit(1 if any(not each["healed"] for each in found["findings"]) else 0)


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(help="The finding's id, as `shadow findings list` shows it.")],
    url: Url = LOCAL,
    file: FromFile = None,
    as_json: AsJson = False,
) -> None:
    """Shows one finding by path: types and hashes, never values."""
    if file is not None:
        from shadow.observe.findings_file import FindingsFile
        from shadow.observe.mismatch_file import MismatchFile

        found = FindingsFile(MismatchFile(file)).get(id)
        if found is None:
            raise typer.BadParameter("no such finding")
    else:
        found = ask(url, f"/findings/{_in_path(id)}")
    if as_json:
        print_json(found)
    else:
        _show_one(found)


@app.command("heal")
def heal(
    ids: Annotated[list[str] | None, typer.Argument(help="Findings by id; or choose them with the options.")] = None,
    url: Url = LOCAL,
    collection: OfCollection = None,
    kind: OfKind = None,
    path: OfPath = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the change; without it, only show what would be done.")
    ] = False,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """Repairs findings: copies the primary's documents to the secondary.

    A dry run unless --apply is given. Needs the application's admin token in SHADOW_ADMIN_TOKEN. Exit code 1 if a
    finding could not be repaired."""
    if not ids and not (collection or kind or path):
        raise typer.BadParameter("name findings, or choose them with --collection, --kind or --path")
    chosen = ids or _chosen(
        url, {"collection": collection, "kind": kind, "path": path, "healed": False, "limit": limit}
    )
    results: list[dict[str, Any]] = []
    for start in range(0, len(chosen), AT_ONCE):
        part = chosen[start : start + AT_ONCE]
        results += ask(url, "/findings/heal", body={"ids": part, "dry_run": not apply})["results"]
    if as_json:
        print_json({"dry_run": not apply, "results": results})
    else:
        _show_results(results, dry_run=not apply)
    bad = [each for each in results if each["result"] not in ("equal", "copied", "tombstoned")]
    raise typer.Exit(1 if bad else 0)


def _list(url: str, file: Path | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in wanted.items() if value is not None}
    if file is None:
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
        return ask(url, "/findings", query=texts)
    from shadow.observe.findings_file import FindingsFile
    from shadow.observe.mismatch_file import MismatchFile

    source = FindingsFile(MismatchFile(file))
    return {"findings": source.list(**given), "groups": source.groups(), "summary": source.summary()}


def _chosen(url: str, wanted: Mapping[str, Any]) -> list[str]:
    """The findings about documents. Those about whole answers name no document to repair."""
    return [each["id"] for each in _list(url, None, wanted)["findings"] if each["key_hash"]]


def _in_path(id: str) -> str:
    if not id.isalnum():
        raise typer.BadParameter(f"{id}: not the id of a finding")
    return id


def _show_list(found: Mapping[str, Any]) -> None:
    console = Console()
    if not found["findings"]:
        console.print("no findings")
        return
    table = Table("collection", "kind", "paths", "count", "last seen", "state")
    table.columns.insert(0, Column("id", no_wrap=True))
    for each in found["findings"]:
        paths = ", ".join(dict.fromkeys(diff["path"] or "-" for diff in each["differences"][:5]))
        row = (each["id"], each["collection"], each["kind"], paths)
        table.add_row(*map(escape, row), str(each["count"]), _moment(each["last_seen"]), _state(each))
    console.print(table)
    _show_groups(console, found["groups"])
    summary = found["summary"]
    console.print(f"{summary['open']} open, {summary['kept']} kept, {summary['dropped']} dropped beyond the bound")


def _show_groups(console: Console, groups: Iterable[Mapping[str, Any]]) -> None:
    table = Table("collection", "kind", "path", "count", "last seen")
    for each in groups:
        names = (each["collection"], each["kind"], each["path"] or "-")
        table.add_row(*map(escape, names), str(each["count"]), _moment(each["last_seen"]))
    console.print(table)


def _show_one(found: Mapping[str, Any]) -> None:
    console = Console()
    states = f"primary at {found['primary_state'] or '?'}, secondary at {found['secondary_state'] or '?'}"
    console.print(escape(f"{found['collection']} {found.get('key') or found['key_hash'] or '(whole answer)'}"))
    console.print(escape(f"{found['kind']}, {_state(found)}, seen {found['count']} times; {states}"))
    console.print(f"first seen {_moment(found['first_seen'])}, last {_moment(found['last_seen'])}")
    if trace := found.get("first_trace"):
        console.print(escape(f"first seen in trace {trace}"))
    table = Table("path", "kind", "primary", "secondary")
    for each in found["differences"]:
        sides = (f"{each[f'{side}_type']} {each[f'{side}_hash']}" for side in ("primary", "secondary"))
        table.add_row(*map(escape, (each["path"] or "-", each["kind"], *sides)))
    console.print(table)


def _show_results(results: Sequence[Mapping[str, Any]], *, dry_run: bool) -> None:
    console = Console()
    if not results:
        console.print("no open finding matches")
        return
    table = Table("id", "collection", "would be" if dry_run else "result")
    for each in results:
        table.add_row(each["id"], escape(each["collection"]), escape(each["result"]))
    console.print(table)
    if dry_run:
        console.print("nothing was changed; --apply makes the change")


def _state(found: Mapping[str, Any]) -> str:
    return "healed" if found["healed"] else "open"


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
