"""Checks of single fields of the settings. Each raises ValueError, for pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)

from shadow.compare.rules import Rule
from shadow.model.phase import Phase
from shadow.mongoql.portability import NAMES
from shadow.settings.names import collection_name, database_name, field_path
from shadow.stores.dynamo.client.settings import is_table_name
from shadow.stores.mongo.checks import url_faults

__all__ = [
    "FROZEN",
    "OURS",
    "Duration",
    "Factor",
    "FieldPath",
    "Name",
    "OperatorName",
    "PhaseField",
    "Reason",
    "Share",
    "ShareOfReads",
    "UniquePath",
    "as_duration",
    "as_phase",
    "as_share",
    "check_constraint_name",
    "check_docs_url",
    "check_index_name",
    "check_journal_url",
    "check_mongo_url",
    "check_named_once",
    "check_reserved",
    "revealed",
    "said_twice",
]

FROZEN: Final = ConfigDict(frozen=True, extra="forbid")

OURS: Final = ("journal", "control")
"""The options of a connection string that are shadow's, not the driver's."""


def revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _check_operator(name: str) -> str:
    if name not in NAMES:
        raise ValueError("an operator of MongoDB ($where) or an option of the drivers (collation)")
    return name


def as_phase(value: Any) -> Any:
    """JSON and other YAML readers may have read a bare `off` as the boolean false."""
    return "off" if value is False else value


def _own_names(database: str, options: Mapping[str, str]) -> None:
    """Raises ValueError for names that MongoDB refuses."""
    if database:
        database_name(database)
    for option in OURS:
        if option in options:
            collection_name(f"{options[option]}.intents".removeprefix("shadow_"), database)


def check_journal_url(url: SecretStr) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    match parts.scheme:
        case "sqlite" if url.get_secret_value().startswith("sqlite:///") and len(parts.path) > 1:
            return url
        case "mongodb" | "mongodb+srv" if parts.path.count("/") <= 1:
            _own_names(parts.path.strip("/"), dict(parse_qsl(parts.query)))
            if faults := list(_journal_faults(url.get_secret_value())):
                raise ValueError("; ".join(faults))
            return url
        case "dynamodb" if is_table_name(parts.netloc) and not (parts.path or parts.query):
            return url
    raise ValueError(
        "must be sqlite:///relative/path.db, sqlite:////absolute/path.db, mongodb://host/database, mongodb:///database "
        "(on the server of section mongo) or dynamodb://table"
    )


def _journal_faults(url: str) -> Iterator[str]:
    """Faults in the url of a journal or control store in MongoDB."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    if any(name == "journal" and value in ("true", "false") for name, value in given):
        yield "here journal=NAME names its collections; acknowledged writes are always on disk"
    elif parts.netloc:
        yield from url_faults(url, ours=OURS)
    elif theirs := [name for name, _ in given if name not in OURS]:
        yield f"the option {theirs[0]}: without a host, the options of mongo.url apply; set it there"


def check_mongo_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if not text.startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    if faults := url_faults(text):
        raise ValueError("; ".join(faults))
    return url


def check_index_name(name: str) -> str:
    if not is_table_name(name):
        raise ValueError("must be 3 to 255 of a-z, A-Z, 0-9, `_`, `-` and `.`, DynamoDB's rule for names of indexes")
    return name


def check_reserved(name: str) -> str:
    if name == "_id" or name.startswith("$") or "." in name or "\0" in name:
        raise ValueError("must be a top-level field for shadow alone: not _id, without `.`, not beginning with `$`")
    return name


def _unique_path(path: str) -> str:
    if path == "_id":
        raise ValueError("must be another field: _id is always unique")
    return field_path(path)


def check_constraint_name(name: str) -> str:
    if "\0" in name or name == "*":
        raise ValueError("must be a name that MongoDB accepts for an index: not `*`, without null characters")
    return name


def said_twice(names: Sequence[str]) -> str:
    """The first name that occurs twice, or ""."""
    return next((name for name in names if names.count(name) > 1), "")


def check_named_once(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"different names; {', '.join(twice)} occurs twice")
    return rules


def as_share(value: Any) -> float:
    """A share: `5%`, or a number up to 1."""
    text = value.strip() if isinstance(value, str) else value
    try:
        share = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if isinstance(value, bool) or not 0.0 <= share <= 1.0:
        raise ValueError("must be a share of the reads from 0% to 100%: 5% or 0.05")
    return share


_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def as_duration(value: Any) -> Any:
    """Seconds: a number, which the environment gives as a text, or a text with a unit (`90s`, `30m`, `2h`, `1d`)."""
    if isinstance(value, str):
        text = value.strip()
        unit = _UNITS.get(text[-1:].lower())
        with suppress(ValueError):
            return float(text) if unit is None else float(text[:-1]) * unit
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a time: seconds, or a number with s, m, h or d (30m)")
    return float(value)


def check_docs_url(url: str) -> str:
    parts = urlsplit(url)
    named = url.replace("{topic}", "topic")
    if url and (parts.scheme not in ("http", "https") or not parts.netloc or set(named) & set("{}\"'<>\\ \t\r\n#")):
        raise ValueError(
            "must be the http:// or https:// address of the manual's folder, or one with {topic} in place of the "
            "page's name; without spaces, quotes and #"
        )
    return url


PhaseField = Annotated[Phase, BeforeValidator(as_phase)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Factor = Annotated[float, Field(ge=0, le=1000)]
Duration = Annotated[float, BeforeValidator(as_duration), Field(gt=0, le=30 * 86_400)]
ShareOfReads = Annotated[float, BeforeValidator(as_share)]
OperatorName = Annotated[str, AfterValidator(_check_operator)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
FieldPath = Annotated[Name, AfterValidator(field_path)]
UniquePath = Annotated[Name, AfterValidator(_unique_path)]
Reason = Annotated[str, Field(min_length=3, max_length=500)]
