"""The pieces of a report that is one self-contained HTML file: no scripts, nothing from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final

from shadow.markup import Child, Markup, tag

__all__ = ["section", "shown_tiles", "table", "whole_page"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def whole_page(title: str, *body: Child) -> str:
    """A document with the style sheet of reports."""
    style = files("shadow").joinpath("report_page.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!doctype html>{tag('html', head, tag('body', *body), lang='en')}\n"


def section(title: str, *children: Child) -> Markup:
    return tag("section", tag("h2", title), *children)


def shown_tiles(tiles: Iterable[tuple[str, str, str]]) -> Markup:
    """Figures at a glance: (name, value, more about it)."""
    shown = (
        tag("div", tag("span", name), tag("strong", value), tag("small", more), class_="tile")
        for name, value, more in tiles
    )
    return tag("div", *shown, class_="tiles")


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], empty: str) -> Markup:
    """A table that scrolls by itself, or `empty` where it has no rows."""
    body = [
        tag("tr", *(tag("td", cell, data_label=name) for name, cell in zip(head, row, strict=True))) for row in rows
    ]
    if not body:
        return tag("p", empty, class_="quiet")
    titles = tag("tr", *(tag("th", each, scope="col") for each in head))
    made = tag("table", tag("thead", titles), tag("tbody", *body))
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=head[-1])
