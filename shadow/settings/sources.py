"""The sources of settings: misspelled variables, and credentials that come in pieces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from shadow.errors import Fault

__all__ = ["OTHERS", "credentials", "given", "not_used", "unknown_variables"]

OTHERS: Final = frozenset({"SHADOW_CONFIG", "SHADOW_STATUS_URL", "SHADOW_COLLECTIONS"})
"""Variables of shadow that are not single settings."""

_OF_TESTS: Final = frozenset({"SHADOW_DYNAMO_URL", "SHADOW_DYNAMODB_LOCAL"})
"""Variables with which a test run names its servers."""

_NEAR: Final = 0.84
_OF_KUBERNETES: Final = re.compile(
    r"SHADOW(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT)(_.*)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?)"
)
"""Kubernetes sets these for services named `shadow` or `shadow-...`."""

_PARTS: Final = ("access_key_id", "secret_access_key", "session_token")
_OWN: Final = "SHADOW_DYNAMO_..."
_OLD_TOKEN: Final = "AWS_SECURITY_TOKEN"  # noqa: S105 - the name of a variable
"""The old name of AWS_SESSION_TOKEN, which botocore and boto3 still accept."""

_INSTEAD_OF_KEYS: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables that select credentials other than keys (AWS SDKs and Tools Reference Guide). SDKs differ about whether
they override keys. Variables that a platform sets by itself, such as the address of a container's credentials, are not
included: they apply only if nothing else is set."""


def given(environment: Mapping[str, str]) -> dict[str, str]:
    """Without empty variables, which mean nothing: compose files cannot omit a variable."""
    return {name: text for name, text in environment.items() if text.strip()}


def unknown_variables(
    environment: Mapping[str, str], known: Collection[str], sections: Collection[str]
) -> Iterator[Fault]:
    """A fault for each unknown variable that is similar to one of shadow's or begins with one of its sections. Other
    variables that begin with SHADOW_ belong to somebody else."""
    known = {*known, *OTHERS, *_OF_TESTS}
    for name in sorted(environment):
        if not name.startswith("SHADOW_") or name in known or _OF_KUBERNETES.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near:
            yield Fault(name, "an unknown variable", f"did you mean {near[0]}?")
        elif any(name.startswith(f"SHADOW_{section.upper()}_") for section in sections):
            yield Fault(name, "an unknown variable", "the name of a key of its section, or unset it")


def credentials(file: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """DynamoDB's credentials, all from one source: SHADOW_DYNAMO_... before AWS_... before the file. A source must give
    the two keys together, and the token only with both; sources of lower rank are then ignored. A profile or a role
    belongs to the source AWS_... and excludes keys of it and of the file. Returns all three settings (None where the
    source has none), or {} if no source gives any."""
    for where, found in _sources(file, environment):
        if not found:
            continue
        if {"access_key_id", "secret_access_key"} <= found.keys():
            beside = [] if where == _OWN else _instead(environment)
            return {part: found.get(part) for part in _PARTS}, [_both(where, beside)] if beside else []
        elsewhere = [other for other, rest in _sources(file, environment) if other != where and rest]
        if elsewhere:
            said = f"{', '.join(found)} from {where}, the rest from {' and '.join(elsewhere)}"
            expected = "all parts of the credentials from one source: parts of two belong to different keys"
            return {}, [Fault("dynamo", said, expected)]
        expected = "access_key_id and secret_access_key go together, and session_token with both: all, or none"
        return dict(found), [Fault("dynamo", f"{', '.join(found)} alone", expected)]
    return {}, []


def not_used(environment: Mapping[str, str]) -> list[str]:
    """The variables for a profile or a role that have no effect, because shadow's own keys override them."""
    _, found = next(_sources({}, environment))
    return _instead(environment) if {"access_key_id", "secret_access_key"} <= found.keys() else []


def _instead(environment: Mapping[str, str]) -> list[str]:
    return [name for name in _INSTEAD_OF_KEYS if name in environment]


def _both(where: str, beside: list[str]) -> Fault:
    names = ", ".join(beside)
    expected = (
        f"keys, or a profile or role, but not both: unset {names}, or remove the keys; or give the keys as {_OWN}, "
        "which override everything else"
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
