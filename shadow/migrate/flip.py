"""The flip of one application process, by its configuration file: what to write there, and who else is at work.

The file is where the routing stands, so a flip is a change of the file: the application sees it, holds the writes of
the collection, brings the secondary level and changes over between two operations. Nothing is decided anywhere else, so
a process that starts later begins with the same primary. Several processes would see the file at different moments,
and for that time hold different primaries, each taking the other's writes for lag: the flip is refused then.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import yaml

from shadow.migrate.sides import JobRefused
from shadow.model.phase import StoreName
from shadow.replicate.process import Owner, this_process

__all__ = ["edited", "living", "replace_file"]


def edited(text: str, collections: Iterable[str], to: StoreName) -> str:
    """The YAML `text` with `primary` of each collection set, and nothing else changed, comments included. Raises
    `JobRefused` where an entry is not written in a way that can be changed so."""
    for name in collections:
        text = _edit(text, name, to)
    return text


def _edit(text: str, name: str, to: StoreName) -> str:
    entry = _value(_value(yaml.compose(text, Loader=yaml.SafeLoader), "collections"), name)
    if isinstance(entry, yaml.ScalarNode) and entry.value in ("", "null", "~"):
        at = entry.start_mark.index
        return f"{text[:at].rstrip(' ')} {{primary: {to}}}{text[entry.end_mark.index :]}"
    if not isinstance(entry, yaml.MappingNode):
        raise _cannot(name)
    primary = _value(entry, "primary")
    if primary is not None:
        return f"{text[: primary.start_mark.index]}{to}{text[primary.end_mark.index :]}"
    at = entry.start_mark.index
    if entry.flow_style:
        return f"{text[: at + 1]}primary: {to}{', ' if entry.value else ''}{text[at + 1 :]}"
    return f"{text[:at]}primary: {to}\n{' ' * entry.start_mark.column}{text[at:]}"


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _cannot(name: str) -> JobRefused:
    return JobRefused(
        f"the entry of {name} cannot be changed from here",
        hint=f"set `primary` under collections.{name} in the file by hand: the application takes it from there",
    )


def replace_file(path: Path, text: str) -> None:
    """Puts `text` in the place of the file in one step, with its rights: nobody reads half of it."""
    real = path.resolve()
    handle, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(real.stat().st_mode & 0o7777)
        Path(name).replace(real)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def living(journal: Path) -> int:
    """How many other processes may be alive that share a journal's file: those not known to be dead.
    Raises `JobRefused` if it cannot be read."""
    if not journal.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10.0)) as db:
            rows = db.execute("SELECT id, place, pid, started FROM owners").fetchall()
    except sqlite3.Error as error:
        raise JobRefused(f"the journal {journal} does not say which processes share it") from error
    own = this_process().id
    return sum(1 for id_, place, pid, started in rows if id_ != own and not Owner(place, pid, started).known_dead())
