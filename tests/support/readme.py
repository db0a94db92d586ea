"""The parts of the README that are made from the code. `python -m tests.support.readme` writes them anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shadow import Collection
from shadow.concerns import OPTIONS
from shadow.model.differences import DIFFERENCES
from shadow.model.matching.support import Family, entries
from shadow.observe.metrics import metric_table
from shadow.stores.dynamo.support import How, how

__all__ = ["README", "made", "parts"]

README: Final = Path(__file__).parents[2] / "README.md"

REFUSED_VERBS: Final = ("drop_indexes", "rename", "watch")
_NOT_VERBS: Final = ("name", "full_name", "database", "options", "with_options", *OPTIONS)
_TITLES: Final = {
    Family.QUERY: "filters",
    Family.UPDATE: "updates",
    Family.MODIFIER: "modifiers of `$push`",
    Family.PROJECTION: "projections",
    Family.STAGE: "pipeline stages",
    Family.ACCUMULATOR: "accumulators",
    Family.EXPRESSION: "expressions",
}


def metrics() -> str:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for row in metric_table():
        labels = ", ".join(f"`{name}`" for name in row.labels) or "-"
        rows.append(f"| `{row.name}` | {row.type} | {labels} | {row.help} |")
    return "\n".join(rows)


def verbs() -> list[str]:
    """The verbs of the Motor surface that are supported."""
    names = [name for name, _ in inspect.getmembers(Collection) if not name.startswith("_")]
    return [name for name in names if name not in (*_NOT_VERBS, *REFUSED_VERBS)]


def with_options() -> dict[str, str]:
    """What each option may be, and what only the client can have it be."""
    accepted = "; ".join(f"`{name}`: {each[0]}" for name, each in OPTIONS.items())
    refused = "; ".join(f"`{name}`: {each[1]}" for name, each in OPTIONS.items() if each[1] != "-")
    return {"accepted": accepted, "refused unless the client of MongoDB has it": refused}


def operations() -> str:
    rows = ["| what | how on DynamoDB | names |", "|---|---|---|"]
    rows.append(f"| collection | supported | {_listed(verbs())} |")
    rows.append(f"| collection | refused | {_listed(REFUSED_VERBS)} |")
    rows += [f"| `with_options` | {how} | {text} |" for how, text in with_options().items()]
    for family, title in _TITLES.items():
        for way in How:
            named = [entry.name for entry in entries() if entry.family is family and how(entry) is way]
            if named:
                rows.append(f"| {title} | {way} | {_listed(sorted(named))} |")
    return "\n".join(rows)


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return " ".join(f"`{name}`" for name in names)


def known_differences() -> str:
    return "\n".join(f"{number}. {text}" for number, text in DIFFERENCES.items())


parts: Final[dict[str, Callable[[], str]]] = {
    "metrics": metrics,
    "operations": operations,
    "known differences": known_differences,
}


def made(text: str) -> str:
    """The README with its made parts as the code says."""
    for name, make in parts.items():
        block = re.compile(rf"(<!-- made from the code: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert block.search(text), f"the README has no place for {name}"
        body = make()
        text = block.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(made(README.read_text("utf-8")), encoding="utf-8")
