"""Images of many documents that are decoded only when they are asked for.

A call for thousands of documents would else keep a dozen containers alive for each, until the secondary has followed,
and Python's cyclic garbage collector, which goes through all of them again and again, would take more time than all
else of the call.
"""

from __future__ import annotations

import bson

from shadow.model.values import CANONICAL
from shadow.model.version import Document, Image, Version
from shadow.mongoql import Filter, Updater

__all__ = ["LateAfter", "LateImage"]


class LateImage(Image):
    """The image of a document as it is stored, `raw`, that Python's values represent completely."""

    __slots__ = ("_raw", "_reserved")
    _raw: bytes
    _reserved: str

    def __init__(self, state: Version, raw: bytes, reserved: str) -> None:
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "_raw", raw)
        object.__setattr__(self, "_reserved", reserved)

    @property
    def document(self) -> Document:
        """Decoded each time."""
        document: Document = bson.decode(self._raw, codec_options=CANONICAL)
        document.pop(self._reserved, None)
        return document

    @property
    def present(self) -> bool:
        return True


class LateAfter(Image):
    """The image after an update that is known to apply to the document before it. `matched`: see `Updater.apply`."""

    __slots__ = ("_made", "_matched", "_pre", "_updater")
    _made: Document | None
    _matched: Filter | None
    _pre: Image
    _updater: Updater

    def __init__(self, state: Version, pre: Image, updater: Updater, matched: Filter | None) -> None:
        object.__setattr__(self, "state", state)
        object.__setattr__(self, "_pre", pre)
        object.__setattr__(self, "_updater", updater)
        object.__setattr__(self, "_matched", matched)
        object.__setattr__(self, "_made", None)

    @property
    def document(self) -> Document:
        """Computed once."""
        if self._made is not None:
            return self._made
        before = self._pre.document
        assert before is not None
        made = self._updater.apply(before, self._matched)
        object.__setattr__(self, "_made", made)
        return made

    @property
    def present(self) -> bool:
        return True
