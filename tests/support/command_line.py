"""The command line as data, and its page in the manual."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from shadow.cli import app

__all__ = ["Command", "commands", "find", "leaves", "overview", "page"]

_OWN: Final = ("--help",)


@dataclass(frozen=True, slots=True)
class Command:
    """One command or group. `words`: how it is called, without `shadow`."""

    words: tuple[str, ...]
    help: str
    hidden: bool
    parameters: tuple[Any, ...]
    subcommands: dict[str, Command] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        return self.help.partition("\n")[0]

    @property
    def options(self) -> frozenset[str]:
        """Every spelling of every option."""
        names = (name for each in self.parameters for name in (*each.opts, *each.secondary_opts))
        return frozenset([*(name for name in names if name.startswith("-")), *_OWN])


@functools.cache
def commands() -> Command:
    """The whole tree."""
    return _command(typer.main.get_command(app), ())


def _command(made: Any, words: tuple[str, ...]) -> Command:
    below = {name: _command(each, (*words, name)) for name, each in getattr(made, "commands", {}).items()}
    return Command(words, (made.help or "").strip(), made.hidden, tuple(made.params), below)


def find(words: tuple[str, ...]) -> tuple[Command, tuple[str, ...]]:
    """The command that these words call, and the words after it. KeyError where a group has no such command."""
    found, rest = commands(), words
    while found.subcommands and rest and not rest[0].startswith("-"):
        if rest[0] not in found.subcommands:
            raise KeyError(" ".join(("shadow", *found.words, rest[0])))
        found, rest = found.subcommands[rest[0]], rest[1:]
    return found, rest


def leaves(command: Command) -> Iterator[Command]:
    """The visible commands, groups before what is in them."""
    if command.hidden:
        return
    yield command
    for each in sorted(command.subcommands.values(), key=lambda each: each.words):
        yield from leaves(each)


def overview() -> str:
    rows = ["| command | what it does |", "|---|---|"]
    for each in leaves(commands()):
        if each.words and not each.subcommands:
            anchor = f"shadow-{'-'.join(each.words)}"
            rows.append(f"| [`shadow {' '.join(each.words)}`](#{anchor}) | {each.summary} |")
    return "\n".join(rows)


def page() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_section(each) for each in leaves(commands()) if each.words)


def _section(command: Command) -> str:
    rank = "###" if len(command.words) == 1 else "####"
    parts = [f"{rank} `shadow {' '.join(command.words)}`", *_paragraphs(command.help)]
    if not command.subcommands:
        parts.append(f"```\n{_usage(command)}\n```")
    rows = [_row(each) for each in command.parameters if not each.hidden]
    if rows:
        parts.append("\n".join(["| argument or option | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(each.split()) for each in text.split("\n\n") if each.strip()]


def _usage(command: Command) -> str:
    arguments = [_argument(each) for each in command.parameters if each.param_type_name == "argument"]
    required = [f"{_names(each)[0]} VALUE" for each in command.parameters if _is_option(each) and each.required]
    return " ".join(["shadow", *command.words, *arguments, *required, "[OPTIONS]"])


def _argument(each: Any) -> str:
    name = f"{each.name.upper()}{'...' if each.nargs == -1 else ''}"
    return name if each.required else f"[{name}]"


def _is_option(each: Any) -> bool:
    return bool(each.param_type_name == "option")


def _names(each: Any) -> list[str]:
    return [*each.opts, *each.secondary_opts]


def _row(each: Any) -> str:
    name = ", ".join(f"`{one}`" for one in _names(each)) if _is_option(each) else f"`{_argument(each)}`"
    env = f" Environment: `{each.envvar}`." if getattr(each, "envvar", None) else ""
    values = f" One of {', '.join(f'`{one}`' for one in _choices(each))}." if _choices(each) else ""
    return f"| {name} | {_default(each)} | {_cell(each.help or '')}{values}{env} |"


def _choices(each: Any) -> list[str]:
    annotation = each.type_descriptor.annotation
    return list(annotation) if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum) else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(each: Any) -> str:
    if each.required:
        return "required"
    if each.default is None or each.default is False or each.default in ("", ()):
        return "-"
    shown = each.default.as_posix() if isinstance(each.default, Path) else each.default
    return f"`{shown}`"
