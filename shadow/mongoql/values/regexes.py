"""PCRE patterns in Python's `re`: translated if both have the same meaning, otherwise refused.

The server compiles patterns with PCRE in UTF-8 mode without Unicode properties: `\\d`, `\\w`, `\\s` and `\\b` are
ASCII, letters in caseless patterns are not. Source: MongoDB's `regex_util.cpp` and the pcrepattern manual.
"""

from __future__ import annotations

import functools
import re
import warnings
from typing import Final

from bson import Regex

from shadow.errors import UnsupportedOperation
from shadow.model.order import regex_flags
from shadow.mongoql.values.failures import failure

__all__ = ["compile_regex", "with_options"]

_OPTIONS: Final = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": re.UNICODE}

_PLAIN: Final = {"A": r"\A", "z": r"\Z", "Z": r"(?=\n?\Z)", "a": r"\x07", "e": r"\x1b", "N": r"[^\n]"}
_PLAIN_CLASS: Final = {"a": r"\x07", "e": r"\x1b", "b": r"\x08"}
_SAME: Final = frozenset("fnrt")
_WORD: Final = "(?-i:[a-zA-Z0-9_])"
_SHORTHAND: Final = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": _WORD,
    "W": "(?-i:[^a-zA-Z0-9_])",
    "s": r"[ \t\n\r\f\v]",
    "S": r"[^ \t\n\r\f\v]",
}
_BOUNDARY: Final = {
    "b": f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    "B": f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
}
# Python folds these two letters into i; Unicode's simple folding, which PCRE uses, does not.
_TURKISH: Final = "(?-i:[\u0130\u0131])"
_CASELESS_I: Final = {"i": "(?-i:[iI])", "I": "(?-i:[iI])", "\u0130": "(?-i:\u0130)", "\u0131": "(?-i:\u0131)"}
_BACKREFERENCE: Final = frozenset("123456789")


def with_options(pattern: Regex[str], options: str) -> Regex[str]:
    """`pattern` with the letters of `$options`. Raises OperationFailure 51108 for a letter that PCRE does not have."""
    flags = 0
    for letter in options:
        if letter not in _OPTIONS:
            raise failure(51108, f"invalid flag in regex options: {letter}")
        flags |= _OPTIONS[letter]
    return Regex(pattern.pattern, flags)


def compile_regex(regex: Regex[str]) -> re.Pattern[str]:
    """The Python pattern whose `search` gives the server's result.

    Raises UnsupportedOperation for a construct that Python lacks or that has another meaning there.
    """
    return _compile(str(regex.pattern), regex_flags(regex.flags))


@functools.lru_cache(maxsize=1024)
def _compile(pattern: str, options: str) -> re.Pattern[str]:
    if "l" in options:
        raise failure(51108, "invalid flag in regex options: l")
    leading = re.match(r"\(\?([ims]+)\)", pattern)
    if leading:  # options for the whole pattern, set inside it
        pattern, options = pattern[leading.end() :], options + leading.group(1)
    flags = 0
    for letter in options:
        flags |= _OPTIONS[letter]
    translated = _Translator(pattern, options).run()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translated, flags)
    except (re.error, Warning, RecursionError, OverflowError) as error:
        raise _refused("a pattern that Python's re cannot compile") from error


def _refused(what: str) -> UnsupportedOperation:
    return UnsupportedOperation("$regex", f"{what} has no exact equivalent in Python's re")


class _Translator:
    """One pass over the pattern, from left to right."""

    def __init__(self, pattern: str, options: str) -> None:
        self.pattern = pattern
        self.extended = "x" in options
        self.caseless = "i" in options
        self.multiline = "m" in options
        self.at = 0
        self.out: list[str] = []

    def run(self) -> str:
        if self.pattern.startswith("(*"):
            raise _refused("a (*VERB)")
        while self.at < len(self.pattern):
            self._step(self.pattern[self.at])
        return "".join(self.out)

    def _emit(self, text: str, width: int) -> None:
        self.out.append(text)
        self.at += width

    def _step(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == "[":
            self._class()
        elif char == "(":
            self._group()
        elif char == "{":
            self._brace()
        elif char == "#" and self.extended:
            self._comment()
        elif char == "^" and self.multiline:
            # Unlike Python's, PCRE's does not match after a final newline.
            self._unrepeated(1)
            self._emit(r"(?:\A|(?<=\n)(?!\Z))", 1)
        elif self.caseless and char in _CASELESS_I:
            self._emit(_CASELESS_I[char], 1)
        elif self.extended and not char.isascii() and char.isspace():
            raise _refused("white space outside ASCII under the x option")
        else:
            self._emit(char, 1)

    def _unrepeated(self, width: int) -> None:
        if self.pattern[self.at + width : self.at + width + 1] in ("*", "+", "?", "{"):
            raise _refused("a repeated assertion")

    def _comment(self) -> None:
        end = self.pattern.find("\n", self.at)
        if end < 0:
            raise failure(51091, "Regular expression is invalid: missing )")
        self.at = end + 1

    def _escape(self) -> None:
        if self.at + 1 >= len(self.pattern):
            raise failure(51091, "Regular expression is invalid: \\ at end of pattern")
        char = self.pattern[self.at + 1]
        if char in _PLAIN:
            self._emit(_PLAIN[char], 2)
        elif char in _SHORTHAND:
            self._emit(_SHORTHAND[char], 2)
        elif char in _BOUNDARY:
            self._unrepeated(2)
            self._emit(_BOUNDARY[char], 2)
        elif char in _SAME:
            self._emit(f"\\{char}", 2)
        elif char in _BACKREFERENCE and not self.pattern[self.at + 2 : self.at + 3].isdigit():
            self._emit(f"(?:\\{char})", 2)
        elif char == "Q":
            self._quoted()
        elif char == "x":
            self._hexadecimal()
        else:
            self._literal(char)

    def _literal(self, char: str) -> None:
        if char.isalnum() and char.isascii():
            raise _refused(f"the escape \\{char}")
        self._emit(re.escape(char), 2)

    def _quoted(self) -> None:
        end = self.pattern.find("\\E", self.at)
        stop = len(self.pattern) if end < 0 else end
        if self.caseless and set(self.pattern[self.at + 2 : stop]) & _CASELESS_I.keys():
            raise _refused("a caseless quotation with an i")
        self.out.append(re.escape(self.pattern[self.at + 2 : stop]))
        self.at = stop + (2 if end >= 0 else 0)

    def _hexadecimal(self) -> None:
        braced = re.match(r"\\x\{([0-9A-Fa-f]{1,6})\}", self.pattern[self.at :])
        plain = re.match(r"\\x([0-9A-Fa-f]{0,2})", self.pattern[self.at :])
        found = braced or plain
        assert found is not None
        code = int(found.group(1) or "0", 16)
        if (
            (self.caseless and chr(min(code, 0x10FFFF)) in _CASELESS_I)
            or code > 0x10FFFF
            or (found is plain and self.pattern.startswith("\\x{", self.at))
        ):
            raise _refused("this form of \\x")
        self._emit(re.escape(chr(code)), found.end())

    def _group(self) -> None:
        rest = self.pattern[self.at : self.at + 4]
        if rest.startswith("(*"):
            raise _refused("a (*VERB)")
        if not rest.startswith("(?"):
            self._emit("(", 1)
        elif rest.startswith("(?#"):
            end = self.pattern.find(")", self.at)
            self.at = len(self.pattern) if end < 0 else end + 1
        elif rest[2:3] == "<" and rest[3:4] not in "=!":
            self._emit("(?P<", 3)
        elif rest[2:3] in (":", "=", "!", ">", "<") or rest.startswith(("(?P<", "(?P=")):
            self._emit(rest[:3] if rest[2] != "P" else rest, 3 if rest[2] != "P" else 4)
        else:
            self._inline_flags()

    def _inline_flags(self) -> None:
        found = re.match(r"\(\?(s|-s):", self.pattern[self.at :])
        if not found:
            raise _refused("this kind of group or inline option")
        self._emit(found.group(), found.end())

    def _brace(self) -> None:
        quantifier = re.match(r"\{\d+(,\d*)?\}", self.pattern[self.at :])
        if quantifier:
            self._emit(quantifier.group(), quantifier.end())
        else:
            self._emit(r"\{", 1)

    def _class(self) -> None:
        """A bracket expression. Shorthands become separate alternatives, because only a group can be ASCII-only."""
        self.at += 1
        if re.match(r"([:.=])[^\]]*\1\]", self.pattern[self.at :]):
            raise _refused("a POSIX character class")
        negated = self.pattern.startswith("^", self.at)
        self.at += negated
        members: list[str] = []
        shorthands: list[str] = []
        first = True
        while True:
            char = self.pattern[self.at : self.at + 1]
            if not char:
                raise failure(51091, "Regular expression is invalid: missing terminating ] for character class")
            if char == "]" and not first:
                break
            first = False
            self._member(char, members, shorthands)
        self.at += 1
        text = "".join(members)
        if self.caseless and ("\u0130" in text or "\u0131" in text):
            raise _refused("a caseless class with a dotted or dotless i")
        self.out.append(_assembled(negated, text, shorthands, self.caseless))

    def _member(self, char: str, members: list[str], shorthands: list[str]) -> None:
        following = self.pattern[self.at + 1 : self.at + 2]
        if char == "[" and following in (":", ".", "="):
            raise _refused("a POSIX character class")
        if char != "\\":
            members.append(char if char in "-" or char.isalnum() or not char.isascii() else f"\\{char}")
            self.at += 1
        elif following in _SHORTHAND and following:
            if members[-1:] == ["-"] or self.pattern[self.at + 2 : self.at + 3] == "-":
                raise _refused("a range beside a shorthand")
            shorthands.append(_SHORTHAND[following])
            self.at += 2
        else:
            members.append(self._member_escape(following))

    def _member_escape(self, char: str) -> str:
        if char in _PLAIN_CLASS and char:
            text, width = _PLAIN_CLASS[char], 2
        elif char in _SAME and char:
            text, width = f"\\{char}", 2
        elif char == "x":
            mark = len(self.out)
            self._hexadecimal()
            return self.out.pop(mark)
        elif not char or (char.isalnum() and char.isascii()):
            raise _refused(f"the escape \\{char} in a character class")
        else:
            text, width = f"\\{char}", 2
        self.at += width
        return text


def _assembled(negated: bool, members: str, shorthands: list[str], caseless: bool) -> str:
    """The class as alternatives: a shorthand keeps its own case rules, which a bracket expression could not."""
    if negated:
        other = f"[^{members}]" if members else r"[\s\S]"
        if caseless:
            other = f"(?:{other}|{_TURKISH})"
        return f"(?:(?!{'|'.join(shorthands)}){other})" if shorthands else other
    own = [f"(?!{_TURKISH})[{members}]" if caseless else f"[{members}]"] if members else []
    choices = [*shorthands, *own]
    return choices[0] if len(choices) == 1 and not caseless else f"(?:{'|'.join(choices)})"
