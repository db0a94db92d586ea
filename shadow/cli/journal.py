"""`shadow journal`: lists the journal's entries, explains one key, and repairs."""

from __future__ import annotations

import datetime as dt
import enum
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from shadow.cli.options import AsJson, ConfigFile, print_json
from shadow.cli.progress import Shown, progress
from shadow.cli.rights import run, tell_lacking
from shadow.client import Shadow
from shadow.config import Settings, load
from shadow.errors import JournalError
from shadow.journal.base import JournalStats, Pending
from shadow.model.keytext import format_key, parse_key
from shadow.model.verdict import Healing
from shadow.model.version import Key
from shadow.observe.findings import state_text
from shadow.writes.inspect import Action, Explanation, HealReport, Waits
from shadow.writes.refusals import advice

__all__ = ["What", "app", "run_journal"]

app = typer.Typer(help="Lists the journal's entries, repairs them, or explains one key.", no_args_is_help=True)


class What(enum.StrEnum):
    LIST = "list"
    HEAL = "heal"
    EXPLAIN = "explain"


KEY_HELP: Final = 'A key: text, ObjectId("..."), or extended JSON such as {"$numberInt": "7"}.'
Collection = Annotated[str | None, typer.Option(help="Only this collection.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="The most entries to list.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Keys to repair at once.")]
Apply = Annotated[bool, typer.Option("--apply", help="Make the change; without it, only show what would be done.")]
ShowKeys = Annotated[
    bool, typer.Option("--show-keys", help="Print keys instead of their hashes. Keys may be personal data.")
]

_ACTIONS: Final = {
    Action.NOTHING: "nothing: both stores are equal",
    Action.COPY: "copy the primary's document to the secondary",
    Action.TOMBSTONE: "put a tombstone into the secondary: the primary has no document",
    Action.UNREADABLE: "refuse: the primary's document cannot be read; correct or delete it there",
    Action.REFUSE: "refuse: the secondary is ahead, so the application's primary is not the one of this configuration",
}
_WAITS: Final = {
    None: "yes, by the next repair",
    Waits.NOTHING_HELD: "the journal has no entry of this key",
    Waits.IN_FLIGHT: "not yet: an operation of a living process holds it; any process may take it over from {at} on",
    Waits.UNKNOWN_OUTCOME: "not before {at}: until then the primary may still apply the write",
    Waits.NOT_FOLLOWED: "no: the collection is in phase off, so nothing is replicated",
    Waits.REVERSED: "no: the secondary is ahead of the primary; check `primary` in the configuration",
    Waits.REFUSED: "no: the secondary refuses this document ({refused}), and waiting will not help: {advice}",
}
_ENDINGS: Final = {
    Healing.EQUAL: ("already equal", "already equal"),
    Healing.COPIED: ("would be copied", "copied"),
    Healing.TOMBSTONED: ("would get a tombstone", "got a tombstone"),
    Healing.UNSETTLED: ("cannot be settled yet", "repaired, cannot be settled yet"),
    Healing.IN_FLIGHT: ("in flight, skipped", "in flight, skipped"),
    Healing.NOT_FOLLOWED: ("phase off, skipped", "phase off, skipped"),
    Healing.REVERSED: ("secondary is ahead, refused", "secondary is ahead, refused"),
    Healing.CONTENDED: ("changed meanwhile, skipped", "changed meanwhile, skipped"),
    Healing.REFUSED: ("refused by the secondary", "refused by the secondary"),
    Healing.UNREADABLE: ("cannot be read", "cannot be read"),
    Healing.FAILED: ("cannot be read", "failed"),
}
"""The text of each ending, in a dry run and with --apply."""


@app.command("list")
def show(
    collection: Collection = None,
    limit: Limit = 50,
    show_keys: ShowKeys = False,
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Lists the journal's entries, oldest first.

    Open intents and deferred keys with age, attempts and owner; for a refused key also the reason, and what to change
    in the primary. Works with or without a running application."""
    run_journal(
        What.LIST, None, collection=collection, limit=limit, show_keys=show_keys, config=config, as_json=as_json
    )


@app.command("heal")
def heal(
    key: Annotated[str | None, typer.Argument(help=KEY_HELP)] = None,
    collection: Collection = None,
    apply: Apply = False,
    limit: Limit = 50,
    workers: Workers = 8,
    show_keys: ShowKeys = False,
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Repairs the journal's entries: all of them, one collection, or one key.

    Copies the primary's state to the secondary. A dry run unless --apply is given. Works with or without a running
    application. Exit code 0 if nothing is left in the journal, else 1."""
    run_journal(
        What.HEAL,
        key,
        collection=collection,
        apply=apply,
        limit=limit,
        workers=workers,
        show_keys=show_keys,
        config=config,
        as_json=as_json,
    )


@app.command("explain")
def explain(
    key: Annotated[str, typer.Argument(help=KEY_HELP)],
    collection: Annotated[str, typer.Option(help="The collection of the key.")],
    config: ConfigFile = Path("config/shadow.yaml"),
    as_json: AsJson = False,
) -> None:
    """Explains one key: its entries, both stores, and what a repair would do.

    Its intents and deferral, its version on both sides, the paths and types that differ, and whether the entry can be
    closed yet. Exit code 0 if both stores are equal and the journal has no entry of the key, else 1."""
    run_journal(What.EXPLAIN, key, collection=collection, config=config, as_json=as_json)


def run_journal(
    what: What,
    key: str | None,
    *,
    config: Path,
    collection: str | None = None,
    apply: bool = False,
    limit: int = 50,
    workers: int = 8,
    show_keys: bool = False,
    as_json: bool = False,
) -> None:
    """Runs a command and exits with its code."""
    if key is not None and collection is None:
        raise typer.BadParameter("a key needs its collection: KEY --collection NAME", param_hint="KEY")
    settings = _settings(config, collection)
    tool = _Tool(settings, collection, limit=limit, show_keys=show_keys, as_json=as_json)
    match what:
        case What.LIST:
            code = run(config, tool.show())
        case What.HEAL:
            code = run(config, tool.heal(_key(key), apply=apply, workers=workers))
        case What.EXPLAIN:
            code = run(config, tool.explain(_key(key)))
    tell_lacking(config, tool.errors)
    raise typer.Exit(code)


def _settings(config: Path, collection: str | None) -> Settings:
    settings = load(config)
    if collection is not None and collection not in settings.collections:
        known = ", ".join(settings.collections)
        raise typer.BadParameter(f"{collection}: not in {config}, which has {known}", param_hint="--collection")
    if settings.journal.kind == "sqlite" and not settings.journal.path.exists():
        # Listing must not create a journal, and "empty" from the wrong folder would look like good news.
        raise JournalError(
            f"there is no journal at {settings.journal.path}",
            hint="a relative `journal.url` is relative to the folder in which the application is started",
        )
    return settings


def _key(text: str | None) -> Key:
    try:
        return None if text is None else parse_key(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="KEY") from error


class _Tool:
    """The three commands over one configuration. Each returns an exit code."""

    def __init__(
        self, settings: Settings, collection: str | None, *, limit: int, show_keys: bool, as_json: bool
    ) -> None:
        self._settings = settings
        self.errors: list[str] = []
        """Classes and codes of the errors with which repairs failed."""
        self._collection = collection
        self._limit = limit
        self._as_json = as_json
        self._show_keys = show_keys or settings.observe.reveal_keys

    def _shadow(self) -> Shadow:
        return Shadow(self._settings, passive=True)

    def _texts(self, shadow: Shadow) -> Callable[[Key], str]:
        """How keys are printed."""
        inspector = shadow.admin.inspector()
        return format_key if self._show_keys else lambda key: f"#{inspector.key_hash(key)}"

    async def show(self) -> int:
        async with self._shadow() as shadow:
            found = await shadow.admin.journal_entries(self._collection, limit=self._limit)
            stats = await shadow.admin.journal_stats()
            key_text = self._texts(shadow)
        counts = _counts(stats, self._collection)
        more = max(0, sum(map(sum, counts.values())) - len(found))
        rows = [_entry(each, key_text(each.key)) for each in found]
        if self._as_json:
            by_name = {name: {"open": open_, "deferred": deferred} for name, (open_, deferred) in counts.items()}
            print_json(
                {"collections": by_name, "oldest_seconds": round(stats.oldest_age, 3), "more": more, "entries": rows}
            )
            return 0
        _show_list(rows, counts, more)
        return 0

    async def heal(self, key: Key, *, apply: bool, workers: int) -> int:
        async with self._shadow() as shadow:
            stats = await shadow.admin.journal_stats()
            total = 1 if key is not None else sum(map(sum, _counts(stats, self._collection).values()))
            with _progress(quiet=self._as_json) as bar:
                task = bar.add_task("healing" if apply else "looking", total=total)
                report = await shadow.admin.inspector().heal(
                    collection=self._collection,
                    key=key,
                    apply=apply,
                    workers=workers,
                    progress=lambda done: bar.update(task, completed=done),
                )
            key_text = self._texts(shadow)
            directions = {
                name: f"{route.primary} -> {route.secondary}"
                for name, route in shadow.admin.routes().items()
                if name in report.by_collection
            }
        self.errors = [error for _, _, _, error in report.left]
        if self._as_json:
            print_json(_report(report, directions, key_text))
        else:
            _show_report(report, directions, key_text, self._limit)
        return 1 if report.remaining or report.stopped else 0

    async def explain(self, key: Key) -> int:
        assert self._collection is not None
        async with self._shadow() as shadow:
            found = await shadow.admin.explain(self._collection, key)
        if self._as_json:
            print_json(_explanation(found))
        else:
            _show_explanation(found)
        return 0 if found.equal and not found.pending else 1


def _progress(*, quiet: bool) -> Shown:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return progress("journal heal", *columns, quiet=quiet)


def _counts(stats: JournalStats, collection: str | None) -> dict[str, tuple[int, int]]:
    """The numbers of open intents and deferred keys by collection."""
    names = sorted({*stats.open_by_collection, *stats.deferred_by_collection})
    return {
        name: (stats.open_by_collection.get(name, 0), stats.deferred_by_collection.get(name, 0))
        for name in names
        if collection in (None, name)
    }


# --- as JSON ----------------------------------------------------------------------------------------------------


def _entry(each: Pending, key: str) -> dict[str, Any]:
    age = max(0.0, time.time() - each.since)
    row: dict[str, Any] = {
        "collection": each.collection,
        "key": key,
        "state": "refused" if each.refused else "deferred" if each.deferred else "open",
        "age_seconds": round(age, 3),
        "since": _moment(each.since),
        "settle_after": _moment(each.settle_after),
    }
    if each.deferred:
        next_try = _moment(each.next_try) if each.next_try > time.time() else None
        more = {"refused": each.refused, "advice": advice(each.refused)} if each.refused else {}
        return {**row, "generation": each.generation, "attempts": each.attempts, "next_try": next_try, **more}
    return {**row, "op_id": each.op_id, "owner": each.owner, "owner_dead": each.owner_dead}


def _report(report: HealReport, directions: Mapping[str, str], key_text: Callable[[Key], str]) -> dict[str, Any]:
    return {
        "applied": report.applied,
        "keys": report.seen,
        "remaining": report.remaining,
        "stopped": report.stopped,
        "endings": dict(report.endings),
        "collections": {
            name: {"direction": directions.get(name), "endings": dict(endings)}
            for name, endings in report.by_collection.items()
        },
        "left": [
            {"collection": name, "key": key_text(key), "ending": ending.value, "error": error}
            for name, key, ending, error in report.left
        ],
    }


def _explanation(found: Explanation) -> dict[str, Any]:
    return {
        "collection": found.collection,
        "key": format_key(found.key),
        "phase": found.route.phase.value,
        "primary": {"store": found.route.primary.value, "state": state_text(found.primary)},
        "secondary": {"store": found.route.secondary.value, "state": state_text(found.secondary)},
        "equal": found.equal,
        "differences": [
            {
                "kind": each.kind.value,
                "path": each.path,
                "primary_type": each.primary_type,
                "secondary_type": each.secondary_type,
            }
            for each in found.differences
        ],
        "journal": [_entry(each, format_key(each.key)) for each in found.pending],
        "heal": found.action.value,
        "settles": found.waits is None,
        "waits": None if found.waits is None else found.waits.value,
        **({"refused": found.refused, "advice": advice(found.refused)} if found.refused else {}),
        "settles_at": _moment(found.settles_at) if found.pending else None,
    }


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


# --- as text ----------------------------------------------------------------------------------------------------


def _show_list(rows: list[dict[str, Any]], counts: Mapping[str, tuple[int, int]], more: int) -> None:
    if not rows:
        typer.echo("the journal is empty")
        return
    table = Table("collection", "key", "state", "age", "attempts", "owner")
    for each in rows:
        owner = f"{each.get('owner', '')}{' (dead)' if each.get('owner_dead') else ''}"
        cells = (each["collection"], each["key"], each["state"], _age(each["age_seconds"]))
        table.add_row(*map(escape, cells), str(each.get("attempts", "")), escape(owner))
    console = Console()
    console.print(table)
    for name, (open_, deferred) in counts.items():
        console.print(f"{escape(name)}: {open_} open, {deferred} deferred", highlight=False)
    for reason in dict.fromkeys(each["refused"] for each in rows if "refused" in each):
        console.print(f"refused ({escape(reason)}): {escape(advice(reason))}", highlight=False)
    if more:
        console.print(f"... and {more} more; --limit shows them", highlight=False)


def _show_report(report: HealReport, directions: Mapping[str, str], key_text: Callable[[Key], str], limit: int) -> None:
    if not report.seen:
        typer.echo("the journal has no such entry")
        return
    for name, endings in report.by_collection.items():
        typer.echo(f"{name} ({directions.get(name, 'not in the configuration')}): {_sum(endings, report.applied)}")
    for name, key, ending, error in report.left[:limit]:
        why = _ENDINGS[ending][report.applied]
        told = f"; {advice(error)}" if ending is Healing.REFUSED else ""
        typer.echo(f"  {name} {key_text(key)}: {why}{f' ({error})' if error else ''}{told}")
    if report.stopped:
        typer.echo("stopped after too many failures in a row")
    if not report.applied:
        typer.echo(
            "nothing was changed; --apply makes the change: first check that this is the application's direction"
        )


def _sum(endings: Counter[Healing], applied: bool) -> str:
    return ", ".join(f"{count} {_ENDINGS[ending][applied]}" for ending, count in endings.most_common())


def _show_explanation(found: Explanation) -> None:
    route = found.route
    at = _moment(found.settles_at)
    typer.echo(f"{found.collection} {format_key(found.key)} (phase {route.phase})")
    typer.echo(f"  primary    {route.primary}: {state_text(found.primary)}")
    typer.echo(f"  secondary  {route.secondary}: {state_text(found.secondary)}")
    for each in found.differences:
        typer.echo(f"  differs    {each.path}: {each.kind.value} ({each.primary_type} / {each.secondary_type})")
    for entry in found.pending:
        typer.echo(f"  journal    {_entry_text(entry)}")
    typer.echo(f"  equal      {'yes' if found.equal else 'no'}")
    typer.echo(f"  repair     {_ACTIONS[found.action]}")
    typer.echo(f"  settles    {_WAITS[found.waits].format(at=at, refused=found.refused, advice=advice(found.refused))}")


def _entry_text(each: Pending) -> str:
    now = time.time()
    age = _age(now - each.since)
    if not each.deferred:
        return f"intent {each.op_id}, open for {age}, of {each.owner}{' (dead)' if each.owner_dead else ''}"
    turn = f", next try {_moment(each.next_try)}" if each.next_try > now else ""
    if each.refused:
        turn = f", refused with {each.refused}{turn}"
    return f"deferred for {age}, generation {each.generation}, {each.attempts} attempts failed{turn}"


def _age(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(seconds))) if seconds >= 60 else f"{max(0.0, seconds):.1f} s"
