"""Changes of a configuration file that leave everything else in it as it is, comments included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from shadow.jobs.target import JobRefused

__all__ = ["edited", "put_in_file", "replace_file"]


def put_in_file(path: Path, names: Sequence[str], values: Mapping[str, str]) -> str:
    """Sets `values` in the entries of the collections, comments kept. "" if it did, else why it could not."""
    try:
        before = path.read_text(encoding="utf-8")
        after = edited(before, names, values)
        if after != before:
            replace_file(path, after)
    except (OSError, JobRefused, yaml.YAMLError) as error:
        return f"{path} could not be changed ({type(error).__name__})"
    return ""


def edited(text: str, collections: Iterable[str], values: Mapping[str, str]) -> str:
    """The YAML `text` with `values` set in the entry of each collection, and nothing else changed, comments included.
    Raises `JobRefused` where an entry is not written in a way that can be changed so."""
    for name in collections:
        for field, value in values.items():
            text = _edit(text, name, field, value)
    return text


def _edit(text: str, name: str, field: str, value: str) -> str:
    entry = _value(_value(yaml.compose(text, Loader=yaml.SafeLoader), "collections"), name)
    if isinstance(entry, yaml.ScalarNode) and entry.value in ("", "null", "~"):
        at = entry.start_mark.index
        return f"{text[:at].rstrip(' ')} {{{field}: {value}}}{text[entry.end_mark.index :]}"
    if not isinstance(entry, yaml.MappingNode):
        raise _cannot(name, field)
    found = _value(entry, field)
    if found is not None:
        return f"{text[: found.start_mark.index]}{value}{text[found.end_mark.index :]}"
    at = entry.start_mark.index
    if entry.flow_style:
        return f"{text[: at + 1]}{field}: {value}{', ' if entry.value else ''}{text[at + 1 :]}"
    return f"{text[:at]}{field}: {value}\n{' ' * entry.start_mark.column}{text[at:]}"


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _cannot(name: str, field: str) -> JobRefused:
    return JobRefused(
        f"the entry of {name} cannot be changed from here",
        hint=f"set `{field}` under collections.{name} in the file by hand: the application takes it from there",
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
