"""Settings that were renamed. The old spelling still works, and a notice names the new one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shadow.errors import Fault

__all__ = ["RENAMED", "RenamedSetting", "with_new_names"]

RENAMED: Final[Mapping[tuple[str, str], str]] = {
    ("limits", "straggle"): "in_flight_timeout",
    ("observe", "left_out"): "holdout",
}
"""The new key by section and old key."""


class RenamedSetting(FutureWarning):
    """The notice about an old spelling. Python prints it on standard error by default."""


def with_new_names(
    file: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], list[Fault]]:
    """The file's sections and the environment under the new names, and a fault for each setting that either of them has
    under both names. Warns with `RenamedSetting` for each old name."""
    sections, variables, faults = dict(file), dict(environment), list[Fault]()
    for (section, old), new in RENAMED.items():
        if isinstance(values := sections.get(section), Mapping):
            sections[section] = values = dict(values)
            faults += _renamed(values, old, new, f"{section}.")
        faults += _renamed(variables, old.upper(), new.upper(), f"SHADOW_{section.upper()}_", whole=True)
    return sections, variables, faults


def _renamed(values: dict[str, Any], old: str, new: str, place: str, *, whole: bool = False) -> Iterator[Fault]:
    """`whole`: the keys of `values` include the place."""
    before, after = (f"{place}{old}", f"{place}{new}") if whole else (old, new)
    if before not in values:
        return
    value = values.pop(before)
    if after in values:
        yield Fault(
            f"{place}{old}", "the old name of a setting that is also given by its new name", f"only {place}{new}"
        )
        return
    values[after] = value
    notice = f"the setting `{place}{old}` is now `{place}{new}`; the old spelling still works"
    warnings.warn(notice, RenamedSetting, stacklevel=2)
