"""`shadow assess`: what a migration will meet, before it begins."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr
from pymongo.errors import OperationFailure, PyMongoError

from shadow.assess.model import Assessment, Remark, RemarkKind, Severity
from shadow.assess.page import page
from shadow.assess.queries import Recorded, from_lines
from shadow.assess.rates import parse as parse_rates
from shadow.assess.remarks import of_uses, sort_remarks
from shadow.assess.server import Server
from shadow.assess.survey import SurveyOptions, survey
from shadow.assess.text import text
from shadow.assess.written import StoreSections, configuration
from shadow.cli.options import AsJson, print_json, why_unwritable
from shadow.cli.progress import progress
from shadow.cli.rights import lacking_for_all
from shadow.compare.diff import Hasher
from shadow.config import Settings, load, parse
from shadow.control.place import SqlitePlace
from shadow.control.portability import listed
from shadow.errors import ControlError, StoreUnavailable
from shadow.rights import LackedRights
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.rights import grants

__all__ = ["assess"]

_FILE: Final = Path("config/shadow.yaml")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="SHADOW_CONFIG",
        help="The configuration file; default: config/shadow.yaml if it exists and --mongo-url is not given.",
    ),
]
Url = Annotated[str | None, typer.Option(help="The MongoDB to assess; a read-only user is enough.")]
Name = Annotated[str | None, typer.Option(help="The database; default: the one in the url or the configuration.")]
Chosen = Annotated[
    list[str] | None, typer.Option("--collection", help="Only this collection; can be given several times.")
]
Sample = Annotated[int, typer.Option(min=1, help="Random documents to read from each collection.")]
Whole = Annotated[bool, typer.Option("--whole", help="Read every document.")]
Rate = Annotated[float, typer.Option(min=1, help="Documents to read per second, at most.")]
Queries = Annotated[
    Path | None,
    typer.Option(help="Recorded queries, one JSON object per line: {collection, filter, sort, limit, count}."),
]
Watch = Annotated[float, typer.Option(min=0, max=3600, help="Seconds for which to watch the server's counters.")]
Reads = Annotated[list[str] | None, typer.Option(help="Reads per second, for all collections or as COLLECTION=N.")]
Writes = Annotated[list[str] | None, typer.Option(help="Writes per second, for all collections or as COLLECTION=N.")]
CopyRate = Annotated[float, typer.Option(min=1, help="Documents per second to assume for the estimate of the copy.")]
Out = Annotated[Path | None, typer.Option(help="Write a suggested configuration to this file.")]
Html = Annotated[Path | None, typer.Option(help="Write the report to this file, with plots.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


def assess(
    config: Config = None,
    mongo_url: Url = None,
    database: Name = None,
    collection: Chosen = None,
    sample: Sample = 10_000,
    whole: Whole = False,
    rate: Rate = 1000.0,
    queries: Queries = None,
    watch: Watch = 10.0,
    reads: Reads = None,
    writes: Writes = None,
    copy_rate: CopyRate = 1000.0,
    out: Out = None,
    html: Html = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Reads a MongoDB, without changing it, and reports what a migration will meet.

    Sizes on DynamoDB, types and indexes, keys that do not fit, validators that get in the way, queries that will
    scan, hot keys, cost and time. No value of a document is shown. Exit code 1 if something must be fixed before the
    migration."""
    for path in (out, html):
        if path is not None and path.exists() and not force:
            raise typer.BadParameter(f"{path} exists already; --force overwrites it")
        if path is not None and (why_not := why_unwritable(path)):
            # Checked now rather than after an hour of reading.
            raise typer.BadParameter(f"{path} cannot be written: {why_not}")
    settings = _settings(config, mongo_url, database)
    options = SurveyOptions(
        prices=settings.prices,
        hasher=Hasher(_secret(settings.observe.hash_secret)),
        collections=collection or (),
        sample=None if whole else sample,
        watch=watch,
        copy_rate=copy_rate,
        reads=_rates(reads, "--reads"),
        writes=_rates(writes, "--writes"),
        recorded=_recorded(queries),
        prefix=settings.dynamo.table_prefix,
        given=settings.specs(),
    )
    found = asyncio.run(_survey(settings, options, rate, quiet=as_json))
    written = configuration(found, _place(settings))
    parse(written, {}, source="the suggested configuration")
    if out is not None:
        _write(out, written)
    if html is not None:
        _write(html, page(found))
    if as_json:
        print_json({**dataclasses.asdict(found), "blockers": found.blockers, "configuration": written})
    else:
        typer.echo(text(found))
        for path in (out, html):
            if path is not None:
                typer.echo(f"written: {path}")
    if found.blockers:
        raise typer.Exit(1)


async def _survey(settings: Settings, options: SurveyOptions, rate: float, *, quiet: bool) -> Assessment:
    client = connect(settings.mongo.url.get_secret_value(), "pymongo")
    try:
        with progress("assess", quiet=quiet) as bar:
            task = bar.add_task("starting", total=None)

            def show(name: str, seen: int, total: int) -> None:
                bar.update(task, total=total or None, completed=seen, description=f"{name}: {seen} of about {total}")

            watched = dataclasses.replace(options, on_progress=show)
            found = await survey(Server(client, settings.mongo.database, rate=rate), settings.mongo.database, watched)
            names = [each.name for each in found.collections]
            rights = await _rights(settings, names, client)
            uses = await asyncio.to_thread(_uses, settings, names)
            return dataclasses.replace(found, remarks=sort_remarks([*found.remarks, *rights, *uses]))
    except PyMongoError as error:
        said = f"code {error.code}" if isinstance(error, OperationFailure) else type(error).__name__
        raise StoreUnavailable(f"mongo: {said} while it was read", hint="the assessment can be repeated") from error
    finally:
        await client.close()


async def _rights(settings: Settings, names: list[str], client: Any) -> list[Remark]:
    """A failing server here does not discard the earlier results."""
    try:
        return list(_of_rights(await lacking_for_all(settings, names, client)))
    except PyMongoError as error:
        text = f"the user's rights could not be read ({type(error).__name__})"
        return [Remark(Severity.NOTE, RemarkKind.RIGHTS, "", text, "shadow config check --connect")]


def _uses(settings: Settings, names: list[str]) -> list[Remark]:
    """What the application was seen to do, if it runs already; nothing is created for the question."""
    place = settings.control_place()
    if isinstance(place, SqlitePlace) and not place.path.exists():
        return []
    with contextlib.closing(place.open()) as records:
        try:
            found = listed(records, now=time.time(), keep=settings.control.keep_not_portable)
        except ControlError as error:
            text = f"what the application has used could not be read: {error.message}"
            return [Remark(Severity.NOTE, RemarkKind.NOT_PORTABLE, "", text, "shadow fleet not-portable")]
    accepted = {name: entry.accept_not_portable for name, entry in settings.collections.items()}
    return list(of_uses({name: found[name] for name in names if name in found}, accepted))


def _of_rights(found: Iterable[LackedRights]) -> Iterator[Remark]:
    """One remark for each collection and purpose, and one with the commands that grant the rights. Never a blocker: the
    user may be a read-only one for the assessment."""
    for each in found:
        name = f"the user {each.user.name!r}" if each.user.name else "the url without a user"
        for lack in each.lacks:
            actions = ", ".join(sorted(lack.actions))
            yield Remark(
                Severity.WARNING,
                RemarkKind.RIGHTS,
                lack.need.collection,
                f"{name} lacks {actions} on {lack.resource} ({lack.need.what})",
                "needed only if the application connects as this user",
            )
        commands = [str(grant) for grant in grants(each.user, each.lacks)] if each.user.name else []
        if commands:
            text = f"{name} lacks rights that the migration needs, if the application connects as this user"
            yield Remark(
                Severity.WARNING, RemarkKind.RIGHTS, "", text, f"in mongosh, as an administrator: {'; '.join(commands)}"
            )


def _settings(config: Path | None, url: str | None, database: str | None) -> Settings:
    """The settings of the file, or of the environment alone. Command-line options override both."""
    path = config if config is not None or url is not None or not _FILE.exists() else _FILE
    environment = dict(os.environ)
    if url is not None:
        environment["SHADOW_MONGO_URL"] = url
    named = database or (urlsplit(url).path.strip("/") if url is not None else "")
    if named:
        environment["SHADOW_MONGO_DATABASE"] = named
    return load(path, environment) if path is not None else parse("", environment)


def _secret(secret: SecretStr | None) -> bytes:
    return secret.get_secret_value().encode() if secret is not None else b""


def _rates(given: list[str] | None, option: str) -> list[str]:
    try:
        parse_rates(given or ())
    except ValueError:
        raise typer.BadParameter(f"{option}: a number of operations per second, or COLLECTION=NUMBER") from None
    return given or []


def _recorded(path: Path | None) -> list[Recorded]:
    if path is None:
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            return list(from_lines(lines))
    except OSError as error:
        raise typer.BadParameter(f"--queries {path}: {type(error).__name__}") from None
    except ValueError as error:
        raise typer.BadParameter(f"--queries {path}: {error}") from None


def _place(settings: Settings) -> StoreSections:
    """Without credentials and url options, which may contain some."""
    url = settings.mongo.url.get_secret_value()
    scheme, _, rest = url.partition("://")
    hosts = rest.partition("/")[0]
    who, _, bare = hosts.rpartition("@")
    query = urlsplit(url).query
    keeps = "" if who or "auth" in query.lower() or "password" in query.lower() else query
    dynamo: dict[str, Any] = {"region": settings.dynamo.region}
    if settings.dynamo.endpoint_url:
        parts = urlsplit(settings.dynamo.endpoint_url)
        dynamo["endpoint_url"] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    dynamo["table_prefix"] = settings.dynamo.table_prefix
    journal = (
        settings.journal.url.get_secret_value() if settings.journal.kind == "sqlite" else "sqlite:///var/shadow.db"
    )
    return StoreSections(
        {"url": f"{scheme}://{bare}/{f'?{keeps}' if keeps else ''}", "database": settings.mongo.database},
        dynamo,
        {"url": journal},
        "The MongoDB url here has no user, password and options: set the whole url in SHADOW_MONGO_URL."
        if who or keeps != query
        else "",
    )


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
