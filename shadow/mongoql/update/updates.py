"""What an update means: operators merged into one tree of paths, applied in the server's order.

The server walks all operators' paths as one tree, fields in lexicographic order (positions by number), so that the
order in which new fields appear does not depend on the operators. Source: `UpdateObjectNode` and its kin.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bson
from pymongo.errors import WriteError

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document
from shadow.model.version import Document, Key
from shadow.mongoql.match.filter_parser import forbid_expressions
from shadow.mongoql.match.filters import Filter, compile_filter
from shadow.mongoql.match.tree import And, Leaf, Node, Nor, Not, Or
from shadow.mongoql.pipeline.pipelines import compile_update_pipeline
from shadow.mongoql.update.dollar_fields import check_dollar_field
from shadow.mongoql.update.modifiers import OPERATORS, Modifier, copied, copied_scalars, is_scalar
from shadow.mongoql.update.update_tree import (
    Branch,
    Elements,
    Fields,
    Reserved,
    Shape,
    Slot,
    merged,
    name_order,
    path_parts,
    plant,
)
from shadow.mongoql.values.failures import described, write_failure
from shadow.mongoql.values.references import as_stored, in_order, with_references
from shadow.mongoql.values.support import Family, require

__all__ = ["Updater", "check_upsert", "compile_update"]

_BACKFILL_LIMIT = 1_500_000
_CULLING = frozenset({"$pop", "$pull", "$pullAll"})
"""Operators that only remove elements of arrays: the server doesn't check the names on their way."""


class Updater:
    """A compiled update. `paths` is operator -> {dotted path: operand}, None for a pipeline. `positional`: what it does
    depends on which element of an array its filter has matched. `sets`: the new values by name, of an update that only
    sets top-level fields to values without parts."""

    __slots__ = ("_apply", "_stages", "paths", "positional", "sets")

    def __init__(
        self,
        apply: Callable[[Document, int | None, bool], Document],
        paths: dict[str, Document] | None,
        *,
        positional: bool = False,
        stages: Callable[[Document], Document] | None = None,
    ) -> None:
        """`stages`: what the stages of a pipeline make of a document, its `_id` included."""
        self._apply = apply
        self._stages = stages
        self.sets = _scalars_set(paths)
        self.paths = paths
        self.positional = positional

    def apply(self, pre: Document, matched: Filter | None = None) -> Document:
        """The document after the update; `pre` stays as it is and shares nothing mutable with it.

        `matched` is the filter that matched `pre`; the positional `$` needs it. Raises WriteError with the server's
        code: 2, 9, 14, 28 (a path that cannot be made), 40 (conflict), 52 and 55 (a top-level name with a dollar), 66
        (`_id` would change).
        """
        if self.sets is not None and type(pre) is dict and (post := copied_scalars(pre)) is not None:
            post.update(self.sets)  # present fields keep their places, and new ones come in the order of their names
            return post
        place = matched.positional(pre) if self.positional and matched is not None else None
        pre = in_order(pre)
        post = self._apply(pre, place, False)
        _check_id(pre, post)
        return as_stored(post)

    def loses_key(self, pre: Document) -> bool:
        """Whether it is a pipeline whose stages leave no `_id`; `apply` puts it back, as the server does."""
        return self._stages is not None and "_id" not in self._stages(copied(pre))

    def upsert(self, filter: Mapping[str, Any] | Filter, key: Key) -> Document:
        """The document that an upsert inserts under `_id` = `key` where nothing matches `filter`. The key must be the
        one that the filter or the update names (`upsert_key`), or a new one if neither does."""
        post = self._upserted(filter)
        if not _identical(post.get("_id", key), key):
            raise _immutable_id()
        return as_stored({"_id": copied(key), **post})

    def upsert_key(self, filter: Mapping[str, Any] | Filter) -> Any:
        """The `_id` that an upsert's filter or its update names; `order.MISSING` if neither does."""
        return with_references(self._upserted(filter)).get("_id", MISSING)

    def _upserted(self, filter: Mapping[str, Any] | Filter) -> Document:
        compiled = filter if isinstance(filter, Filter) else compile_filter(filter)
        check_upsert(compiled)
        base = _seed(compiled)
        post = self._apply(base, None, True)
        if "_id" in base:
            _check_id(base, post)
        return {"_id": post["_id"], **post} if "_id" in post else post


def _scalars_set(paths: Mapping[str, Document] | None) -> Document | None:
    """The new values by name, in the order of the names, of an update that only sets top-level fields to values without
    parts, as most updates of many documents do: it can fail on no document."""
    if paths is None or paths.keys() != {"$set"}:
        return None
    sets = paths["$set"]
    if not all(is_scalar(value) and _is_plain_field(name) for name, value in sets.items()):
        return None
    return {name: sets[name] for name in sorted(sets, key=name_order)}


def _is_plain_field(name: str) -> bool:
    return name != "_id" and "." not in name and not name.startswith("$")


def check_upsert(filter: Filter) -> None:
    """Raises for a filter that no upsert may have, whether a document matches it or not."""
    if filter.evaluates:
        raise write_failure(224, "$expr is not allowed in the query predicate for an upsert")
    if filter.hopeless:
        raise UnsupportedOperation("upsert", "with a filter that can never match")


def compile_update(
    update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    array_filters: Sequence[Mapping[str, Any]] = (),
    now: dt.datetime | None = None,
) -> Updater:
    """Compiles operators or a pipeline (both canonical). `now` is what `$currentDate` sets.

    Raises WriteError with the server's code, UnsupportedOperation for what is refused by name.
    """
    if not isinstance(update, Mapping):
        if array_filters:
            raise write_failure(9, "Cannot specify arrayFilters and a pipeline update")
        stages = compile_update_pipeline(update)
        return Updater(_by_pipeline(stages), None, stages=stages)
    filters = _array_filters(array_filters)
    if not update:
        raise write_failure(9, "an update needs at least one operator")
    tree = None if filters else _known_tree(update)
    modifiers: list[Modifier] = []
    if tree is not None:
        for name, operands in update.items():
            make = OPERATORS[name]
            modifiers += [make(path, operand, now) for path, operand in operands.items()]
    else:
        tree, modifiers = _planted(update, filters, now)

    def apply(pre: Document, place: int | None, insert: bool) -> Document:
        root: Document = copied(pre)
        _Application(root, place, insert, filters, modifiers).fields(tree, root, None)
        return root

    paths = {name: dict(as_document(operands)) for name, operands in update.items()}
    return Updater(apply, paths, positional=any(".$" in each.path for each in modifiers))


def _planted(
    update: Mapping[str, Any], filters: Mapping[str, Filter], now: dt.datetime | None
) -> tuple[Fields, list[Modifier]]:
    """The tree of an update with its modifiers. Raises what is wrong with it, in the order in which it is written."""
    tree, modifiers, used = Fields(), list[Modifier](), set[str]()
    for name, operands in update.items():
        for path, operand in _operands(name, operands):
            path_parts(path)
            modifier = OPERATORS[name](path, operand, now)
            if modifier.source is not None:
                plant(tree, modifier.source, Reserved(), filters, used)
            plant(tree, modifier.path, Slot(len(modifiers)), filters, used)
            modifiers.append(modifier)
    for unused in filters.keys() - used:
        raise write_failure(9, f"The array filter for identifier '{unused}' was not used in the update")
    return tree, modifiers


def _known_tree(update: Mapping[str, Any]) -> Fields | None:
    """The tree that updates of this shape have; None where there is none, or where it depends on the operands."""
    if not all(type(operands) is dict for operands in update.values()):
        return None
    return _tree_of(tuple((name, tuple(operands)) for name, operands in update.items()))


@functools.lru_cache(maxsize=512)
def _tree_of(shape: Shape) -> Fields | None:
    """Applications send few shapes of updates, with ever other values."""
    if any(name not in OPERATORS or name == "$rename" for name, _ in shape):
        return None
    tree = Fields()
    try:
        for number, path in enumerate(path for _, paths in shape for path in paths):
            plant(tree, path, Slot(number), {}, set())
    except WriteError:
        return None
    return tree


def _operands(name: str, operands: Any) -> list[tuple[str, Any]]:
    require(Family.UPDATE, name)
    operands = as_document(operands)
    if not isinstance(operands, Mapping):
        raise write_failure(9, f"Modifiers operate on fields but we found type {described(operands)} for {name}")
    return list(operands.items())


def _by_pipeline(stages: Callable[[Document], Document]) -> Callable[[Document, int | None, bool], Document]:
    def apply(pre: Document, place: int | None, insert: bool) -> Document:
        post = stages(copied(pre))
        return copied(post) if "_id" in post or "_id" not in pre else {"_id": copied(pre["_id"]), **copied(post)}

    return apply


def _check_id(pre: Document, post: Document) -> None:
    """`_id` stays as it is, its type included: 1 may not become 1.0."""
    if "_id" in pre and ("_id" not in post or not _identical(pre["_id"], post["_id"])):
        raise _immutable_id()


def _immutable_id() -> Exception:
    return write_failure(66, "Performing an update on the path '_id' would modify the immutable field '_id'")


def _identical(a: Any, b: Any) -> bool:
    return a is b or bson.encode({"": a}) == bson.encode({"": b})


def _seed(filter: Filter) -> Document:
    """`_id` first, then the filter's equalities in the order of their paths."""
    named = filter.equalities()
    base: Document = {"_id": copied(named.pop("_id"))} if "_id" in named else {}
    for path, value in sorted(named.items()):
        if path.startswith("_id."):
            raise write_failure(111, f"field at '_id' must be exactly specified, field at sub-path '{path}' found")
        *parents, name = path.split(".")
        spot = base
        for parent in parents:
            spot = spot.setdefault(parent, {})
        spot[name] = copied(value)
    return base


# -- array filters ------------------------------------------------------------------------------------------------


def _array_filters(given: Sequence[Mapping[str, Any]]) -> dict[str, Filter]:
    found: dict[str, Filter] = {}
    for filter in given:
        forbid_expressions(filter)
        compiled = compile_filter(filter)
        names = _tops(compiled.tree)
        if len(names) != 1:
            raise write_failure(9, "An array filter needs exactly one top-level field name")
        (name,) = names
        if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name):
            raise write_failure(2, "The top-level field name of an array filter must begin with a lower-case letter")
        if name in found:
            raise write_failure(9, f"Found multiple array filters with the same top-level field name {name}")
        found[name] = compiled
    return found


def _tops(node: Node) -> set[str]:
    match node:
        case Leaf(_, "$all", []):
            return set()
        case Leaf(path):
            return {path.split(".")[0]} if path else set()
        case And(children) | Or(children) | Nor(children):
            return set().union(*[_tops(child) for child in children])
        case Not(child):
            return _tops(child)


# -- applying -----------------------------------------------------------------------------------------------------


class _Application:
    """One application of a tree to one document, which is changed in place."""

    def __init__(
        self,
        root: Document,
        place: int | None,
        insert: bool,
        filters: Mapping[str, Filter],
        modifiers: Sequence[Modifier],
    ) -> None:
        self.root = root
        self.place = place
        self.insert = insert
        self.filters = filters
        self.modifiers = modifiers

    def fields(self, node: Fields, target: Any, viable: Callable[[], None] | None) -> None:
        """Applies `node` below `target`. `viable` is set where `target` is not yet part of the document: it raises
        if it cannot become one."""
        children = node.children
        if "$" in children:
            if self.place is None:
                raise write_failure(2, "The positional operator did not find the match needed from the query.")
            name = str(self.place)
            both = merged(children.get(name), children["$"], name)
            children = {**{k: v for k, v in children.items() if k != "$"}, name: both}
        for name in sorted(children, key=name_order):
            self.child(children[name], target, name, viable)

    def child(self, node: Branch, target: Any, name: str, viable: Callable[[], None] | None) -> None:
        present = _present(target, name)
        check = viable if viable is not None else functools.partial(_check_viable, target, name)
        if isinstance(node, Slot):
            modifier = self.modifiers[node.number]
            self.modify(modifier, target, name, present, check)
            if name[:1] == "$" and modifier.name not in _CULLING:
                self.check_dollar(target, name, present)
        elif isinstance(node, Elements):
            self.elements(node, present, name)
        elif isinstance(node, Fields):
            if present is not MISSING:
                self.fields(node, present, None)
                return
            fresh: Document = {}
            self.fields(node, fresh, check)
            if fresh:
                _create(target, name, fresh)
                if name[:1] == "$":
                    self.check_dollar(target, name, MISSING)

    def check_dollar(self, target: Any, name: str, before: Any) -> None:
        """Raises for a top-level field with a dollar that is not as it was. An upsert may insert one."""
        if target is not self.root or self.insert or name not in target:
            return
        if before is MISSING or not _identical(before, target[name]):
            check_dollar_field(target, name)

    def elements(self, node: Elements, array: Any, name: str) -> None:
        if array is MISSING:
            raise write_failure(2, f"The path '{name}' must exist in the document in order to apply array updates.")
        if type(array) is not list:
            raise write_failure(2, f"Cannot apply array updates to non-array element '{name}'")
        for i, element in enumerate(array):
            chosen: Branch | None = None
            for identifier, child in node.children.items():
                if not identifier or self.filters[identifier].matches({identifier: element}):
                    chosen = merged(chosen, child, f"{name}.{i}")
            if chosen is not None:
                self.child(chosen, array, str(i), None)

    def modify(self, node: Modifier, target: Any, name: str, present: Any, check: Callable[[], None]) -> None:
        if node.on_insert_only and not self.insert:
            return
        if node.source is not None:
            self.rename(node, target, name)
        elif present is not MISSING:
            _put(target, name, node.change(present))
        elif node.create is not None:
            check()
            _create(target, name, node.create())
        elif not node.lenient:
            check()

    def rename(self, node: Modifier, target: Any, name: str) -> None:
        assert node.source is not None
        *parents, last = node.source.split(".")
        spot: Any = self.root
        through_array = False
        for parent in parents:
            through_array |= type(spot) is list
            inner = _present(spot, parent)
            if inner is MISSING and not _viable(spot, parent):
                raise write_failure(28, f"cannot use the part '{parent}' of '{node.source}' to traverse the element")
            if inner is MISSING:
                return
            spot = inner
        value = _present(spot, last)
        if value is MISSING:
            if not _viable(spot, last):
                raise write_failure(28, f"cannot use the part '{last}' of '{node.source}' to traverse the element")
            return
        if through_array or type(spot) is list:
            raise write_failure(2, f"The source field '{node.source}' cannot be an array element")
        self.check_destination(node.path)
        present = _present(target, name)
        if present is MISSING:
            _check_viable(target, name)
        if node.path.split(".")[0] == "_id" and "_id" in self.root:  # even by the value that it has
            raise _immutable_id()
        if present is MISSING:
            _create(target, name, value)
        else:
            _put(target, name, value)
        del spot[last]

    def check_destination(self, path: str) -> None:
        spot: Any = self.root
        for part in path.split("."):
            if type(spot) is list:
                raise write_failure(2, f"The destination field '{path}' cannot be an array element")
            spot = _present(spot, part)


def _index(name: str) -> int:
    """The array position that a name stands for, or -1. Unlike filters, updates take leading zeros."""
    return int(name) if name.isascii() and name.isdigit() and len(name) < 18 else -1


def _present(target: Any, name: str) -> Any:
    if type(target) is dict:
        return target.get(name, MISSING)
    if type(target) is list:
        index = _index(name)
        return target[index] if 0 <= index < len(target) else MISSING
    return MISSING


def _viable(target: Any, name: str) -> bool:
    return type(target) is dict or (type(target) is list and _index(name) >= 0)


def _check_viable(target: Any, name: str) -> None:
    if not _viable(target, name):
        raise write_failure(28, f"Cannot create field '{name}' in an element of type {described(target)}")


def _create(target: Any, name: str, value: Any) -> None:
    _check_viable(target, name)
    if type(target) is dict:
        target[name] = value
        return
    index = _index(name)
    if index - len(target) > _BACKFILL_LIMIT:
        raise write_failure(34, f"can't backfill more than {_BACKFILL_LIMIT} elements of an array")
    target.extend([None] * (index - len(target)))
    target.append(value)


def _put(target: Any, name: str, value: Any) -> None:
    if type(target) is list:
        target[_index(name)] = None if value is MISSING else value
    elif value is MISSING:
        del target[name]
    else:
        target[name] = value
