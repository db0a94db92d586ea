"""The tests of the suites that pass bare and not with the library, each with its reason (`kept.json`)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Final

__all__ = ["BY_CHANCE", "known", "shrinks", "write"]

BY_CHANCE: Final = "by chance: "
"""How the reason begins of a test that passes in some runs."""

_FILE: Final = Path(__file__).with_name("kept.json")


def known(name: str, mode: str) -> dict[str, str]:
    """Test to reason."""
    lists: dict[str, dict[str, dict[str, str]]] = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else {}
    return lists.get(name, {}).get(mode, {})


def shrinks(name: str, mode: str, passed: list[str], *, fatal: bool) -> None:
    """What is in the list and passes has to be taken out of it: `python -m tests.suites NAME --kept --write`. Not what
    passes by chance."""
    reasons = known(name, mode)
    passed = [test for test in passed if not reasons.get(test, "").startswith(BY_CHANCE)]
    if passed:
        said = f"{name}, {mode}: take out of tests/suites/kept.json what passes: {', '.join(passed)}"
        assert not fatal, said
        warnings.warn(said, stacklevel=2)


def write(name: str, mode: str, found: dict[str, str]) -> None:
    """Takes out of the list what passes, but for `BY_CHANCE`, and adds what fails with its own words. A reason that
    stands there stays."""
    lists = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else {}
    stays = {test: said for test, said in known(name, mode).items() if said.startswith(BY_CHANCE)}
    reasons = stays | {test: known(name, mode).get(test, _short(said)) for test, said in sorted(found.items())}
    lists.setdefault(name, {})[mode] = reasons
    _FILE.write_text(json.dumps(lists, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _short(said: str) -> str:
    """Of two answers the one of the library."""
    return said.rpartition(", and here ")[2][:200]
