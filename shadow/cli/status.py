"""`shadow status`: what a running application says of itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow.cli.options import AsJson, print_json
from shadow.errors import StoreUnavailable

__all__ = ["status"]


def status(
    url: Annotated[
        str, typer.Option(envvar="SHADOW_STATUS_URL", help="Where the application serves the admin router.")
    ] = "http://127.0.0.1:8000",
    indexes: Annotated[
        bool,
        typer.Option("--indexes", help="The queries that scan on DynamoDB, and the indexes that would serve them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Routes, journal, lanes, findings and totals of a running application. Exit code 3 if it cannot be reached."""
    found = _ask(f"{url.rstrip('/')}/status")
    if as_json:
        print_json({"indexes": found["indexes"]} if indexes else found)
    elif indexes:
        _show_indexes(found["indexes"])
    else:
        _show(found)


def _ask(url: str) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url}: must begin with http:// or https://")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the scheme was checked above
            found: dict[str, Any] = json.load(answer)
            return found
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise StoreUnavailable(
            f"{url} did not answer with a status ({type(error).__name__})",
            hint="pass --url with the address under which `shadow.admin_router()` is served",
        ) from error


def _show(found: dict[str, Any]) -> None:
    table = Table("collection", "primary", "phase", "writes", "open intents", "deferred")
    journal = found["journal"]
    for name, route in found["collections"].items():
        waiting = (journal["open"].get(name, 0), journal["deferred"].get(name, 0))
        table.add_row(name, route["primary"], route["phase"], route["writes"], *map(str, waiting))
    console = Console()
    console.print(table)
    totals = found["totals"]
    verdicts = ", ".join(f"{count} {name}" for name, count in totals["verdicts"].items() if count) or "none yet"
    console.print(f"stores: {', '.join(_store(name, each) for name, each in found['stores'].items())}")
    console.print(f"comparisons: {totals['comparisons']} ({verdicts}); findings: {found['findings']['open']}")


def _show_indexes(found: list[dict[str, Any]]) -> None:
    console = Console()
    if not found:
        console.print("no query has scanned a table since the application started")
        return
    table = Table("collection", "query", "scans", "items read", "returned", "index that would serve it")
    for each in found:
        counts = (each["times"], each["items_read"], each["items_returned"])
        shape = (each["collection"] or "-", each["shape"])
        table.add_row(*(escape(text) for text in shape), *map(str, counts), each["suggested_index"] or "none would")
    console.print(table)


def _store(name: str, each: dict[str, Any]) -> str:
    return f"{name} {'up' if each['up'] else 'DOWN'}"
