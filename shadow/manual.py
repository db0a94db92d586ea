"""The manual: the pages of `docs/`, which are part of the package, and their addresses on the web."""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

__all__ = ["address", "alert_rules", "anchors", "page", "project_address", "section", "topics", "where"]

_ROOT: Final = Path(__file__).parent
_FOLDERS: Final = (_ROOT / "docs", _ROOT.parent / "docs")
"""In an installed package, and in a checkout."""

_RULES: Final = (_ROOT / "docs" / "alert-rules.yml", _ROOT.parent / "config" / "prometheus" / "rules" / "shadow.yml")

_INDEX: Final = "index"
_TOPIC: Final = "{topic}"

_RUNBOOK_URL: Final = re.compile(r"runbook_url: .*?/alerts\.md#(\w+).*")
"""In the rules as shipped, the address comes from an external label of Prometheus."""


def topics() -> dict[str, str]:
    """The title of each topic's page, in the order of the index. Raises OSError if the pages are missing."""
    names = re.findall(r"^\| \[[\w-]+\]\(([\w-]+)\.md\)", page(_INDEX), re.MULTILINE)
    return {name: _title(page(name)) for name in names}


@functools.cache
def page(topic: str) -> str:
    """The page of a topic as Markdown, without the markers of generated parts. Raises OSError if there is none."""
    text = _there(tuple(folder / f"{topic}.md" for folder in _FOLDERS)).read_text("utf-8")
    return re.sub(r"<!-- .*? -->\n", "", text)


def section(topic: str, name: str) -> str | None:
    """A section of a page, up to the next heading of its rank, found by title or anchor in any case. None if there is
    no such section."""
    text, wanted = page(topic), _slug(name)
    for rank, title, start in _headings(text):
        if _slug(title) == wanted:
            after = (begin for below, _, begin in _headings(text) if begin > start and below <= rank)
            return text[start : next(after, len(text))].rstrip() + "\n"
    return None


def anchors(text: str) -> list[str]:
    """The anchors of a page's headings, as Git hosts generate them."""
    return [_slug(title) for _, title, _ in _headings(text)]


def address(docs_url: str, topic: str, anchor: str = "") -> str:
    """The web address of a page or of a heading in it; "" without a `docs_url`. A `docs_url` with `{topic}` in it is a
    template; any other is the folder of the pages."""
    if not docs_url:
        return ""
    base = docs_url if _TOPIC in docs_url else f"{docs_url.rstrip('/')}/{_TOPIC}.md"
    return base.replace(_TOPIC, topic) + (f"#{anchor}" if anchor else "")


def where(docs_url: str, topic: str, anchor: str = "") -> str:
    """The web address of a heading, or the command that prints its section."""
    return address(docs_url, topic, anchor) or " ".join(("shadow docs", topic, anchor)).rstrip()


def alert_rules(docs_url: str) -> str:
    """The Prometheus alert rules as YAML. With a `docs_url`, each `runbook_url` is the absolute address of its section.
    Raises OSError if the rules are missing."""
    text = _there(_RULES).read_text("utf-8")
    return _RUNBOOK_URL.sub(lambda found: _runbook_url(docs_url, found[1]), text) if docs_url else text


def project_address() -> str:
    """The address of the documentation in the project's metadata, or ""."""
    try:
        urls = metadata.metadata("shadow").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    labelled = (each.partition(",") for each in urls)
    return next((url.strip() for label, _, url in labelled if label.strip().lower() == "documentation"), "")


def _runbook_url(docs_url: str, anchor: str) -> str:
    return f'runbook_url: "{address(docs_url, "alerts", anchor)}"'


def _there(files: tuple[Path, ...]) -> Path:
    """The first file that exists."""
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(errno.ENOENT, "a file of the package is missing: reinstall it", str(files[0]))


def _headings(text: str) -> Iterator[tuple[int, str, int]]:
    """Rank, title and offset of each heading outside code blocks."""
    place, fenced = 0, False
    for line in text.splitlines(keepends=True):
        if line.startswith("```"):
            fenced = not fenced
        found = None if fenced else re.match(r"(#+) (.+)", line)
        if found:
            yield len(found[1]), found[2].strip(), place
        place += len(line)


def _title(text: str) -> str:
    return next(title for _, title, _ in _headings(text))


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
