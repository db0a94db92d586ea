"""Many inserts in few requests: PartiQL statements, each of which inserts only if its key is free.

BatchWriteItem has no conditions; a PartiQL INSERT has exactly one, that the key is free. The caller writes each item
that a batch did not insert, for whatever reason, by itself, with the client's retries and the exact error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.limits import MOST_STATEMENTS, STATEMENT_TEXT
from shadow.stores.dynamo.items.codec import Item

__all__ = ["PLAIN_NAME", "execute", "insert_absent", "insertion"]

PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_. ~-]+")
"""Names that need no escapes between quotes: servers differ in how they read escapes."""


async def insert_absent(gateway: Gateway, table: str, items: Sequence[Item]) -> list[bool]:
    """Inserts each item whose key is free. True: inserted. False: not inserted, or unknown. Never raises."""
    done = [False] * len(items)
    statements = {place: made for place, made in _statements(table, items).items() if made is not None}
    places = list(statements)
    chunks = [places[i : i + MOST_STATEMENTS] for i in range(0, len(places), MOST_STATEMENTS)]
    requests = (execute(gateway, table, [statements[place] for place in chunk]) for chunk in chunks)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for chunk, responses in zip(chunks, answers, strict=True):
        if isinstance(responses, asyncio.CancelledError):
            raise responses
        if isinstance(responses, BaseException):
            continue
        for place, response in zip(chunk, responses, strict=False):
            done[place] = "Error" not in response
    return done


def _statements(table: str, items: Sequence[Item]) -> dict[int, dict[str, Any] | None]:
    """By position; a key that occurs twice is in the batch once."""
    first = {item["_id"]["S"]: place for place, item in reversed(list(enumerate(items)))}
    return {place: insertion(table, items[place]) for place in sorted(first.values())}


def insertion(table: str, item: Item) -> dict[str, Any] | None:
    """The statement that inserts an item if its key is free; None if no statement has its names."""
    text = _text(table, tuple(item))
    return {"Statement": text, "Parameters": list(item.values())} if text else None


@lru_cache(maxsize=1024)
def _text(table: str, names: tuple[str, ...]) -> str:
    """The statement for items with these attributes; "" if there is none. The documents of a table have few shapes."""
    if not all(map(PLAIN_NAME.fullmatch, names)):
        return ""
    text = f'INSERT INTO "{table}" VALUE {{' + ", ".join(f"'{name}': ?" for name in names) + "}"
    return text if len(text) <= STATEMENT_TEXT else ""


async def execute(gateway: Gateway, table: str, statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The responses to up to 25 statements, in order, each with its own `Error` if it has failed. Raises what the
    gateway raises."""
    answer = await gateway.call(
        "batch_execute_statement", table, Statements=list(statements), ReturnConsumedCapacity="INDEXES"
    )
    responses: list[dict[str, Any]] = answer.get("Responses", [])
    return responses
