"""The texts of the project: what they say in prose, which commands they name, and the phrases that were retired.

`python -m tests.support.texts` writes the counts of retired phrases in the package again; they may only shrink.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import command_line, package
from tests.support.manual import PAGES, README, ROOT

__all__ = ["BASELINE", "RETIRED", "Named", "Text", "counts", "documents", "named", "prose", "strings", "uses"]

BASELINE: Final = Path(__file__).with_name("retired-phrases.json")
"""How often the docstrings, help texts and messages of the package still use each retired phrase."""

RETIRED: Final = {
    "all the same": (r"\ball the same\b", "nevertheless, equal"),
    "anew": (r"\banew\b", "again"),
    "another hand": (r"\b(another|a) hand (in|has|of)\b", "a manual edit"),
    "answers for": (r"\bdoes not answer for\b", "has not reported"),
    "becomes of": (r"\bwhat (becomes|became|has become|will become) of\b", "what happens to"),
    "bypassing writers": (r"\b(bare|bypassing) writers?\b|\bwriters? (that go |who go )?past\b", "out-of-band writes"),
    "comes to": (r"\bc[ao]mes? to (what|the same|another|something else|nothing|a verdict)\b", "results in"),
    "company": (r"\bfor company\b", "are batched for up to"),
    "dear": (r"\bdear(er|est)?\b", "expensive"),
    "doubt": (r"\bdoubt\w*", "unverified"),
    "excuse": (r"\bexcus(e|es|ed|ing)\b", "a comparison rule, to ignore"),
    "followed": (r"\b(is|are|was|were|be|been|not) followed\b|\b(nobody|nothing) follows\b", "replicated"),
    "follower": (r"\bfollowers?\b", "replicator"),
    "gather": (r"\bgather(s|ed|ing)?\b", "to batch"),
    "goes on": (r"\b(goes|went|gone) on\b", "continues"),
    "goes past": (r"\b(go|goes|going|went|gone) past\b", "bypasses, overrides"),
    "gone on with": (r"\bgone on with\b", "resumed"),
    "handed in": (r"\bhanded in\b", "passed in"),
    "handed on": (r"\bhand(s|ed)? (it |them )?on\b", "forwarded"),
    "heal": (r"\bheal(s|ed|ing)?\b", "to repair"),
    "hear": (r"\bhears?\b", "to be notified"),
    "held against": (r"\bh[eo]lds? (both|each|one|it) (stores )?against\b|\bagainst each other\b", "compared with"),
    "held writes": (r"\bhold(s|ing)? (all |its |the |real )*writes\b|\bwrites (are|were) held\b", "paused writes"),
    "in the shadow": (r"\bin the shadow\b", "on the secondary, in the background"),
    "is said": (r"\b(is|are|was|were|be) (said|told)\b(?! apart)", "is reported, is notified, is set"),
    "judge": (r"\bjudg(e|es|ed|ing)\b", "health gates, to compare"),
    "keeper": (r"\bkeepers?\b", "manager"),
    "lane": (r"\blanes?\b", "work queue"),
    "left out": (r"\b(left|leaves|leave) out\b", "omitted, skipped, unset"),
    "level": (r"(?<!-)\blevel\b(?! of)", "caught up, equal"),
    "linger": (r"\blingers?\b", "max_wait"),
    "looked at": (
        r"\blooks? at (it|them|what|whether|every|each)\b|(?<!last )\blooked at\b",
        "checked, read, compared",
    ),
    "looked at nor changed": (r"\bneither looked at nor changed\b", "left unmanaged"),
    "looks": (r"\b(between|before|after) (the )?(two|first|last) looks?\b|\btwo looks\b", "checks, probes"),
    "mend": (r"\bmend(s|ed|ing)?\b", "to fix, to repair"),
    "of before": (r"\bof before\b", "previous, existing, earlier"),
    "pulse": (r"\bquicken\w*|\bpulse\b", "periodic tasks"),
    "put right": (r"\bputs? right\b", "repaired"),
    "resting": (r"\bresting\b", "passive"),
    "salvage": (r"\bsalvag\w+", "recovery"),
    "shut": (r"\bshut\b(?!down)", "closed"),
    "sought": (r"\bsought\b", "injected"),
    "stands": (r"\bstands? (in|at|there|beside|between|under|behind|here)\b", "is, there are"),
    "stands alike": (r"\bstands? (alike|elsewhere)\b", "reports the same route, is on another route"),
    "straggle": (r"\bstraggl\w+", "in-flight timeout"),
    "suspect": (r"\bsuspect\w*", "unconfirmed mismatch"),
    "taken off": (r"\b(take|takes|taken|taking) (\w+ )?off\b", "removed"),
    "there and back": (r"\bthere and back\b", "forward and back"),
    "told apart": (r"\btold apart\b|\btells? \w+ apart\b", "distinguished"),
    "trust": (r"\btrust(s|ed)?\b", "to mark verified"),
    "unclean": (r"\bunclean\b", "unverified"),
    "written alone": (r"\b(is|are|was|were) written alone\b|\bwrites? one store alone\b", "only one store is written"),
}
"""Each retired phrase: how it is found in prose, and what to say instead."""

_ANY: Final = re.compile("|".join(pattern for pattern, _ in RETIRED.values()), re.IGNORECASE)
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_COMMAND: Final = re.compile(r"(?<![\w./-])shadow((?: [^\s`;&|()<>\"']+)+)|bin/shadow((?: [^\s`;&|]+)+)")


@dataclass(frozen=True, slots=True)
class Text:
    """`name`: the file, with the line for code."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Named:
    """A command line that a text names: its words without `shadow`."""

    where: str
    words: tuple[str, ...]

    @property
    def plain(self) -> tuple[str, ...]:
        """The words before the first option or placeholder."""
        found: list[str] = []
        for word in self.words:
            if not re.fullmatch(r"[a-z][a-z-]*[.,:]?", word):
                break
            found.append(word.rstrip(".,:"))
        return tuple(found)

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(each for word in self.words for each in _OPTION.findall(word))


def documents() -> list[Text]:
    """The README and the pages of the manual."""
    return [Text(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in (README, *PAGES.values())]


def prose(text: str) -> str:
    """Markdown, or a docstring, without code, comments and the targets of links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- .*? -->", "", text)
    text = re.sub(r"`[^`]*`", "", text)
    return " ".join(re.sub(r"\]\([^)]*\)", "]", text).split())


def code_of(text: str) -> Iterator[str]:
    """What Markdown shows as code: each line of a shell block without its comment, and spans."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield from (line.partition(" #")[0] for line in block.splitlines())
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


@functools.cache
def strings() -> tuple[Text, ...]:
    """Every docstring and message of the package, with `…` in place of what is put into it."""
    return tuple(_strings())


def _strings() -> Iterator[Text]:
    for name, nodes in package.nodes().items():
        inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if id(node) not in inside and (text := _string(node)) and " " in text:
                yield Text(f"shadow/{name}:{getattr(node, 'lineno', 0)}", text)


def _string(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "…" for each in parts)
    return ""


def named() -> list[Named]:
    """Every command line that the documents, the package's strings and the configuration files name."""
    found = [
        each for text in documents() for code in code_of(text.text) for each in _commands(text.name, code, code=True)
    ]
    for text in strings():
        for span in re.findall(r"`([^`]+)`", text.text):
            found += _commands(text.name, " ".join(span.split()), code=True)
        found += _commands(text.name, " ".join(re.sub(r"`[^`]*`", "", text.text).split()), code=False)
    for path in (*(ROOT / "config").rglob("*.y*ml"), *(ROOT / "config").rglob("*.json")):
        found += _commands(str(path.relative_to(ROOT)), path.read_text("utf-8"), code=False)
    return found


def _commands(where: str, text: str, *, code: bool) -> Iterator[Named]:
    """In prose, `shadow` is also the name of the product: there only what begins like a command is one."""
    known = command_line.commands().subcommands
    for found in _COMMAND.finditer(text):
        words = tuple((found[1] or found[2]).split())
        named = Named(where, words)
        if not named.plain and words[0].startswith("--"):
            yield named
        if named.plain and (named.plain[0] in known if not code else code_starts(text, found)):
            yield named


def code_starts(text: str, found: re.Match[str]) -> bool:
    """Whether the match is at the beginning of its line or behind a shell's operator."""
    before = text[: found.start()].rsplit("\n", 1)[-1].strip()
    return not before or before.endswith(("&&", "|", ";", "bin/", ".venv/"))


def uses(text: str) -> Iterator[str]:
    """The retired phrases in a text's prose."""
    said = prose(text)
    if _ANY.search(said) is None:
        return
    for name, (pattern, _) in RETIRED.items():
        yield from (name for _ in re.finditer(pattern, said, re.IGNORECASE))


def counts() -> dict[str, int]:
    """How often the package's strings use each retired phrase."""
    found = dict.fromkeys(RETIRED, 0)
    for text in strings():
        for each in uses(text.text):
            found[each] += 1
    return found


if __name__ == "__main__":
    old = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    new = counts()
    if more := [f"{name}: {new[name]}, was {old[name]}" for name in new if new[name] > old.get(name, new[name])]:
        sys.exit("\n".join(["more than before", *more]))
    BASELINE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
