"""How a failed command ends: a message, the next step, and an exit code.

    0 done    1 the answer is no    2 wrong usage or settings    3 a store or server could not be reached
    130 interrupted

Messages of the servers are passed on only where they quote no document: refusals of users, names and commands.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import click
from pymongo.errors import ConfigurationError as BadOption
from pymongo.errors import (
    ConnectionFailure,
    InvalidName,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from shadow.errors import ConfigurationError, ShadowError
from shadow.jobs.target import JobRefused
from shadow.observe.log import scrub

__all__ = ["INTERRUPTED", "ended"]

INTERRUPTED: Final = 130
_REFUSED, _AWAY = 2, 3

_UNAUTHORIZED: Final = 13
_OF_SERVER: Final = frozenset({13, 18, 26, 48, 59, 72, 73, 115, 166, 224, 8000})
"""MongoDB error codes whose messages name users, commands, options and namespaces but no content (error_codes.yml):
Unauthorized, AuthenticationFailed, NamespaceNotFound, NamespaceExists, CommandNotFound, InvalidOptions,
InvalidNamespace, CommandNotSupported, CommandNotSupportedOnView, QueryFeatureNotAllowed, AtlasError."""


def ended(run: Callable[[], object]) -> NoReturn:
    """Runs a command line and exits with the documented code. A bug in shadow itself is raised as it is."""
    try:
        run()
    except (ConfigurationError, JobRefused) as error:
        _end(str(error), _REFUSED)
    except ShadowError as error:
        _end(str(error), _AWAY)
    except PyMongoError as error:
        _end(*_of_driver(error))
    except sqlite3.Error as error:
        # Errors of the journal and the control store are ShadowErrors, so this comes from the file that --file names.
        _end(f"the file of findings cannot be read ({error})\n  hint: it is named JOURNAL.findings", _REFUSED)
    except OSError as error:
        _end(_of_system(error), _REFUSED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _end("interrupted", INTERRUPTED)
    except SystemExit as error:
        if isinstance(error.__context__, click.Abort):
            raise SystemExit(INTERRUPTED) from None
        raise
    raise SystemExit(0)


def _of_driver(error: PyMongoError) -> tuple[str, int]:
    name = type(error).__name__
    if isinstance(error, OperationFailure):
        code = f"code {error.code}" if error.code is not None else name
        said = scrub(str((error.details or {}).get("errmsg", ""))) if error.code in _OF_SERVER else ""
        if error.code == _UNAUTHORIZED and "awsCode" not in (error.details or {}):
            # The message quotes the command: after the names of command and collection there may be a filter.
            said = said.partition(",")[0]
        # shadow's own errors contain their hint already.
        hint = "" if "\n  hint: " in said else f"\n  hint: {_advice(error.code)}"
        return f"a store refused ({code}){f': {said}' if said else ''}{hint}", _AWAY
    if isinstance(error, ServerSelectionTimeoutError | ConnectionFailure):
        return f"a store could not be reached ({name}: {scrub(str(error))})\n  hint: check that it runs", _AWAY
    if isinstance(error, BadOption | InvalidURI | InvalidName):
        return f"mongo.url or a name is refused by the driver ({name}: {scrub(str(error))})", _REFUSED
    return f"a store failed ({name})\n  hint: the command can be repeated", _AWAY


def _advice(code: int | None) -> str:
    if code in (13, 18):
        return "check the user and password in mongo.url and the user's roles (shadow config check --connect)"
    return "fix the cause, then repeat the command"


def _of_system(error: OSError) -> str:
    if error.errno == errno.EPIPE:
        raise SystemExit(1) from None
    said = error.strerror or type(error).__name__
    return f"{error.filename}: {said}" if error.filename else f"the system refused: {said}"


def _end(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"shadow: {text}\n")
    raise SystemExit(code) from None
