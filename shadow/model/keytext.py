"""Parses and formats keys on a command line: plain text, `ObjectId("...")`, or extended JSON."""

from __future__ import annotations

import json
import re
from typing import Final

from bson import ObjectId, json_util
from bson.errors import BSONError
from bson.json_util import JSONMode, JSONOptions

from shadow.model.values import CANONICAL
from shadow.model.version import Key

__all__ = ["format_key", "parse_key"]

_OBJECT_ID: Final = re.compile(r"""ObjectId\((["']?)([0-9a-fA-F]{24})\1\)""")
_JSON: Final = ("{", '"', "=")
"""The first characters of extended JSON."""

_OPTIONS: Final[JSONOptions] = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    document_class=dict,
    tz_aware=False,
    uuid_representation=CANONICAL.uuid_representation,
    datetime_conversion=CANONICAL.datetime_conversion,
)


def parse_key(text: str) -> Key:
    """The key that `text` denotes.

    `ObjectId("65a...")`, with or without quotes; extended JSON if it begins with a brace or a quotation mark
    (`{"$oid": "65a..."}`, `{"$numberInt": "7"}`, `{"a": 1}`, `"text"`) or follows an equals sign (`=true`, `=null`);
    otherwise the text itself. A bare number is text, because MongoDB distinguishes 7 from "7". Raises ValueError for a
    malformed `ObjectId` or malformed extended JSON.
    """
    found = _OBJECT_ID.fullmatch(text.strip())
    if found:
        return ObjectId(found[2])
    if text.startswith("ObjectId("):
        raise ValueError("ObjectId(...) takes 24 hexadecimal digits")
    if not text.startswith(_JSON):
        return text
    try:
        return json_util.loads(text.removeprefix("="), json_options=_OPTIONS)
    except (ValueError, TypeError, BSONError) as error:
        raise ValueError(f"not extended JSON ({type(error).__name__})") from error


def format_key(key: Key) -> str:
    """Text that `parse_key` turns into an equal key of the same type."""
    if isinstance(key, ObjectId):
        return f'ObjectId("{key}")'
    if isinstance(key, str):
        plain = not key.startswith((*_JSON, "ObjectId(")) and key.isprintable() and key.strip() == key and key
        return key if plain else json.dumps(key)
    text: str = json_util.dumps(key, json_options=_OPTIONS)
    return text if text.startswith("{") else f"={text}"
