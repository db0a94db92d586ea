"""YAML as people mean it. What YAML 1.1 would silently read as something else is refused with its place.

PyYAML reads `no` as a boolean, `0123` as 83, `12:30` as 750, and keeps the last of two equal keys. Such a word is kept
as written, as an `Odd`: valid for a flag (`on`) or for phase `off`, and a fault anywhere else (see `misread`).
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from shadow.errors import ConfigurationError, Fault

__all__ = ["Odd", "read_yaml"]

_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(
    r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"


class Odd(str):
    """A word as written in the file; `reading` is what YAML 1.1 would make of it."""

    reading: str

    def __new__(cls, text: str, reading: str) -> Odd:
        made = super().__new__(cls, text)
        made.reading = reading
        return made


class _BadKey(yaml.constructor.ConstructorError):
    def __init__(self, problem: str, expected: str, mark: Any) -> None:
        super().__init__(None, None, problem, mark)
        self.expected = expected


class _Yaml(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses duplicate keys, of which the last would win, and keys that are not text, like `yes`, `null` or `2024`
        without quotes."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag != _STR:
                shown = getattr(key, "value", "a key")
                raise _BadKey(f"the key {shown} is not read as text", "a name; quote it if it is one", key.start_mark)
            if key.value in seen:
                raise _BadKey(f"the key {key.value} a second time", "each key once", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def bool(self, node: yaml.ScalarNode) -> Any:
        plain = node.value.lower() in ("true", "false")
        return self.construct_yaml_bool(node) if plain else Odd(node.value, "a boolean")

    def int(self, node: yaml.ScalarNode) -> Any:
        return int(node.value) if _NUMBER.fullmatch(node.value) else Odd(node.value, "a number of another kind")

    def float(self, node: yaml.ScalarNode) -> Any:
        return self.construct_yaml_float(node) if _FLOAT.fullmatch(node.value) else Odd(node.value, "a number")

    def timestamp(self, node: yaml.ScalarNode) -> Any:
        return Odd(node.value, "a date")


for _kind in ("bool", "int", "float", "timestamp"):
    _Yaml.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Yaml, _kind))


def read_yaml(text: str, source: str) -> dict[str, Any]:
    """The sections of a file, without empty ones. Raises `ConfigurationError` with the place."""
    try:
        raw = yaml.load(text, _Yaml)  # noqa: S506 -- it is a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigurationError(source, [_fault(error)]) from None
    except RecursionError:
        raise ConfigurationError(source, [Fault("(file)", "an alias within itself", "a tree")]) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigurationError(source, [Fault("(file)", type(raw).__name__, "a mapping with sections")])
    return {str(name): value for name, value in raw.items() if value is not None}


def _fault(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "(file)"
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML")
    if isinstance(error, _BadKey):
        return Fault(place, problem, error.expected)
    if "another document" in problem:
        return Fault(place, "a second document", "one document: no line `---` between the sections")
    if "'\\t'" in problem:
        return Fault(place, "a tab", "spaces: YAML allows no tabs before a key")
    return Fault(place, problem, "valid YAML")
