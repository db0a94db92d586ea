"""Describes differences: where and how two unequal documents differ, never what they contain.

DeepDiff finds changes inside lists and between fields, on canonical forms only (`equality.canonical`): on raw BSON
values it treats different ObjectIds, Decimal128s and Timestamps as equal. It is given no more than it can process in a
few milliseconds; larger values are compared position by position.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

from deepdiff import DeepDiff

from shadow.compare.equality import canonical, same
from shadow.model.order import key_digest
from shadow.model.stored import Damaged, RawDocument, is_copyable, oddities
from shadow.model.verdict import DOCUMENT_PATH, VERSION_PATH, Difference, Kind
from shadow.model.version import Document, Image, Key, State

__all__ = ["Hasher", "explain", "explain_images", "explain_lack", "explain_versions", "safe_name"]

MAX_NODES: Final = 400
"""Values (both sides together) that DeepDiff may be given; each takes it about 25 microseconds."""

MAX_LIST: Final = 100
"""List elements that DeepDiff may be given: it aligns lists in quadratic time."""

WALKED: Final = 200_000
"""Values that are visited before a document is reported as different as a whole."""

LONGEST: Final = 2.0
"""Seconds after which a walk ends with what it has found; nested lists are compared once for each level."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z_$0-9-]{0,47}")
_CODED: Final = re.compile(r"[0-9a-fA-F-]{16,}|\d{5,}|(?=\w*\d)\w{24,}")
MAX_NAMES: Final = 64
"""Fields of one object beyond which their names count as data: a map by user, by day, by product."""


class Hasher:
    """Keyed hashes (blake2b, 16 hex digits): equal for equal values under one secret, useless without it.

    An empty secret is replaced by a random one, so that hashes can be compared within this process only.
    """

    def __init__(self, secret: bytes = b"") -> None:
        self.adopt(secret or os.urandom(32))

    def adopt(self, secret: bytes) -> None:
        """Replaces the secret. Only allowed before anything was hashed with it."""
        self._key = hashlib.blake2b(secret, digest_size=32, person=b"shadow").digest()

    def __repr__(self) -> str:
        return "Hasher(***)"

    def hash_value(self, value: Any) -> str:
        """The hash of any BSON value, type and field order included."""
        return self.hash_canonical(canonical(value))

    def hash_canonical(self, form: Any) -> str:
        """The hash of a value in canonical form."""
        return self._hash(repr(form).encode("utf-8", "surrogatepass"))

    def hash_key(self, key: Key) -> str:
        """The hash of an `_id`: the same for keys that MongoDB treats as equal, whatever their type."""
        return self._hash(key_digest(key).encode())

    def _hash(self, data: bytes) -> str:
        return hashlib.blake2b(data, digest_size=8, key=self._key).hexdigest()


def safe_name(name: str) -> bool:
    """Whether a field name is not data: an identifier of ordinary length that is no id, number or token."""
    return bool(_PLAIN_NAME.fullmatch(name)) and not _CODED.search(name)


def explain(
    a: Document, b: Document, *, hasher: Hasher, limit: int = 50, max_nodes: int = MAX_NODES
) -> tuple[Difference, ...]:
    """Where `a` (the primary's) and `b` (the secondary's) differ: at most `limit` places, in the documents' order of
    fields.

    Empty exactly if they are equal (`equality.same`). Paths are dotted; a name that is data (`safe_name` is False, or
    it is one of very many) is `*`. Kinds: TYPE, VALUE, MISSING and EXTRA (in the secondary), ORDER (of an object's
    fields, or of a list whose elements are otherwise equal). Up to `max_nodes` differing values, DeepDiff pairs the
    elements of lists; beyond that they are paired by position, and a difference that is not found within `WALKED`
    values and `LONGEST` seconds is reported at the path `*`.
    """
    if same(a, b):
        return ()
    if isinstance(a, Damaged) or isinstance(b, Damaged):
        return tuple(islice(_unreadable(a, b), limit))
    walk = _Walk(hasher, max_nodes)
    found = tuple(islice(walk.objects(_id_first(canonical(a)), _id_first(canonical(b)), ()), limit))
    if found or not walk.exhausted:
        return found or tuple(islice(_of_bytes(a, b), limit))
    return (Difference(Kind.VALUE, "*", "object", "object"),)


def explain_lack(document: Document | None, *, hasher: Hasher, kind: Kind) -> Difference:
    """A document that only one side has: the primary (`kind` MISSING) or the secondary (EXTRA)."""
    shown = "" if document is None else hasher.hash_value(document)
    if kind is Kind.EXTRA:
        return Difference(kind, DOCUMENT_PATH, "missing", "object", "", shown)
    return Difference(kind, DOCUMENT_PATH, "object", "missing", shown, "")


def explain_images(primary: Image, secondary: Image, *, hasher: Hasher) -> tuple[Difference, ...]:
    """Where two images differ, versions included. Empty exactly if they are equal and both can be read."""
    found: tuple[Difference, ...] = ()
    if primary.document is not None and secondary.document is not None:
        found = explain(primary.document, secondary.document, hasher=hasher)
        found = found or explain_versions(primary.state, secondary.state, hasher=hasher)
    elif primary.document is not None:
        found = (explain_lack(primary.document, hasher=hasher, kind=Kind.MISSING),)
    elif secondary.document is not None:
        found = (explain_lack(secondary.document, hasher=hasher, kind=Kind.EXTRA),)
    if found or (is_copyable(primary) and is_copyable(secondary)):
        return found
    # The same bytes on both sides, but unreadable.
    unread = _unreadable(primary.document or {}, secondary.document or {})
    return tuple(unread) or (Difference(Kind.UNREADABLE, "*", "unreadable", "unreadable"),)


def explain_versions(primary: State, secondary: State, *, hasher: Hasher) -> tuple[Difference, ...]:
    """The difference of two versions, as hashes; none if they are equal."""
    if primary == secondary:
        return ()
    types = [type(state).__name__.lower() for state in (primary, secondary)]
    hashes = [hasher.hash_canonical(f"version:{state!r}") for state in (primary, secondary)]
    return (Difference(Kind.VERSION_LOST, VERSION_PATH, *types, *hashes),)


def _unreadable(a: Document, b: Document) -> Iterator[Difference]:
    """The fields that make a document unreadable."""
    names = dict.fromkeys(name for each in (a, b) if isinstance(each, Damaged) for name in each.faults)
    for name in names:
        left, right = ("unreadable" if _fails(each, name) else _type_at(each, name) for each in (a, b))
        yield Difference(Kind.UNREADABLE, name if safe_name(name) else "*", left, right)


def _fails(document: Document, name: str) -> bool:
    return isinstance(document, Damaged) and name in document.faults


def _type_at(document: Document, name: str) -> str:
    return _type(canonical(document[name])) if name in document else "missing"


def _of_bytes(a: Document, b: Document) -> Iterator[Difference]:
    """Where two documents differ whose values are equal to the driver."""
    left, right = (
        {each.path: each.kind for each in oddities(one.raw)} if isinstance(one, RawDocument) else {} for one in (a, b)
    )
    paths = [path for path in {**left, **right} if left.get(path) != right.get(path)]
    for path in paths or [""]:
        shown = ".".join(part if part.isdigit() or safe_name(part) else "*" for part in path.split("."))
        yield Difference(Kind.TYPE, shown, left.get(path, "object"), right.get(path, "object"))


def _id_first(form: dict[str, Any]) -> dict[str, Any]:
    return {"_id": form["_id"], **form} if "_id" in form else form


_Path = tuple[str, ...]
_NOTHING: Final = object()


def _type(form: Any) -> str:
    if form is _NOTHING:
        return "missing"
    if isinstance(form, str):
        return form.partition(":")[0]
    return "object" if isinstance(form, dict) else "array"


def _same(a: Any, b: Any) -> bool:
    """Equality of canonical forms, field order included."""
    if type(a) is not type(b):
        return False
    if type(a) is dict:
        return list(a) == list(b) and all(map(_same, a.values(), b.values()))
    if type(a) is list:
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _size(form: Any, most: int) -> int:
    """The number of values in `form`, counted up to `most`; more than `most` if a list is too long to align or an
    object has so many names that they must be hidden."""
    count, rest = 0, [form]
    while rest and count <= most:
        inner = rest.pop()
        count += 1
        if isinstance(inner, dict | list):
            if len(inner) > (MAX_LIST if isinstance(inner, list) else MAX_NAMES):
                return most + 1
            rest.extend(inner.values() if isinstance(inner, dict) else inner)
    return count


class _Walk:
    """One explanation. Objects are compared field by field, so that only differing parts are examined closely."""

    def __init__(self, hasher: Hasher, max_nodes: int) -> None:
        self._hasher = hasher
        self._nodes = max_nodes
        self._left = WALKED
        self._end = time.monotonic() + LONGEST

    @property
    def exhausted(self) -> bool:
        return self._left <= 0 or time.monotonic() > self._end

    def objects(self, a: dict[str, Any], b: dict[str, Any], path: _Path) -> Iterator[Difference]:
        hide = len(a) > MAX_NAMES or len(b) > MAX_NAMES
        for name in chain(a, (name for name in b if name not in a)):
            inner = (*path, name if safe_name(name) and not hide else "*")
            yield from self.values(a.get(name, _NOTHING), b.get(name, _NOTHING), inner)
        if [name for name in a if name in b] != [name for name in b if name in a]:
            yield self._said(Kind.ORDER, path, a, b)

    def values(self, a: Any, b: Any, path: _Path) -> Iterator[Difference]:
        self._left -= 1
        if self.exhausted or (type(a) is str and a == b):
            return
        if isinstance(a, dict) and isinstance(b, dict):
            yield from self.objects(a, b, path)
        elif isinstance(a, list) and isinstance(b, list):
            if not _same(a, b):
                yield from self._lists(a, b, path)
        else:
            yield self._said(_kind(a, b), path, a, b)

    def _lists(self, a: list[Any], b: list[Any], path: _Path) -> Iterator[Difference]:
        if len(a) == len(b) and sorted(map(repr, a)) == sorted(map(repr, b)):
            yield self._said(Kind.ORDER, path, a, b)
            return
        size = _size(a, self._nodes) + _size(b, self._nodes)
        if size > self._nodes:
            yield from self._by_position(a, b, path)
            return
        self._nodes -= size
        found = list(self._by_deepdiff(a, b, path))
        yield from found or self._by_position(a, b, path)

    def _by_position(self, a: list[Any], b: list[Any], path: _Path) -> Iterator[Difference]:
        for place in range(max(len(a), len(b))):
            if self.exhausted:
                return
            left = a[place] if place < len(a) else _NOTHING
            right = b[place] if place < len(b) else _NOTHING
            yield from self.values(left, right, (*path, str(place)))

    def _by_deepdiff(self, a: list[Any], b: list[Any], path: _Path) -> Iterator[Difference]:
        tree = DeepDiff(a, b, ignore_private_variables=False, view="tree")
        for category, kind in _CATEGORIES.items():
            for level in tree.get(category, ()):
                left = _NOTHING if kind is Kind.EXTRA else level.t1
                right = _NOTHING if kind is Kind.MISSING else level.t2
                inner = tuple(self._step(part) for part in level.path(output_format="list"))
                yield self._said(kind or _kind(left, right), (*path, *inner), left, right)

    @staticmethod
    def _step(part: Any) -> str:
        return str(part) if isinstance(part, int) or safe_name(part) else "*"

    def _said(self, kind: Kind, path: _Path, a: Any, b: Any) -> Difference:
        def digest(form: Any) -> str:
            return "" if form is _NOTHING else self._hasher.hash_canonical(form)

        return Difference(kind, ".".join(path), _type(a), _type(b), digest(a), digest(b))


_CATEGORIES: Final[dict[str, Kind | None]] = {
    "type_changes": None,
    "values_changed": None,
    "dictionary_item_removed": Kind.MISSING,
    "iterable_item_removed": Kind.MISSING,
    "dictionary_item_added": Kind.EXTRA,
    "iterable_item_added": Kind.EXTRA,
}
"""DeepDiff's categories. None: the two values decide the kind."""


def _kind(a: Any, b: Any) -> Kind:
    if a is _NOTHING:
        return Kind.EXTRA
    if b is _NOTHING:
        return Kind.MISSING
    return Kind.VALUE if _type(a) == _type(b) else Kind.TYPE
