"""`shadow status`: the state of a running application, first of all whether it is safe to flip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from shadow.cli.latency import show as show_latency
from shadow.cli.options import AsJson, print_json
from shadow.cli.ramp import show as show_ramps
from shadow.cli.remote import Url, ask
from shadow.cli.watch import show as show_watches
from shadow.fleet.health_gates import Gate, Readiness
from shadow.fleet.status import JournalStatus, ProcessStatus, StoreStatus, of_json

__all__ = ["status"]


def status(
    url: Url = "http://127.0.0.1:8000",
    indexes: Annotated[
        bool,
        typer.Option(
            "--indexes",
            help="Each shape of query that scans on DynamoDB: how often, what it read and returned, and an index that "
            "would serve it.",
        ),
    ] = False,
    gates: Annotated[
        bool, typer.Option("--gates", help="Every gate of every collection with its figure, closed ones first.")
    ] = False,
    details: Annotated[
        bool,
        typer.Option("--details", help="How each collection is written and read, what waits, and its closed gates."),
    ] = False,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="Store against store, by collection and shape of query: p50, p95 and p99 of both in milliseconds, of "
            "the last hour in the process that answers.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tells whether it is safe to flip, and the first thing to look at.

    Also routes, journal, work queues, findings and totals of a running application. Exit code 3 if the application
    cannot be reached."""
    found = ask(url, "/status")
    if as_json:
        part = "indexes" if indexes else "latency" if latency else ""
        print_json({part: found.get(part, {})} if part else found)
    elif indexes:
        _show_indexes(of_json(found).indexes)
        _show_lost(found.get("lost_indexes", {}))
    elif latency:
        show_latency(Console(), of_json(found))
    else:
        _show(of_json(found), every_gate=gates, details=details)


def _show(status: ProcessStatus, *, every_gate: bool, details: bool = False) -> None:
    console, readiness = Console(), status.readiness or Readiness()
    if readiness.safe:
        console.print("[bold green]safe to flip[/]: every gate of every collection is open")
    else:
        console.print(f"[bold red]not safe to flip[/]; fix this first: {escape(readiness.look_at)}")
    # Of 80 columns: a name that does not fit continues on the next line, and nothing else needs to.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("collection", overflow="fold")
    for header in ("primary", "phase", "waiting", "compared", "gates"):
        table.add_column(header, no_wrap=True)
    for name, route in status.collections.items():
        closed = len(readiness.closed(name))
        figures = (str(status.journal.waiting(name)), str(_compared(status, name)))
        table.add_row(escape(name), route.primary, route.phase, *figures, f"{closed} closed" if closed else "open")
    console.print(table)
    if details:
        for name in status.collections:
            console.print(_details(status, readiness, name), soft_wrap=True)
        show_latency(console, status)
    elif not every_gate:
        console.print("more: --details, --gates, --latency")
    if every_gate:
        _show_gates(console, readiness.gates)
    if status.fleet.get("ramps"):
        show_ramps(console, status.fleet["ramps"])
    show_watches(console, status.fleet.get("watches", ()))
    totals = status.totals
    verdicts = ", ".join(f"{count} {name}" for name, count in totals["verdicts"].items() if count) or "none yet"
    console.print(f"stores: {', '.join(_store(name, each) for name, each in status.stores.items())}")
    for name, seen in status.bypassing.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in seen["kinds"].items())
        console.print(f"[bold yellow]out-of-band writes[/]: {escape(name)}: {kinds}; last {seen['last_seen']}")
    for name, each in status.relay.items():
        console.print(_relay(name, each, status))
    for name, used in status.not_portable.items():
        operators = ", ".join(f"{each['count']} {operator}" for operator, each in used["operators"].items())
        console.print(f"[bold yellow]not portable yet[/]: {escape(name)}: {escape(operators)}")
    console.print(f"comparisons: {totals['comparisons']} ({verdicts}); findings: {status.findings.open}")


def _details(status: ProcessStatus, readiness: Readiness, name: str) -> str:
    route, journal = status.collections[name], status.journal
    closed = ", ".join(gate.name for gate in readiness.closed(name)) or "none"
    return (
        f"[bold]{escape(name)}[/]: writes {route.writes}, shadow reads {route.shadow_reads:.0%}, "
        f"{journal.open.get(name, 0)} open intents, {_deferred(journal, name)} deferred; closed gates: {closed}"
    )


def _relay(store: str, each: Mapping[str, Any], status: ProcessStatus) -> str:
    if each["fault"]:
        return f"[bold red]out-of-band writers on {store} are not relayed[/]: {escape(each['fault'])}"
    unread = "".join(
        f"; [bold red]not of {escape(name)}{_if_flipped(status, store, name)}[/]: {escape(text)}"
        for name, text in each["unread"].items()
    )
    told = ", ".join(f"{name} {of_it['count']}" for name, of_it in each["collections"].items()) or "none yet"
    by = f"relayed by {escape(each['holder'])}, {each['behind']:.1f} s behind"
    return f"out-of-band writers on {store}: {by}: {escape(told)}{unread}"


def _if_flipped(status: ProcessStatus, store: str, name: str) -> str:
    route = status.collections.get(name)
    return f" after a flip to {store}" if route is not None and route.primary != store else ""


def _deferred(journal: JournalStatus, name: str) -> str:
    deferred, refused = journal.deferred.get(name, 0), journal.refused.get(name, 0)
    return f"{deferred} ({refused} refused by the secondary)" if refused else str(deferred)


def _compared(status: ProcessStatus, name: str) -> int:
    """Comparisons of a collection that came to equal or not equal."""
    verdicts = status.totals["collections"].get(name, {})
    return sum(verdicts.get(each, 0) for each in ("match", "excused", "mismatch"))


def _folding(*headers: str) -> Table:
    """A table whose cells continue on the next line rather than being cut."""
    return Table(*(Column(header, overflow="fold") for header in headers))


def _show_gates(console: Console, gates: Sequence[Gate]) -> None:
    table = _folding("collection", "gate", "state", "figure")
    for gate in sorted(gates, key=lambda gate: gate.ok):
        table.add_row(gate.collection, gate.name, "open" if gate.ok else "closed", escape(gate.said))
    console.print(table)


def _show_indexes(found: Sequence[Mapping[str, Any]]) -> None:
    console = Console()
    if not found:
        console.print("no query has scanned a table since the application started")
        return
    table = _folding("collection", "query", "scans", "items read", "returned", "index that would serve it")
    for each in found:
        counts = (each["times"], each["items_read"], each["items_returned"])
        shape = (each["collection"] or "-", each["shape"])
        table.add_row(*(escape(text) for text in shape), *map(str, counts), each["suggested_index"] or "none would")
    console.print(table)


def _show_lost(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """MongoDB's indexes that have no counterpart on DynamoDB."""
    if not found:
        return
    table = _folding("collection", "index of MongoDB", "after the flip", "next step")
    for name, gaps in found.items():
        for each in gaps:
            loss = f"{each['kind']}: {each['why']}" + (" (acknowledged)" if each["acknowledged"] else "")
            table.add_row(*(escape(text) for text in (name, each["index"], loss, each["advice"])))
    Console().print(table)


def _store(name: str, each: StoreStatus) -> str:
    return f"{name} {'up' if each.up else 'DOWN'}"
