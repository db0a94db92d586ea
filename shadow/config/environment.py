"""Reads settings from the environment."""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
)
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from shadow.config.sections import ReadsSettings
from shadow.config.settings import CollectionSettings, Settings

__all__ = ["EnvironmentSource", "merged_over"]


class EnvironmentSource(PydanticBaseSettingsSource):
    """The environment as a nested mapping by setting name. Empty variables are ignored (see `sources.given`)."""

    def __init__(self, environment: Mapping[str, str], collections: Mapping[str, Any]) -> None:
        super().__init__(Settings)
        self._environment = environment
        self._names = list(collections)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, value in (*self._shorthands(), *self._keys()):
            _put(found, path, value)
        return found

    def known(self, collections: Any) -> tuple[list[str], list[str]]:
        """The names of all variables that are settings, those of the collections included; and the sections."""
        names = [name for name, _, _ in _variables()]
        for each in collections if isinstance(collections, Mapping) else ():
            names += [_variable("collections", str(each), *path) for path, _ in _of_collection()]
        return names, [name for name in Settings.model_fields if name not in ("watch_every", "docs_url")]

    def _shorthands(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        use = self._environment.get("USE_DYNAMODB", "").strip().lower()
        if use:
            yes, no = use in ("1", "true", "yes", "on"), use in ("0", "false", "no", "off")
            named = "dynamo" if yes else "mongo" if no else f"USE_DYNAMODB={use}"
            yield ("defaults", "primary"), named
        for name, field in _AWS.items():
            if self._environment.get(name):
                yield ("dynamo", field), self._environment[name]

    def _keys(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        whole = self._environment.get("SHADOW_COLLECTIONS")
        if whole:
            named = _json(whole)
            yield ("collections",), named
            self._names += list(named) if isinstance(named, Mapping) else []
        for name, path, simple in _variables():
            if name in self._environment:
                yield path, _read(self._environment[name], simple)
        for each in self._names:
            for path, simple in _of_collection():
                name = _variable("collections", each, *path)
                if name in self._environment:
                    yield ("collections", each, *path), _read(self._environment[name], simple)


def _variable(*path: str) -> str:
    return "_".join(("SHADOW", *path)).upper().replace(".", "_").replace("-", "_")


_AWS: Final = {
    "AWS_DEFAULT_REGION": "region",
    "AWS_REGION": "region",
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The path of every setting, and whether its value is plain text or a number."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _leaves(info.annotation, (*path, name))
        elif (*path, name) != ("collections",):
            yield (*path, name), _is_simple(info.annotation)


@functools.cache
def _variables() -> tuple[tuple[str, tuple[str, ...], bool], ...]:
    """Of all settings but those of collections, with their variables."""
    return tuple((_variable(*path), path, simple) for path, simple in _leaves(Settings))


@functools.cache
def _of_collection() -> tuple[tuple[tuple[str, ...], bool], ...]:
    """As `_leaves`, for the settings of one collection."""
    found: list[tuple[tuple[str, ...], bool]] = []
    for name, info in CollectionSettings.model_fields.items():
        found += _leaves(ReadsSettings, (name,)) if name == "reads" else [((name,), _is_simple(info.annotation))]
    return tuple(found)


def _is_simple(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _is_simple(typing.get_args(annotation)[0])
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return not is_section and origin not in (tuple, list, dict)


def _read(text: str, simple: bool) -> Any:
    return text if simple else _json(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        target = target.setdefault(name, {}) if isinstance(inner, dict | None) else target
        if not isinstance(target, dict):
            return
    target[path[-1]] = value


def merged_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` merged over `below`, section by section."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merged_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
