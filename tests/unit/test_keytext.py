"""Keys are written so that they can be typed again, and every key can be written."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, ObjectId, Timestamp

from shadow.model.keytext import format_key, parse_key
from tests.support.cases import each_of

KEYS: list[Any] = [
    ObjectId("65a0b1c2d3e4f5a6b7c8d9e0"),
    "65a0b1c2d3e4f5a6b7c8d9e0",
    "plain",
    "two words",
    "42",
    "",
    " padded ",
    "=1",
    '{"a": 1}',
    '"quoted"',
    "ObjectId(no)",
    "line\nbreak",
    "\u00e9",
    42,
    Int64(42),
    4.0,
    True,
    None,
    dt.datetime(2020, 1, 2, 3, 4, 5, 6000),
    Binary(b"0123456789abcdef", 4),
    Decimal128("1.0"),
    Timestamp(1, 2),
    MaxKey(),
    {"a": 1, "b": {"c": "d"}},
]


@each_of("key", KEYS, ids=repr)
def test_a_written_key_is_read_as_the_same_key_of_the_same_type(key: Any) -> None:
    found = parse_key(format_key(key))
    assert found == key
    assert type(found) is type(key)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ObjectId('65a0b1c2d3e4f5a6b7c8d9e0')", ObjectId("65a0b1c2d3e4f5a6b7c8d9e0")),
        ("ObjectId(65a0b1c2d3e4f5a6b7c8d9e0)", ObjectId("65a0b1c2d3e4f5a6b7c8d9e0")),
        ('{"$oid": "65a0b1c2d3e4f5a6b7c8d9e0"}', ObjectId("65a0b1c2d3e4f5a6b7c8d9e0")),
        ("=7", 7),
        ("7", "7"),
    ],
)
def test_people_may_write_keys_as_the_shell_and_extended_json_do(text: str, key: Any) -> None:
    assert parse_key(text) == key


@each_of("text", ["ObjectId(12)", 'ObjectId("zz")', '{"$oid": "1"}', "{", '"open', "="])
def test_what_begins_as_a_key_of_a_kind_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_key(text)
