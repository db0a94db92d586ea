"""The expression operators over texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bson import Binary, Regex

from shadow.errors import UnsupportedOperation
from shadow.model.order import binary_data
from shadow.mongoql.expressions import containers
from shadow.mongoql.expressions.containers import nullish
from shadow.mongoql.expressions.conversions import coerced_text
from shadow.mongoql.expressions.named import ABSENT, Compile, Evaluate, Names, named
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.regexes import compile_regex, with_options

__all__ = [
    "LOWER",
    "TEXT_OPERATORS",
    "UPPER",
    "binary_size",
    "compared",
    "concat",
    "index_of",
    "length",
    "lower",
    "split",
    "substring",
    "substring_of_bytes",
    "upper",
]

UPPER: Final = {i: i - 32 for i in range(ord("a"), ord("z") + 1)}
LOWER: Final = {i: i + 32 for i in range(ord("A"), ord("Z") + 1)}
"""Only ASCII has cases here, as on the server."""


def upper(value: Any) -> str:
    return coerced_text("$toUpper", value).translate(UPPER)


def lower(value: Any) -> str:
    return coerced_text("$toLower", value).translate(LOWER)


def compared(a: Any, b: Any) -> int:
    """`$strcasecmp`."""
    one, other = (coerced_text("$strcasecmp", each).translate(UPPER).encode() for each in (a, b))
    return (one > other) - (one < other)


def concat(*values: Any) -> Any:
    for value in values:
        if nullish(value):
            return None
        if type(value) is not str:
            raise failure(16702, f"$concat only supports strings, not {described(value)}")
    return "".join(values)


def length(name: str, code: int, measure: Callable[[str], int]) -> Callable[[Any], int]:
    def call(value: Any) -> int:
        if type(value) is not str:
            raise failure(code, f"{name} requires a string argument, found: {containers.name_of(value)}")
        return measure(value)

    return call


def binary_size(value: Any) -> Any:
    """How many bytes a text or a binary has."""
    if nullish(value):
        return None
    if type(value) is str:
        return len(value.encode())
    if type(value) in (bytes, Binary):
        return len(binary_data(value))
    raise failure(51276, f"$binarySize requires a string or BinData argument, found: {described(value)}")


# -- parts --------------------------------------------------------------------------------------------------------


def substring(value: Any, start: Any, count: Any) -> str:
    text = coerced_text("$substrCP", value)
    begin, size = containers.whole_index(start, 34450, 34451), containers.whole_index(count, 34452, 34453)
    if begin < 0 or size < 0:
        raise failure(34454 if size < 0 else 34455, "$substrCP takes no negative numbers")
    return text[begin : begin + size]


def substring_of_bytes(value: Any, start: Any, count: Any) -> str:
    octets = coerced_text("$substrBytes", value).encode()
    begin, size = _long(start, 16034), _long(count, 16035)
    if begin < 0:
        raise failure(50752, "$substrBytes: starting index must be non-negative")
    end = len(octets) if size < 0 else min(begin + size, len(octets))
    if begin < len(octets) and _continues(octets[begin]):
        raise failure(28656, "$substrBytes: Invalid range, starting index is a UTF-8 continuation byte.")
    if begin < end < len(octets) and _continues(octets[end]):
        raise failure(28657, "$substrBytes: Invalid range, ending index is in the middle of a UTF-8 character.")
    return octets[begin:end].decode() if begin < end else ""


def _continues(octet: int) -> bool:
    return octet & 0xC0 == 0x80


def _long(value: Any, code: int) -> int:
    if not is_number(value):
        raise failure(code, f"$substrBytes: index must be a numeric type (is BSON type {containers.name_of(value)})")
    whole = truncated(value)
    if whole is None:
        raise failure(31109, "Can't coerce out of range value to long")
    return whole


def split(value: Any, separator: Any) -> Any:
    if nullish(value) or nullish(separator):
        return None
    if type(value) is not str or type(separator) is not str:
        raise failure(40085 if type(value) is not str else 40086, "$split takes strings")
    if not separator:
        raise failure(40087, "$split requires a non-empty separator")
    return value.split(separator)


def index_of(name: str, codes: tuple[int, int], *, octets: bool) -> Callable[..., Any]:
    """`$indexOfBytes` and `$indexOfCP`."""

    def call(value: Any, part: Any, start: Any = 0, end: Any = ABSENT) -> Any:
        if nullish(value):
            return None
        for each, code in ((value, codes[0]), (part, codes[1])):
            if type(each) is not str:
                raise failure(code, f"{name} requires strings, found: {containers.name_of(each)}")
        text, wanted = (value.encode(), part.encode()) if octets else (value, part)
        begin = _bound(name, start)
        stop = len(text) if end is ABSENT else _bound(name, end)
        stop = min(stop, len(text))
        if octets:
            return text.find(wanted, begin, stop) if begin <= stop else -1
        # Of characters, the server bounds where the part begins, not where it ends.
        found = text.find(wanted, begin) if begin < stop or not (text or begin) else -1
        if not text and not found:
            return 0
        return found if found < stop else -1

    return call


def _bound(name: str, value: Any) -> int:
    index = containers.whole_index(value, 40096, 40096)
    if index < 0:
        raise failure(40097, f"{name} requires a nonnegative bound")
    return index


# -- trimming and replacing ---------------------------------------------------------------------------------------

_SPACES: Final = "\0 \t\n\v\f\r\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))


def _trimmed(name: str, strip: Callable[[str, str], str]) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    def call(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
        value, chars = given["input"], given["chars"]
        if nullish(value):
            return None
        if type(value) is not str:
            raise failure(50699, f"{name} requires its input to be a string, got {described(value)}")
        if nullish(chars):
            return None
        if type(chars) is not str:
            raise failure(50700, f"{name} requires 'chars' to be a string, got {described(chars)}")
        return strip(value, chars) if chars else value

    return call


def _replaced(name: str, count: int) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    def call(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
        for each, code in (("input", 51746), ("find", 51745), ("replacement", 51744)):
            if type(given[each]) is not str and not nullish(given[each]):
                raise failure(code, f"{name} requires that '{each}' be a string, found: {described(given[each])}")
        if any(nullish(given[each]) for each in ("input", "find", "replacement")):
            return None
        if not given["find"] and count < 0 and not given["input"].isascii():
            raise UnsupportedOperation(f"{name} of an empty text", "the server cuts characters into bytes")
        return given["input"].replace(given["find"], given["replacement"], count)

    return call


# -- patterns -----------------------------------------------------------------------------------------------------


def _searched(
    name: str, answer: Callable[[re.Pattern[str], str], Any], nothing: Any
) -> Callable[[Any, Any, Mapping[str, Any]], Any]:
    def call(document: Any, variables: Any, given: Mapping[str, Any]) -> Any:
        value, regex, options = given["input"], given["regex"], given["options"]
        if not nullish(value) and type(value) is not str:
            raise failure(51104, f"{name} needs 'input' to be of type string")
        pattern = _pattern(name, regex, options)
        if nullish(value) or pattern is None:
            return list(nothing) if type(nothing) is list else nothing
        return answer(compile_regex(pattern), value)

    return call


def _pattern(name: str, regex: Any, options: Any) -> Regex[str] | None:
    if options is not ABSENT and not nullish(options) and type(options) is not str:
        raise failure(51106, f"{name} needs 'options' to be of type string")
    if nullish(regex):
        return None
    if type(regex) not in (str, Regex):
        raise failure(51105, f"{name} needs 'regex' to be of type string or regex")
    pattern: Regex[str] = regex if type(regex) is Regex else Regex(regex)
    if "\0" in pattern.pattern:
        raise failure(51109, f"{name}: regular expression cannot contain an embedded null byte")
    if type(options) is str:
        if pattern.flags:
            raise failure(51107, f"{name}: found regex option(s) specified in both 'regex' and 'option' fields")
        return with_options(pattern, options)
    return pattern


def _shown(found: re.Match[str]) -> dict[str, Any]:
    return {"match": found[0], "idx": found.start(), "captures": list(found.groups())}


def _first(pattern: re.Pattern[str], text: str) -> Any:
    found = pattern.search(text)
    return None if found is None else _shown(found)


def _all(pattern: re.Pattern[str], text: str) -> list[Any]:
    return [_shown(found) for found in _matches(pattern, text)]


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """All matches from left to right. Behind an empty one, the search continues with the next character."""
    at = 0
    while (found := pattern.search(text, at)) is not None:
        yield found
        at = found.end() + (not found[0])
        if at >= len(text):
            return


def _of(name: str, names: Names, call: Callable[..., Any]) -> Callable[[Any, Compile], Evaluate]:
    return lambda operand, compile: named(name, names, operand, compile, call)


def _trimming(name: str, strip: Callable[[str, str], str]) -> Callable[[Any, Compile], Evaluate]:
    return _of(name, Names({"input": 50695}, ("chars",), 50696, 50694, {"chars": _SPACES}), _trimmed(name, strip))


def _replacing(name: str, count: int) -> Callable[[Any, Compile], Evaluate]:
    needed = {"input": 51749, "find": 51748, "replacement": 51747}
    return _of(name, Names(needed, (), 51751, 51750), _replaced(name, count))


def _searching(
    name: str, answer: Callable[[re.Pattern[str], str], Any], nothing: Any
) -> Callable[[Any, Compile], Evaluate]:
    names = Names({"input": 31022, "regex": 31023}, ("options",), 51103, 31024)
    return _of(name, names, _searched(name, answer, nothing))


TEXT_OPERATORS: Final[dict[str, Callable[[Any, Compile], Evaluate]]] = {
    "$trim": _trimming("$trim", str.strip),
    "$ltrim": _trimming("$ltrim", str.lstrip),
    "$rtrim": _trimming("$rtrim", str.rstrip),
    "$replaceOne": _replacing("$replaceOne", 1),
    "$replaceAll": _replacing("$replaceAll", -1),
    "$regexMatch": _searching("$regexMatch", lambda pattern, text: pattern.search(text) is not None, False),
    "$regexFind": _searching("$regexFind", _first, None),
    "$regexFindAll": _searching("$regexFindAll", _all, []),
}
