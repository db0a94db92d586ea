"""Where settings come from: variables that are meant for shadow and name nothing, and credentials in pieces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from shadow.errors import Fault

__all__ = ["OTHERS", "credentials", "given", "not_used", "unknown_variables"]

OTHERS: Final = frozenset({"SHADOW_CONFIG", "SHADOW_STATUS_URL", "SHADOW_COLLECTIONS"})
"""Variables of shadow that are no single setting."""

_OF_TESTS: Final = frozenset({"SHADOW_DYNAMO_URL", "SHADOW_DYNAMODB_LOCAL"})
"""What a test run says of its servers."""

_NEAR: Final = 0.84
_OF_KUBERNETES: Final = re.compile(
    r"SHADOW(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)"
)
"""Kubernetes makes these for services that are called `shadow` or `shadow-...`."""

_PARTS: Final = ("access_key_id", "secret_access_key", "session_token")
_OWN: Final = "SHADOW_DYNAMO_..."
_OLD_TOKEN: Final = "AWS_SECURITY_TOKEN"  # noqa: S105 - the name of a variable
"""What AWS_SESSION_TOKEN was called before; botocore and boto3 still take it."""

_INSTEAD_OF_KEYS: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""The variables by which somebody names other credentials than keys (AWS SDKs and Tools Reference Guide). Which of
them goes before keys differs from one SDK to the next. What a platform sets by itself, as the address of a container's
credentials, is not among them: it is for those who name none."""


def given(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the variables that are set and empty: compose files cannot leave one out, so that means nothing."""
    return {name: text for name, text in environment.items() if text.strip()}


def unknown_variables(
    environment: Mapping[str, str], known: Collection[str], sections: Collection[str]
) -> Iterator[Fault]:
    """A fault for each variable that is nearly one of ours, or begins with a section of ours, and is none. Others that
    begin with SHADOW_ belong to somebody else."""
    known = {*known, *OTHERS, *_OF_TESTS}
    for name in sorted(environment):
        if not name.startswith("SHADOW_") or name in known or _OF_KUBERNETES.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near:
            yield Fault(name, "a variable that is no setting", f"did you mean {near[0]}?")
        elif any(name.startswith(f"SHADOW_{section.upper()}_") for section in sections):
            yield Fault(name, "a variable that is no setting", "one that names a key of its section, or not set")


def credentials(file: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """DynamoDB's credentials, all of one source: SHADOW_DYNAMO_... before AWS_... before the file. A source that gives
    some of them must give what it takes: the two keys, and the token that belongs to them. What lower ones say is not
    looked at then. A profile or a role is of the source AWS_..., and nothing beside keys of it or below. Answers all
    three settings (None where the source has none), or {} where no source gives any."""
    for where, found in _sources(file, environment):
        if not found:
            continue
        if {"access_key_id", "secret_access_key"} <= found.keys():
            beside = [] if where == _OWN else _instead(environment)
            return {part: found.get(part) for part in _PARTS}, [_both(where, beside)] if beside else []
        elsewhere = [other for other, rest in _sources(file, environment) if other != where and rest]
        if elsewhere:
            said = f"{', '.join(found)} of {where}, the rest of {' and '.join(elsewhere)}"
            expected = "all parts of the credentials from one source: parts of two belong to different keys"
            return {}, [Fault("dynamo", said, expected)]
        expected = "access_key_id and secret_access_key go together, and session_token with both: all, or none"
        return dict(found), [Fault("dynamo", f"{', '.join(found)} alone", expected)]
    return {}, []


def not_used(environment: Mapping[str, str]) -> list[str]:
    """The variables that name a profile or a role, and do nothing, since shadow's own keys go before them."""
    _, found = next(_sources({}, environment))
    return _instead(environment) if {"access_key_id", "secret_access_key"} <= found.keys() else []


def _instead(environment: Mapping[str, str]) -> list[str]:
    return [name for name in _INSTEAD_OF_KEYS if name in environment]


def _both(where: str, beside: list[str]) -> Fault:
    names = ", ".join(beside)
    expected = (
        f"keys, or a profile or role, and not both: unset {names}, or remove the keys; or give the keys as {_OWN}, "
        "which go before all else"
    )
    return Fault("dynamo", f"the keys of {where}, and {names}", expected)


def _sources(file: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for prefix in ("SHADOW_DYNAMO_", "AWS_"):
        names = {part: f"{prefix}{part.upper()}" for part in _PARTS}
        found = {part: environment[name] for part, name in names.items() if name in environment}
        if prefix == "AWS_" and _OLD_TOKEN in environment:
            found.setdefault("session_token", environment[_OLD_TOKEN])
        yield f"{prefix}...", found
    yield "the file", {part: file[part] for part in _PARTS if file.get(part) is not None}
