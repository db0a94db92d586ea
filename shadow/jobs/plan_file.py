"""The files of a repair, JSON lines: a header, then one line a key. The plan has the states that a verification
saw; the undo log has what the secondary held before.

A plan appears whole or not at all, and none is ever overwritten. An undo log grows line by line, each on the disk
before its change is made: a truncated last line belongs to a change that was not made.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from bson import json_util
from bson.errors import BSONError

from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.target import JobRefused
from shadow.jobs.verify import DIFFERENCES
from shadow.model.version import ABSENT, Document, Key, State, Unknown, split

__all__ = [
    "PLAN",
    "UNDO",
    "Line",
    "Undone",
    "dumps",
    "header_of",
    "line_of",
    "made_whole",
    "new_file",
    "read",
    "undone_of",
    "write_plan",
]

T = TypeVar("T")

PLAN: Final = 1
"""The format of plans, which their header names."""
UNDO: Final = "undo"
_AT_ONCE: Final = 100
_RESERVED: Final = "s"
_MAKE: Final = "make one with `shadow repair plan`"


@dataclass(frozen=True, slots=True)
class Line:
    """One key of a plan, and the states that were seen on both sides."""

    key: Key
    kind: str
    primary: State
    secondary: State


@dataclass(frozen=True, slots=True)
class Undone:
    """One key of an undo log: the states of the secondary before the repair and after it, and what it held: `document`,
    or `raw` as BSON; neither where it held nothing, or `damaged` what could not be read."""

    key: Key
    before: State
    after: State
    document: Document | None
    raw: bytes | None
    damaged: bool


# --- writing ----------------------------------------------------------------------------------------------------


def write_plan(file: IO[str], jobs: Jobs, job: Job) -> int:
    """Writes the plan for a verification's differences; how many lines. Raises `JobRefused` unless the verification has
    ended."""
    if job.kind != "verify" or job.finished is None:
        raise JobRefused(
            f"{job.collection}: job {job.id}, a {job.kind}, is no verification that has ended",
            hint=f"resume it with the same command: shadow verify {job.collection}",
        )
    header = {"plan": PLAN, "collection": job.collection, "fingerprint": job.fingerprint, "job": job.id}
    file.write(json.dumps(header) + "\n")
    lines = 0
    for issues in jobs.issues(job.id):
        for each in issues:
            if each.kind in DIFFERENCES:
                key = json.loads(dumps({"_id": each.key}))["_id"]
                states = {"primary": json.loads(each.primary_state), "secondary": json.loads(each.secondary_state)}
                file.write(json.dumps({"key": key, "kind": each.kind, **states}) + "\n")
                lines += 1
    return lines


def new_file(path: Path) -> IO[str]:
    """A new file that only its owner can read. Raises `JobRefused` where it exists, or cannot be created."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
    except OSError as error:
        raise _cannot(path, error) from None


@contextlib.contextmanager
def made_whole(path: Path) -> Iterator[IO[str]]:
    """A new file, as `new_file`, that appears when the block has ended well, and not otherwise."""
    if path.exists() or path.is_symlink():
        raise _there(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with new_file(draft) as file:
                yield file
        except JobRefused as error:
            raise JobRefused(error.message.replace(str(draft), str(path)), hint=error.hint) from None
        try:
            # Nobody's file that came meanwhile is overwritten.
            os.link(draft, path)
        except OSError as error:
            raise _cannot(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _there(path: Path) -> JobRefused:
    return JobRefused(f"{path} exists, and is not overwritten", hint="name another file, or move it away")


def _cannot(path: Path, error: OSError) -> JobRefused:
    if isinstance(error, FileExistsError):
        return _there(path)
    if isinstance(error, FileNotFoundError):
        return JobRefused(f"{path}: there is no folder {path.parent}", hint="make the folder first")
    return JobRefused(f"{path} cannot be written: {error.strerror or type(error).__name__}", hint="name another file")


# --- reading ----------------------------------------------------------------------------------------------------


def header_of(path: Path) -> dict[str, Any]:
    """The header of a plan or an undo log. Raises `JobRefused` if the file is neither, or cannot be read."""
    for _, row in _numbered(path):
        if not isinstance(row, dict) or "plan" not in row:
            raise JobRefused(f"{path}: neither a plan nor an undo log", hint=_MAKE)
        if row["plan"] not in (PLAN, UNDO):
            raise JobRefused(f"{path}: made by another version of shadow (format {row['plan']!r})", hint=_MAKE)
        missing = [name for name in ("collection", "fingerprint") if not isinstance(row.get(name), str)]
        if missing:
            raise JobRefused(f"{path}: its first line has no {' and no '.join(missing)}", hint=_MAKE)
        return row
    raise JobRefused(f"{path} is empty", hint=_MAKE)


def read(path: Path, wanted: Callable[[dict[str, Any]], T], *, may_be_cut: bool) -> Iterator[list[T]]:
    """The lines after the header, some at a time, each made of its row by `wanted` (`line_of`, `undone_of`). The whole
    file is checked before the first is yielded: a damaged one is not used. `may_be_cut`: a truncated last line is
    skipped. Raises `JobRefused` with the number of the line."""
    for _ in _lines(path, wanted, may_be_cut=may_be_cut):
        pass
    some: list[T] = []
    for each in _lines(path, wanted, may_be_cut=may_be_cut):
        some.append(each)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _lines(path: Path, wanted: Callable[[dict[str, Any]], T], *, may_be_cut: bool) -> Iterator[T]:
    for number, row in _numbered(path, may_be_cut=may_be_cut):
        if number == 1:
            continue
        try:
            yield wanted(row)
        except (KeyError, TypeError, ValueError, AttributeError, BSONError):
            raise _damaged(path, number) from None


def _numbered(path: Path, *, may_be_cut: bool = False) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                try:
                    row = json.loads(text)
                except ValueError:
                    if may_be_cut and not text.endswith("\n"):
                        return
                    if number == 1:
                        raise JobRefused(f"{path}: neither a plan nor an undo log", hint=_MAKE) from None
                    raise _damaged(path, number) from None
                yield number, row
    except UnicodeDecodeError:
        raise JobRefused(f"{path}: no text in UTF-8, so neither a plan nor an undo log", hint=_MAKE) from None
    except OSError as error:
        raise JobRefused(f"{path} cannot be read: {error.strerror or type(error).__name__}", hint=_MAKE) from None


def _damaged(path: Path, number: int) -> JobRefused:
    return JobRefused(
        f"{path}: line {number} is truncated or was changed; nothing was done",
        hint="make the plan again; of an undo log, remove the damaged lines and check those keys by hand",
    )


def line_of(row: dict[str, Any]) -> Line:
    """A line of a plan."""
    return Line(loads(row["key"]), str(row["kind"]), _state(row["primary"]), _state(row["secondary"]))


def undone_of(row: dict[str, Any]) -> Undone:
    """A line of an undo log."""
    return Undone(
        key=loads(row["_id"]),
        before=_state(row["before"]),
        after=_state(row["after"]),
        document=loads(row["document"]),
        raw=bytes(loads(row["bson"])) if "bson" in row else None,
        damaged="damaged" in row,
    )


def _state(stamp: dict[str, Any] | None) -> State:
    if stamp is None:
        return ABSENT
    return Unknown(stamp["?"]) if "?" in stamp else split({_RESERVED: stamp}, _RESERVED).state


# --- values -----------------------------------------------------------------------------------------------------

_CANONICAL: Final = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, tz_aware=False)


def dumps(document: Document) -> str:
    return json_util.dumps(document, json_options=_CANONICAL)


def loads(value: Any) -> Any:
    return json_util.loads(json.dumps({"": value}), json_options=_CANONICAL)[""]
