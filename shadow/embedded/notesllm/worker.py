"""The worker of the sample backend: takes uploaded documents and writes a summary and a quiz of each."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import logging
import re
from typing import Any, Final

from pymongo.errors import PyMongoError

from shadow.embedded.notesllm.notes import Database, Notes, now

__all__ = ["quiz", "summarise", "work_once", "worker"]

logger = logging.getLogger(__name__)

_MODEL: Final = "frequent-words-1"
_ABANDONED: Final = dt.timedelta(minutes=1)
_WORD: Final = re.compile(r"\w{4,}")
_SENTENCE: Final = re.compile(r"[^.!?]+[.!?]?")


async def worker(
    database: Database, stop: asyncio.Event, *, poll_seconds: float = 0.2, batch: int = 10, notes: Any = None
) -> None:
    """Works until `stop` is set. Waits `poll_seconds` when there is nothing to do, or when the database is away.

    `notes`: used in place of `Notes(database)`."""
    notes = notes or Notes(database)
    while not stop.is_set():
        try:
            done = await work_once(notes, batch)
        except PyMongoError as error:
            logger.warning("the worker continues after %s", type(error).__name__)
            done = 0
        if done == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), poll_seconds)


async def work_once(notes: Notes, batch: int = 10) -> int:
    """Brings up to `batch` waiting documents to `ready`; returns how many."""
    done = 0
    for document in await notes.waiting(batch, now() - _ABANDONED):
        if await notes.claim(document):
            for kind, make in (("summary", summarise), ("quiz", quiz)):
                await notes.save_generated(document["_id"], kind, make(document["text"]))
            await notes.finish(document["_id"])
            done += 1
    return done


def summarise(text: str) -> dict[str, Any]:
    """The two sentences that have most of the text's frequent words, in their order; `score` is their share of it."""
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()] or [text]
    frequent = _frequent(text)
    best = sorted(sentences, key=lambda sentence: -sum(frequent[word] for word in _words(sentence)))[:2]
    body = " ".join(sentence for sentence in sentences if sentence in best)
    return _content(body, len(body) / max(len(text), 1))


def quiz(text: str) -> dict[str, Any]:
    """Questions for the three most frequent words; `score` is their share of all words."""
    top = _frequent(text).most_common(3)
    body = "\n".join(f"What does the text say about {word}?" for word, _ in top)
    return _content(body, sum(count for _, count in top) / max(len(_words(text)), 1))


def _content(body: str, score: float) -> dict[str, Any]:
    return {"body": body, "model": _MODEL, "tokens": len(body.split()), "score": float(score)}


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _frequent(text: str) -> collections.Counter[str]:
    return collections.Counter(_words(text))
