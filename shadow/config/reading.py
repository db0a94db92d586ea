"""Reads the settings from the file and the environment, and words every fault in them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import (
    ValidationError,
)

from shadow.compare.rules import Ignore, MissingAsNull, Tolerance, Truncate, Unordered
from shadow.config.environment import EnvironmentSource, merged_over
from shadow.config.fields import as_phase
from shadow.config.hooks import HookSettings
from shadow.config.reads import RampSettings, begins
from shadow.config.sections import IndexSettings, ReadsSettings, UniqueSettings
from shadow.config.settings import CollectionSettings, Settings, as_collections
from shadow.errors import ConfigurationError, Fault
from shadow.model.phase import Phase
from shadow.settings.contradictions import contradictions
from shadow.settings.renamed import with_new_names
from shadow.settings.sources import credentials, given, unknown_variables
from shadow.settings.values import misread, shown
from shadow.settings.yaml_text import read_yaml
from shadow.stores.dynamo.client.profiles import found_by_sdk

__all__ = ["load", "parse"]


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings from a YAML file and the environment. Raises `ConfigurationError` with every fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(path),
            [Fault("(file)", str(path), _readable(error))],
            hint="`SHADOW_CONFIG` or `Shadow.from_file` names the file; config/shadow.yaml is an example",
        ) from error
    return parse(text, environment, source=str(path))


def _readable(error: OSError | UnicodeDecodeError) -> str:
    name = type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"text in UTF-8 ({name})"
    return f"a readable YAML file ({name}: {error.strerror or 'not readable'})"


def parse(text: str, environment: Mapping[str, str] | None = None, *, source: str = "(settings)") -> Settings:
    """The settings from YAML text and the environment (default: the process's)."""
    environment = given(os.environ if environment is None else environment)
    raw, environment, twice = with_new_names(read_yaml(text, source), environment)
    named = raw.get("collections")
    above = EnvironmentSource(environment, named if isinstance(named, Mapping) else {})
    merged = merged_over({**raw, "collections": as_collections(named) or {}}, above())
    found, faults = credentials(_section(raw, "dynamo"), environment)
    if found:
        merged["dynamo"] = {**_section(merged, "dynamo"), **found}
    elif not faults:
        region, faults = found_by_sdk(environment)
        merged["dynamo"] = {**({"region": region} if region else {}), **_section(merged, "dynamo")}
    known, sections = above.known(merged.get("collections"))
    faults += [*twice, *unknown_variables(environment, known, sections), *_misplaced_reads(merged)]
    faults += misread(Settings, merged)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        found_by_type = [_fault(each, merged) for each in _told(error.errors())]
        told = {fault.field for fault in found_by_type}
        faults = [*found_by_type, *(fault for fault in faults if fault.field not in told)]
    else:
        faults = faults or list(contradictions(settings))
    if faults:
        raise ConfigurationError(source, faults)
    return settings


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


# --- faults -----------------------------------------------------------------------------------------------------

_RULES: Final = {
    "ignore": Ignore,
    "missing_as_null": MissingAsNull,
    "truncate": Truncate,
    "tolerance": Tolerance,
    "unordered": Unordered,
}
"""pydantic's names for the location of a rule, besides its index in the list."""


def _misplaced_reads(given: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults for shares of reads outside phase `shadow`, where the secondary may lack older documents."""
    defaults, collections = given.get("defaults"), given.get("collections")
    defaults = defaults if isinstance(defaults, Mapping) else {}
    entries = collections if isinstance(collections, Mapping) else {}
    sections = [("defaults", defaults), *((f"collections.{name}", entry) for name, entry in entries.items())]
    for place, section in sections:
        reads = section.get("reads") if isinstance(section, Mapping) else None
        if not isinstance(reads, Mapping) or not any(map(begins, reads.values())):
            continue
        own = section.get("phase")
        phase = as_phase(defaults.get("phase", Phase.SHADOW) if own is None else own)
        if phase in (Phase.OFF, Phase.DUAL_WRITE):
            shown = ", ".join(f"{name}: {_word(share)}" for name, share in reads.items())
            yield Fault(f"{place}.reads", f"{{{shown}}}", f"phase shadow (it is {phase}), or 0%")


def _word(share: Any) -> str:
    return "a ramp" if isinstance(share, Mapping) else str(share)


def _is_branch(place: Any) -> bool:
    """Whether pydantic means a branch of a union: a name may be plain text or an entry of its own."""
    return place in ("str", "UniqueSettings") or str(place).startswith(("constrained-str", "function-", "("))


def _told(errors: Sequence[Any]) -> Iterator[Any]:
    """If a value fits no branch of a union, only the errors of the branch that it was meant for."""
    for each in errors:
        given = each["input"]
        meant_otherwise = (each["type"] == "string_type" and isinstance(given, Mapping)) or (
            each["type"] in ("model_type", "model_attributes_type") and isinstance(given, str)
        )
        if not (meant_otherwise and any(map(_is_branch, each["loc"]))):
            yield each


def _fault(error: Any, given: Mapping[str, Any]) -> Fault:
    place = tuple(each for each in error["loc"] if not _is_branch(each))
    field = ".".join(str(each) for each in place) or "(file)"
    if error["type"] == "extra_forbidden":
        return Fault(field, "unknown key", _suggest(place))
    return Fault(field, shown(field, error["input"]), _expected(error))


def _expected(error: Any) -> str:
    context = error.get("ctx") or {}
    match error["type"]:
        case "string_type" if isinstance(error["input"], int | float):
            return "must be text: put it in quotes"
        case "string_type" if error["input"] is None:
            return "must be text, but is empty"
        case "float_parsing" | "int_parsing" | "float_type" | "int_type" | "int_from_float":
            return "must be a number, without a unit (times are seconds)"
        case "enum" | "literal_error":
            return f"must be one of {context['expected']}"
        case "value_error":
            return str(context["error"])
        case _:
            return str(error["msg"])


_NO_KEY: Final = "not a key of this file: name a profile as AWS_PROFILE in the environment, a role in the profile"
_ELSEWHERE: Final[dict[tuple[Any, ...], str]] = {
    ("aws",): "the settings of DynamoDB are in section dynamo; a profile is AWS_PROFILE in the environment",
    **{("dynamo", name): _NO_KEY for name in ("profile", "profile_name", "aws_profile", "role_arn", "role")},
}
"""Where to set what people expect in the file, by location."""


def _suggest(place: tuple[Any, ...]) -> str:
    """The valid keys in place of an unknown one, the most similar first."""
    model: Any = Settings
    for name in place[:-1]:
        model = _inside(model, name)
    if place in _ELSEWHERE:
        return _ELSEWHERE[place]
    known = sorted(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    listed = f"known keys: {', '.join(known)}"
    return f"did you mean {close[0]!r}? {listed}" if close else listed


def _inside(model: Any, name: Any) -> Any:
    if model is CollectionSettings and name in ("indexes", "unique"):
        return IndexSettings if name == "indexes" else UniqueSettings
    if name in _RULES:
        return _RULES[name]
    if name == "reads":
        return ReadsSettings
    if name == "hooks":
        return HookSettings
    if model is ReadsSettings:
        return RampSettings
    if isinstance(name, int):
        return model
    info = getattr(model, "model_fields", {}).get(name)
    if info is None:
        return CollectionSettings if model is dict else model
    return dict if name == "collections" else info.annotation
