"""Checks a connection string, or a client that was passed in, before any request.

PyMongo ignores unknown or invalid options of a connection string, with a warning; here they are faults, because an
application that asks for a member, a concern or a certificate must get it. Nothing here connects or resolves a name.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from pymongo import AsyncMongoClient, common
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from shadow.stores.mongo.options import Fate, Where, find, of_url

__all__ = ["HandedIn", "client_faults", "database_of_url", "handed_in", "url_faults"]

UNREADABLE: Final = (
    "must be a connection string that PyMongo reads: `@ : / ? # [ ] %` in user and password escaped "
    "(urllib.parse.quote_plus), each host with a port from 1 to 65535 or none, each option with a value"
)
_SECRET: Final = frozenset({"tlscertificatekeyfilepassword", "authmechanismproperties"})
_REPEATED: Final = frozenset({"readpreferencetags"})
"""Options that may be repeated (URI Options)."""
_PACKAGES: Final = {
    "GSSAPI": (("kerberos", "winkerberos"), "pymongo[gssapi]"),
    "MONGODB-AWS": (("pymongo_auth_aws",), "pymongo[aws]"),
}
"""Mechanism to the modules of which it needs one, and the package to install. Source: PyMongo, "Authentication"."""
_LEVELS: Final = ("local", "available", "majority", "linearizable", "snapshot")
"""The driver forwards any text, and the server then rejects every read (manual, "Read Concern")."""
_OF_THE_SERVER: Final = frozenset({"admin", "local", "config"})
_RAISED: Final = (PyMongoError, ValueError, TypeError, OSError, LookupError)
"""What PyMongo's own checks raise."""


# --- a connection string ----------------------------------------------------------------------------------------


def url_faults(url: str, *, ours: Collection[str] = ()) -> list[str]:
    """One text for each fault of a `mongodb://` or `mongodb+srv://` url; `ours` are names of options that are not the
    driver's. No text contains a user, a password, or the value of an option that may contain one."""
    scheme, _, rest = url.partition("://")
    before, _, query = rest.partition("?")
    try:
        # Parsed as a plain URL, so that no name is resolved.
        parse_uri(f"mongodb://{before}", validate=False)
    except _RAISED:
        # The message may contain parts of a password.
        return [UNREADABLE]
    try:
        given = [pair for pair in _pairs(query) if pair[0].lower() not in {each.lower() for each in ours}]
    except ValueError:
        return [UNREADABLE]
    found = [
        *_twice(given),
        *_apart(given),
        *_halves(given, before),
        *(fault for name, value in given for fault in _option_faults(name, value)),
    ]
    if found:
        return found
    made = "&".join(pair for pair in re.split("[&;]", query) if pair.partition("=")[0].lower() not in _lower(ours))
    return list(_whole_faults(f"{scheme}://{before}{'' if '/' in before else '/'}{f'?{made}' if made else ''}"))


def _lower(names: Collection[str]) -> set[str]:
    return {each.lower() for each in names}


def _pairs(query: str) -> list[tuple[str, str]]:
    """Name and value of each option. Raises ValueError for text that is not an option."""
    if "&" in query and ";" in query:
        raise ValueError
    found = []
    for pair in re.split("[&;]", query) if query else []:
        name, value = pair.split("=")
        found.append((name, unquote_plus(value)))
    return found


def _twice(given: list[tuple[str, str]]) -> Iterator[str]:
    names = [name.lower() for name, _ in given]
    for name in dict.fromkeys(names):
        if names.count(name) > 1 and name not in _REPEATED:
            yield f"the option {name} is set twice: set it once"


def _apart(given: list[tuple[str, str]]) -> Iterator[str]:
    """Combinations that PyMongo rejects only after a DNS lookup."""
    said = {name.lower(): value for name, value in given}
    if said.get("srvmaxhosts", "0") != "0":
        for name in ("replicaSet", "loadBalanced"):
            if said.get(name.lower(), "false") != "false":
                yield f"the option srvMaxHosts cannot be used together with {name}"


def _halves(given: list[tuple[str, str]], before: str) -> Iterator[str]:
    """Incomplete credentials, which PyMongo accepts but every server rejects."""
    said = {name.lower(): value for name, value in given}
    if "tlscertificatekeyfilepassword" in said and "tlscertificatekeyfile" not in said:
        yield "the option tlsCertificateKeyFilePassword: it is the password of tlsCertificateKeyFile, which is not set"
    if "AWS_SESSION_TOKEN" in said.get("authmechanismproperties", "") and "@" not in before:
        yield "the option authMechanismProperties: a session token goes with user and password, which are its keys"


def _option_faults(name: str, value: str) -> Iterator[str]:
    row = find(name, Where.URL)
    if row is not None and row.fate is Fate.REFUSED:
        yield f"the option {name}: {row.how}"
        return
    if name.lower() not in common.URI_OPTIONS_VALIDATOR_MAP:
        close = difflib.get_close_matches(name.lower(), {each.lower(): each for each in of_url()}, n=1)
        meant = [each for each in of_url() if each.lower() in close]
        advice = f"did you mean {meant[0]}?" if meant else "remove it"
        yield f"the option {name} is unknown to PyMongo, and the driver would ignore it: {advice}"
        return
    reason = _why_not(name, value)
    if reason is not None:
        yield f"the option {name}: {'(hidden)' if name.lower() in _SECRET else reason}"


def _why_not(name: str, value: str) -> str | None:
    """Why the driver would reject the value; None: it accepts it."""
    try:
        with _quiet():
            common.URI_OPTIONS_VALIDATOR_MAP[name.lower()](name, value)
    except OSError:
        return "this file cannot be read; name it by its whole path, as this process sees it"
    except LookupError:
        return f"{value[:40]!r} is not a valid value"
    except _RAISED as error:
        return str(error)
    if name.lower() == "readconcernlevel" and value not in _LEVELS:
        return f"{value[:40]!r} is not one of {', '.join(_LEVELS)}"
    if name.lower() == "authmechanism" and value in _PACKAGES:
        modules, package = _PACKAGES[value]
        if not any(importlib.util.find_spec(each) for each in modules):
            return f"{value} needs a package that is not installed: pip install '{package}'"
    return None


def _whole_faults(url: str) -> Iterator[str]:
    """Faults in the combination of the options, found by creating a client that never connects."""
    try:
        with _quiet():
            AsyncMongoClient[dict[str, Any]](url, connect=False)
    except OSError as error:
        yield f"a certificate or key cannot be used ({type(error).__name__}): check the tls... options"
    except _RAISED as error:
        yield str(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the driver's warnings: they are faults here, or repeated by the client that is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def database_of_url(url: str) -> str | None:
    """The database in the path of a url, as the driver's `get_default_database` reads it. Raises ValueError for a
    database of the server itself, which is there for users."""
    before = url.partition("://")[2].partition("?")[0]
    path = unquote_plus(before.partition("/")[2]).partition(".")[0]
    if path in _OF_THE_SERVER:
        raise ValueError(
            f"its path names {path!r}, which is a database of the server itself: set mongo.database, "
            f"and ?authSource={path} for the user"
        )
    return path or None


# --- a client that was passed in ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandedIn:
    """The application's own client, and its database object, if any, whose options override the client's."""

    client: Any
    database: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the database object, to create another one like it."""
        names = ("codec_options", "read_preference", "write_concern", "read_concern")
        return {} if self.database is None else {name: getattr(self.database, name) for name in names}


def handed_in(given: Any) -> HandedIn:
    """`given`: Motor's or PyMongo's async client, or a database object of one. Raises `TypeError` for anything else."""
    modules = ("motor.", "pymongo.asynchronous.")
    kinds = [kind for kind in type(given).__mro__ if f"{kind.__module__}.".startswith(modules)]
    names = [kind.__name__ for kind in kinds]
    if any(name.endswith("Client") for name in names):
        return HandedIn(given)
    if any(name.endswith("Database") for name in names):
        return HandedIn(given.client, given)
    raise TypeError(
        f"mongo_client is a {type(given).__module__}.{type(given).__name__}: pass in Motor's AsyncIOMotorClient or "
        "PyMongo's AsyncMongoClient, or a database object of one"
    )


def client_faults(client: Any) -> Iterator[tuple[str, str]]:
    """Each option of a client that is refused in every phase, with the reason. (A client that encrypts is refused where
    both stores are written: `mongo_kinds`.)"""
    options = getattr(client, "options", None)
    api = getattr(getattr(options, "pool_options", None), "server_api", None)
    if api is not None and api.strict:
        row = find("server_api", Where.CLIENT)
        assert row is not None
        yield row.name, row.how
