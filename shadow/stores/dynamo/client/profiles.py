"""The credentials that the AWS SDK finds where no keys are given: a profile in its files, or a role with a token. A
source that cannot work is reported as a fault before any request.

Sources: botocore's `credentials` (the order of its providers, and what each raises) and `configloader` (what it reads
of the files); AWS SDKs and Tools Reference Guide, "Shared config and credentials files" and "Assume role".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.configloader import load_config, raw_config_parse
from botocore.exceptions import ConfigNotFound, ConfigParseError

from shadow.errors import Fault

__all__ = ["found_by_sdk"]

_CREDENTIALS: Final = ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
_CONFIG: Final = ("AWS_CONFIG_FILE", "~/.aws/config")
_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key")
_TOKENS: Final = ("aws_session_token", "aws_security_token")
_SOURCES: Final = ("source_profile", "credential_source", "web_identity_token_file")
"""The keys that give the credentials with which a profile's role is assumed."""
_ROLE: Final = "AWS_ROLE_ARN"
_TOKEN_FILE: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - the name of a variable


def found_by_sdk(environment: Mapping[str, str]) -> tuple[str | None, list[Fault]]:
    """The region of the profile that the environment names (None: it has none, or no profile is named), and the faults
    of that profile or of the role. Reads the files of the AWS SDK, and sends no request."""
    variable = next((name for name in ("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if name in environment), None)
    try:
        credentials, config = _read(environment, _CREDENTIALS), _read(environment, _CONFIG)
    except ConfigParseError as error:
        path = error.kwargs["path"]
        return None, [Fault("dynamo", str(path), "a file that the AWS SDK can read: sections in [ ], name = value")]
    named = environment[variable] if variable is not None else "default"
    profile: dict[str, Any] = {**config.get(named, {}), **credentials.get(named, {})}
    faults = list(_role_faults(environment, profile))
    if variable is not None and named not in {*credentials, *config}:
        looked = " and ".join(environment.get(*each) for each in (_CREDENTIALS, _CONFIG))
        faults.append(Fault(variable, named, f"a profile of {looked}: {_listed({*credentials, *config})}"))
    if not faults:
        faults = list(
            _profile_faults(named, credentials.get(named, {}), config.get(named, {}), {*credentials, *config})
        )
    return (profile.get("region") if variable is not None else None), faults


def _read(environment: Mapping[str, str], file: tuple[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """The profiles of a file by name; none where there is no file."""
    path = environment.get(*file)
    try:
        found: Mapping[str, Mapping[str, Any]] = (
            load_config(path)["profiles"] if file is _CONFIG else raw_config_parse(path)
        )
    except ConfigNotFound:
        return {}
    return found


def _listed(profiles: set[str]) -> str:
    return f"there are {', '.join(sorted(profiles))}" if profiles else "there is none"


def _role_faults(environment: Mapping[str, str], profile: Mapping[str, Any]) -> Iterator[Fault]:
    role, path = environment.get(_ROLE), environment.get(_TOKEN_FILE)
    if role and not path and "web_identity_token_file" not in profile:
        yield Fault(
            _ROLE, "alone", f"{_TOKEN_FILE} with it, or a profile that assumes the role: the AWS SDK passes it by"
        )
    if path and not role and "role_arn" not in profile:
        yield Fault(_TOKEN_FILE, "alone", f"{_ROLE} with it: the token is for a role")
    if path and not os.access(path, os.R_OK):
        yield Fault(_TOKEN_FILE, path, "a file that this process can read")


def _profile_faults(
    name: str, credentials: Mapping[str, Any], config: Mapping[str, Any], profiles: set[str]
) -> Iterator[Fault]:
    for section in (credentials, config):
        given = [each for each in (*_KEYS, *_TOKENS) if section.get(each)]
        if given and not all(section.get(each) for each in _KEYS):
            expected = f"{' and '.join(_KEYS)} together in one file, and the token with both"
            yield Fault("dynamo", f"{', '.join(given)} alone in profile {name}", expected)
            return
    both = {**config, **credentials}
    if "role_arn" not in both:
        return
    given = [each for each in _SOURCES if each in both]
    if not given or given == ["source_profile", "credential_source"]:
        said = f"role_arn with {' and '.join(given)}" if given else "role_arn alone"
        yield Fault("dynamo", f"{said} in profile {name}", f"one of {', '.join(_SOURCES)} with it")
    elif given == ["source_profile"] and both["source_profile"] not in profiles:
        yield Fault("dynamo", f"source_profile {both['source_profile']} in profile {name}", _listed(profiles))
