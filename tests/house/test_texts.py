"""What texts say: commands and options that exist, and words that are not retired."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support import command_line, texts
from tests.support.texts import BASELINE, RETIRED, Text

OLD: Final = ("docs/changelog.md", "docs/command-line.md", "shadow/cli/old_spellings.py")
"""The places that may name old spellings of commands."""

OTHERS: Final = {
    "--options-seed", "--deployment", "--driver", "--all-drawn", "--dist",  # of pytest here
    "--auth",  # of mongod
    "--list", "--quick", "--json", "--only", "--rounds", "--calls", "--uvloop",  # of tests.bench
    "--workers",  # of uvicorn
}  # fmt: skip
"""Options of other programs that the documents name."""

LEAVES: Final = [each for each in command_line.leaves(command_line.commands()) if not each.subcommands]
ALL: Final = list(command_line.leaves(command_line.commands()))


# --- commands and options ---------------------------------------------------------------------------------------


def test_every_command_line_that_a_text_names_exists() -> None:
    named = [each for each in texts.named() if not each.where.startswith(OLD)]
    assert len(named) > 150
    assert [fault for each in named for fault in _faults_of(each)] == []


def _faults_of(each: texts.Named) -> Iterator[str]:
    try:
        found, _ = command_line.find(each.plain)
    except KeyError as error:
        yield f"{each.where}: no command {error}"
        return
    if found.hidden:
        yield f"{each.where}: shadow {' '.join(each.plain)} is an old spelling"
    for option in each.options:
        if option not in found.options and option not in inside(found):
            yield f"{each.where}: {' '.join(each.words)}: {option}"


def inside(command: command_line.Command) -> set[str]:
    """The options of a group's commands: a text may name the group with one of them."""
    return {name for each in command.subcommands.values() for name in each.options}


def test_every_option_that_a_document_names_exists() -> None:
    known = {name for each in ALL for name in each.options} | OTHERS
    for text in texts.documents():
        for code in texts.code_of(text.text):
            unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)) - known
            assert not unknown or (text.name in OLD and unknown == {"--journal"}), f"{text.name}: {code}"


def test_every_option_that_a_help_text_or_a_message_of_a_command_names_exists() -> None:
    known = {name for each in ALL for name in each.options} | {"--join"}
    for text in texts.strings():
        if text.name.startswith("shadow/cli/") and not text.name.startswith(OLD):
            unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.text)) - known
            assert not unknown, text


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("`shadow verify users --quick`", True),
        ("`shadow verfy users`", False),
        ("`shadow repair nothing`", False),
        ("`shadow repair plan users f.jsonl`", True),
        ("```sh\nshadow flip users --to dynamo  # comment --with options\n```", True),
        ("```sh\nshadow flip users --towards dynamo\n```", False),
        ("`.venv/bin/shadow demo --nothing`", False),
    ],
)
def test_a_command_line_that_does_not_exist_is_found(line: str, right: bool) -> None:
    assert all(fits(each) for code in texts.code_of(line) for each in texts._commands("here", code, code=True)) == right


def fits(each: texts.Named) -> bool:
    try:
        found, _ = command_line.find(each.plain)
    except KeyError:
        return False
    return set(each.options) <= found.options


# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ALL, ids=lambda each: " ".join(each.words) or "shadow")
def test_the_first_line_of_help_is_one_short_sentence(command: command_line.Command) -> None:
    first, *rest = command.help.split("\n\n")
    assert "\n" not in first
    assert len(first) < 80
    assert re.fullmatch(r"[A-Z][^.]*\.", first), first
    assert all(each.strip() for each in rest)


@pytest.mark.parametrize("command", LEAVES, ids=lambda each: " ".join(each.words))
def test_every_argument_and_option_is_explained(command: command_line.Command) -> None:
    for each in command.parameters:
        assert each.hidden or each.help, f"{' '.join(command.words)}: {each.opts}"


# --- retired phrases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", texts.documents(), ids=lambda each: each.name)
def test_no_document_uses_a_retired_phrase(text: Text) -> None:
    assert {name: RETIRED[name][1] for name in texts.uses(text.text)} == {}


@pytest.mark.parametrize("command", ALL, ids=lambda each: " ".join(each.words) or "shadow")
def test_no_help_uses_a_retired_phrase(command: command_line.Command) -> None:
    for said in (command.help, *(each.help or "" for each in command.parameters if not each.hidden)):
        assert {name: RETIRED[name][1] for name in texts.uses(said)} == {}, said


def test_the_package_uses_retired_phrases_no_more_often_than_before() -> None:
    """The list of exceptions may only shrink: `python -m tests.support.texts` writes it again."""
    allowed = json.loads(BASELINE.read_text("utf-8"))
    assert allowed.keys() == RETIRED.keys()
    more = {name: (count, allowed[name]) for name, count in texts.counts().items() if count > allowed[name]}
    assert more == {}, {name: (RETIRED[name][1], places(name)[-5:]) for name in more}


def places(name: str) -> list[str]:
    return [text.name for text in texts.strings() if name in texts.uses(text.text)]


def examples() -> Iterator[tuple[str, str]]:
    yield "anew", "Begin it anew."
    yield "told apart", "They cannot be told apart."
    yield "handed on", "The call is handed on as it is."
    yield "shut", "The gate stays shut."
    yield "left out", "What is left out is not changed."
    yield "in the shadow", "It asks the secondary again in the shadow."
    yield "level", "It brings the secondary level with the primary."
    yield "heal", "The journal heals the key."
    yield "held writes", "Every process holds its writes."
    yield "looked at", "The collection is looked at before."
    yield "stands", "Its version stands in the document."
    yield "goes past", "Nothing goes past the second store."
    yield "becomes of", "It says what becomes of each write."
    yield "is said", "The caller is told at once."
    yield "written alone", "From then on one store is written alone."


@pytest.mark.parametrize(("name", "text"), list(examples()))
def test_a_retired_phrase_is_found_in_prose_and_not_in_code(name: str, text: str) -> None:
    assert list(texts.uses(text)) == [name]
    assert list(texts.uses(f"`{text}`")) == []
    assert list(texts.uses(f"```\n{text}\n```")) == []


def test_shutdown_is_a_word_of_its_own() -> None:
    assert list(texts.uses("At shutdown the queue is emptied.")) == []
