"""The parts of the manual that are made from the code. `python -m tests.support.manual` writes them again."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shadow import Collection
from shadow.model.differences import DIFFERENCES
from shadow.mongoql.values.support import Family, entries
from shadow.observe.metric_table import metric_table
from shadow.stores.dynamo.query.support import How, how
from shadow.stores.mongo.kinds import ADMITTED, REASONS
from shadow.stores.mongo.options import OPTIONS as OPTION_ROWS
from shadow.stores.mongo.options import Where
from shadow.surface.calls.argument_table import ARGUMENTS, Fate, arguments_of
from shadow.surface.calls.options import OPTIONS
from tests.support import command_line, settings_tables

__all__ = ["PAGES", "README", "ROOT", "made", "parts", "section", "text"]

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
PAGES: Final = {path.stem: path for path in sorted((ROOT / "docs").glob("*.md"))}
"""The pages by topic, the index among them."""

REFUSED_VERBS: Final = ("rename", "watch")
_NOT_VERBS: Final = ("name", "full_name", "database", "options", "with_options", *OPTIONS)
_FEW: Final = 5
"""Verbs that are named one by one."""
_TITLES: Final = {
    Family.QUERY: "filters",
    Family.UPDATE: "updates",
    Family.MODIFIER: "modifiers of `$push`",
    Family.PROJECTION: "projections",
    Family.STAGE: "pipeline stages",
    Family.ACCUMULATOR: "accumulators",
    Family.EXPRESSION: "expressions",
    Family.WINDOW: "window functions",
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
    """What each option may be, and what only MongoDB, or only the client, can have it be."""
    ways = ("accepted", "MongoDB alone", "refused unless the client of MongoDB has it")
    return {
        way: "; ".join(f"`{name}`: {each[place]}" for name, each in OPTIONS.items() if each[place] != "-")
        for place, way in enumerate(ways)
    }


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


def arguments() -> str:
    """Every argument of the verbs, and what it does."""
    rows = ["| argument | of | | why |", "|---|---|---|---|"]
    for fate in Fate:
        for name, has_it in arguments_of(fate).items():
            of = "every verb that has it" if len(has_it) > _FEW else _listed(has_it)
            rows.append(f"| `{name}` | {of} | {fate} | {ARGUMENTS[name].how} |")
    return "\n".join(rows)


def options() -> str:
    """Every option of a connection to MongoDB, and what it does."""
    rows = ["| option | what it is | | how |", "|---|---|---|---|"]
    titles = {Where.URL: "", Where.CLIENT: " (of a client)", Where.DATABASE: " (of a database object)"}
    rows += [f"| `{each.name}`{titles[each.where]} | {each.means} | {each.fate} | {each.how} |" for each in OPTION_ROWS]
    return "\n".join(rows)


def known_differences() -> str:
    return "\n".join(f"{number}. {text}" for number, text in DIFFERENCES.items())


def collection_kinds() -> str:
    rows = ["| a collection that is, or has | | what is to be known | next step |", "|---|---|---|---|"]
    rows += [f"| {name} | supported | {row.why} | {row.next or '-'} |" for name, row in ADMITTED.items()]
    mend = "the command is in the error"
    rows += [f"| {name} | refused | {row.why} | {row.next.replace('{mend}', mend)} |" for name, row in REASONS.items()]
    return "\n".join(rows)


parts: Final[dict[str, Callable[[], str]]] = {
    "metrics": metrics,
    "operations": operations,
    "arguments": arguments,
    "options of MongoDB": options,
    "known differences": known_differences,
    "collection kinds": collection_kinds,
    "commands": command_line.overview,
    "command line": command_line.page,
    **{name: functools.partial(settings_tables.table, name) for name in settings_tables.BLOCKS},
}


def text(topic: str) -> str:
    """A page as it is kept."""
    return PAGES[topic].read_text("utf-8")


def section(topic: str, title: str) -> str:
    """A section of a page, from its heading to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", text(topic), re.MULTILINE)
    assert found, f"docs/{topic}.md has no section {title}"
    rest = text(topic)[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def made(text: str) -> str:
    """A page with its generated parts as the code says. A KeyError names a part that nothing makes."""
    block = re.compile(r"(<!-- generated: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{parts[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for path in PAGES.values():
        path.write_text(made(path.read_text("utf-8")), encoding="utf-8")
