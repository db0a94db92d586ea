"""Every way in which a command ends: a message with the next step and the documented exit code, never a traceback."""

from __future__ import annotations

import asyncio
import getpass
import sqlite3

import click
import pytest
from pymongo.errors import (
    AutoReconnect,
    CursorNotFound,
    InvalidURI,
    OperationFailure,
    ServerSelectionTimeoutError,
)
from pymongo.errors import (
    ConfigurationError as BadOption,
)

from shadow.cli.ending import ended
from shadow.errors import ConfigurationError, ControlError, Fault, JournalError, StoreUnavailable, UnsupportedOperation
from shadow.host.user import user
from shadow.jobs.target import JobRefused


def of_server(code: int, text: str) -> OperationFailure:
    return OperationFailure(text, code, {"ok": 0, "code": code, "errmsg": text})


ENDS = [
    (ConfigurationError("f", [Fault("a", "b", "c")]), 2, "a: b - c"),
    (JobRefused("no", hint="do this"), 2, "do this"),
    (StoreUnavailable("away", hint="look"), 3, "look"),
    (JournalError("full"), 3, "full"),
    (ControlError("away"), 3, "away"),
    (UnsupportedOperation("x", "why"), 3, "x is not supported: why"),
    (of_server(13, "not authorized on app to execute command"), 3, "not authorized on app to execute command"),
    (of_server(18, "Authentication failed."), 3, "Authentication failed."),
    (of_server(26, "no table\n  hint: make it"), 3, "hint: make it"),
    (of_server(121, "Document failed validation: {secret}"), 3, "code 121"),
    (ServerSelectionTimeoutError("127.0.0.1:1: refused"), 3, "127.0.0.1:1: refused"),
    (AutoReconnect("mongodb://me:sesame@h/ closed"), 3, "mongodb://***@h/ closed"),
    (CursorNotFound("gone"), 3, "a store refused"),
    (BadOption("Unknown option x"), 2, "Unknown option x"),
    (InvalidURI("bad"), 2, "InvalidURI"),
    (sqlite3.DatabaseError("file is not a database"), 2, "file is not a database"),
    (FileNotFoundError(2, "No such file or directory", "/a/b"), 2, "/a/b: No such file or directory"),
    (PermissionError(13, "Permission denied", "/a"), 2, "/a: Permission denied"),
    (OSError(28, "No space left on device"), 2, "No space left on device"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (asyncio.CancelledError(), 130, "interrupted"),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=[type(each[0]).__name__ for each in ENDS])
def test_what_goes_wrong_is_a_message_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        ended(run)
    assert caught.value.code == code
    text = capsys.readouterr().err
    assert text.startswith("shadow: ")
    assert said in text
    assert text.count("hint:") <= 1
    assert not {"secret", "sesame"} & set(text.replace("{", " ").replace("}", " ").replace(":", " ").split())


def test_a_fault_of_its_own_is_raised_as_it_is() -> None:
    def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ended(run)


def test_what_click_makes_of_an_interrupt_is_no_answer_of_no() -> None:
    def run() -> None:
        try:
            raise click.Abort
        except click.Abort:
            raise SystemExit(1)  # noqa: B904 - as click does

    with pytest.raises(SystemExit) as caught:
        ended(run)
    assert caught.value.code == 130


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_exit_codes_of_the_commands_stay(code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        ended(lambda: (_ for _ in ()).throw(SystemExit(code)))
    assert caught.value.code == code


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with a uid of its own."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert user().startswith("uid ")
