"""`shadow docs`: prints the manual, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from shadow import manual
from shadow.config import load, parse

__all__ = ["docs"]

_DEFAULT_FILE = Path("config/shadow.yaml")


def docs(
    topic: Annotated[str | None, typer.Argument(help="The page; without it, lists the topics.")] = None,
    section: Annotated[str | None, typer.Argument(help="Only this section, by title or anchor.")] = None,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Print the Prometheus alert rules, with links to the manual.")
    ] = False,
    docs_url: Annotated[
        str | None,
        typer.Option(help="With --alerts: the web address of the pages; default: docs_url of the configuration."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="SHADOW_CONFIG",
            show_envvar=True,
            help="With --alerts: the configuration file; default: config/shadow.yaml if it exists.",
        ),
    ] = None,
) -> None:
    """Prints a page of the manual, or one of its sections, without a network.

    On a terminal the page is formatted and shown in a pager; otherwise it is printed as Markdown. Exit code 2 if there
    is no such topic or section; the message lists those that exist."""
    if alerts:
        if topic is not None:
            raise typer.BadParameter("--alerts prints the rules and takes no topic", param_hint="TOPIC")
        typer.echo(manual.alert_rules(_docs_url(docs_url, config)), nl=False)
        return
    if docs_url is not None:
        raise typer.BadParameter("it needs --alerts", param_hint="--docs-url")
    if topic is None:
        _list()
    else:
        _show(_text(topic, section))


def _list() -> None:
    known = manual.topics()
    width = max(map(len, known))
    for name, title in known.items():
        typer.echo(f"{name:<{width}}  {title}")
    typer.echo("\n`shadow docs TOPIC` prints a page, `shadow docs TOPIC SECTION` one section.")


def _text(topic: str, section: str | None) -> str:
    known = manual.topics()
    name, _, anchor = topic.removesuffix(".md").partition("#")
    if name not in known:
        raise typer.BadParameter(f"no topic {topic!r}; the topics are {', '.join(known)}", param_hint="TOPIC")
    wanted = section or anchor
    if not wanted:
        return manual.page(name)
    found = manual.section(name, wanted)
    if found is None:
        titles = ", ".join(manual.anchors(manual.page(name)))
        raise typer.BadParameter(f"{name} has no section {wanted!r}; it has {titles}", param_hint="SECTION")
    return found


def _show(text: str) -> None:
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text))


def _docs_url(given: str | None, config: Path | None) -> str:
    """The option if given, otherwise the configured value."""
    if given is not None:
        return parse(f"docs_url: {given!r}", {}, source="--docs-url").docs_url
    file = config or (_DEFAULT_FILE if _DEFAULT_FILE.exists() else None)
    return (parse("", source="the environment") if file is None else load(file)).docs_url
