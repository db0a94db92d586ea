"""What MongoDB's indexes and recorded queries become: indexes of the table, and unique constraints.

An index of the table has a hash field, or two to four that a filter fixes together, and optionally a range field, all
at the top level of the document. An index over (a, b) also serves queries for (a).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shadow.assess.model import KeyReport
from shadow.assess.queries import QueryShape, is_speakable
from shadow.model.collations import of_index
from shadow.model.schema import CollationSpec, CollectionSpec, IndexSpec, UniqueSpec
from shadow.stores.dynamo.client.settings import MOST_INDEXES
from shadow.stores.dynamo.query.plan import ScanPlan, conditions, plan, wanted_keys

__all__ = [
    "Became",
    "Design",
    "MongoIndex",
    "design",
    "index_name",
    "pruned",
    "read_index",
]

_NOT_A_NAME: Final = re.compile(r"[^a-zA-Z0-9_.-]")
_MOST_FIELDS: Final = 4
_HOT: Final = 0.5
"""The share of one value above which an index on it is not worthwhile: a query for it is nearly a scan."""
_ENOUGH: Final = 100
"""The least number of entries for which a share is meaningful."""


@dataclass(frozen=True, slots=True)
class MongoIndex:
    """As `listIndexes` describes it. `keys`: path to direction, or to the kind of a special index."""

    name: str
    keys: tuple[tuple[str, Any], ...]
    unique: bool = False
    sparse: bool = False
    expires: bool = False
    partial: bool = False
    collation: bool = False
    english: CollationSpec | None = None
    """The collation, if DynamoDB can have it too."""
    hidden: bool = False
    uses: int | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.keys)

    @property
    def options(self) -> tuple[str, ...]:
        named = {
            "unique": self.unique,
            "sparse": self.sparse,
            "expires (TTL)": self.expires,
            "partial": self.partial,
            "collation": self.collation,
            "hidden": self.hidden,
        }
        return tuple(name for name, is_set in named.items() if is_set)

    def keys_text(self) -> str:
        return ", ".join(f"{path}: {kind if isinstance(kind, str) else int(kind)}" for path, kind in self.keys)


def read_index(raw: Mapping[str, Any], uses: Mapping[str, int]) -> MongoIndex:
    name = str(raw["name"])
    keys = raw["key"]
    if "_fts" in keys:  # a text index has its fields elsewhere
        keys = dict.fromkeys(raw.get("weights", {}), "text")
    return MongoIndex(
        name,
        tuple(keys.items()),
        unique=bool(raw.get("unique")),
        sparse=bool(raw.get("sparse")),
        expires="expireAfterSeconds" in raw,
        partial="partialFilterExpression" in raw,
        collation=bool(raw.get("collation")),
        english=of_index(raw.get("collation")),
        hidden=bool(raw.get("hidden")),
        uses=uses.get(name),
    )


@dataclass(frozen=True, slots=True)
class Became:
    """The result for one index (`source`; None: from queries or the given configuration). `warning`: what changes.
    `spec` and `unique`: the configuration. `dropped`: an index that was not suggested after all."""

    text: str
    source: MongoIndex | None = None
    spec: IndexSpec | None = None
    unique: UniqueSpec | None = None
    warning: str = ""
    dropped: IndexSpec | None = None


@dataclass(frozen=True, slots=True)
class Design:
    spec: CollectionSpec
    became: tuple[Became, ...]


def design(
    collection: str, indexes: Iterable[MongoIndex], shapes: Sequence[QueryShape], given: CollectionSpec, reserved: str
) -> Design:
    """`given` is what the configuration already has for the collection; it stays."""
    became = [Became("of the configuration", spec=each) for each in given.indexes]
    became += [Became("of the configuration", unique=each) for each in given.unique]
    for index in indexes:
        if index.paths != ("_id",) and not index.name.startswith(f"{reserved}_"):
            became.append(_kept_once(_of_index(index, shapes, reserved), given.unique))
    became = _deduplicated(became)
    for shape in shapes:
        spec = CollectionSpec(collection, tuple(each.spec for each in became if each.spec is not None))
        wanted = _wanted(shape, spec)
        if wanted is not None:
            became = _deduplicated([*became, wanted])
    became = _renamed(became, reserved)
    return Design(_spec(collection, became, reserved), tuple(became))


def _spec(collection: str, became: Sequence[Became], reserved: str) -> CollectionSpec:
    return CollectionSpec(
        collection,
        tuple(each.spec for each in became if each.spec is not None),
        tuple(each.unique for each in became if each.unique is not None),
        reserved,
    )


# --- one index --------------------------------------------------------------------------------------------------


def _of_index(index: MongoIndex, shapes: Sequence[QueryShape], reserved: str) -> Became:
    special = next((kind for _, kind in index.keys if isinstance(kind, str) and kind != "hashed"), None)
    if special is not None:
        refused = "text" if special == "text" else "geo"
        return Became("nothing", index, warning=f"{refused} queries do not exist on DynamoDB and are refused")
    if any("$**" in path for path in index.paths):
        return Became("nothing", index, warning="an index of the table names its fields; queries by others scan")
    if index.expires:
        return Became(
            "nothing by itself",
            index,
            warning="MongoDB's TTL deletes bypass shadow: name the field and the seconds under `expires`, and these "
            "documents expire on DynamoDB too",
        )
    unique, warning = _unique(index)
    spec = _lookup(index.paths, shapes, reserved)
    parts = [f"unique constraint {unique.name}" if unique else "", f"index {_told(spec)}" if spec else ""]
    text = " and ".join(each for each in parts if each) or "nothing"
    if spec is None and not warning:
        warning = f"queries by {index.paths[0]} scan: an index of the table is over fields at the top level"
    return Became(text, index, spec, unique, warning or _remark(index, spec))


def _kept_once(each: Became, given: Sequence[UniqueSpec]) -> Became:
    """Without a constraint that the configuration already has, under this or another name."""
    wanted = None if each.unique is None else (each.unique.fields, each.unique.collation)
    same = next((one for one in given if (one.fields, one.collation) == wanted), None)
    if same is None or each.unique is None:
        return each
    text = each.text.replace(f"unique constraint {each.unique.name}", f"unique constraint {same.name}", 1)
    return replace(each, text=text, unique=None)


def _remark(index: MongoIndex, spec: IndexSpec | None) -> str:
    if index.collation:
        return "the table's index compares bytes: queries by a collation scan, or are refused"
    if spec is not None and len(spec.keys) < len(index.paths):
        rest = ", ".join(path for path in index.paths if path not in spec.keys)
        return f"{rest}: checked after reading"
    return ""


def _unique(index: MongoIndex) -> tuple[UniqueSpec | None, str]:
    if not index.unique:
        return None, ""
    if index.partial:
        return None, "DynamoDB's side holds no constraint on some of the documents alone; MongoDB keeps its own"
    if index.collation and index.english is None:
        return None, "a constraint under this collation has no counterpart; MongoDB keeps its own"
    return UniqueSpec(index.name, index.paths, index.sparse, index.english), ""


def _lookup(paths: Sequence[str], shapes: Sequence[QueryShape], reserved: str) -> IndexSpec | None:
    """The index of the table for the queries that an index over these paths serves."""
    top = paths[: next((i for i, path in enumerate(paths) if "." in path), len(paths))]
    if not top or top[0] == "_id":
        return None
    together = _fixed_together(top, shapes)
    if len(together) > 1:
        rest = top[len(together) :]
        name = index_name([*together, *rest[:1]])
        return IndexSpec(name, f"{reserved}_by_{name}", rest[0] if rest else None, tuple(together))
    chosen = [path for path in top if path != "_id"][:2]
    return IndexSpec(index_name(chosen), chosen[0], chosen[1] if len(chosen) > 1 else None)


def _fixed_together(paths: Sequence[str], shapes: Sequence[QueryShape]) -> Sequence[str]:
    """The first of three or more paths, if every recorded query of this kind fixes all of them."""
    if len(paths) < 3:
        return paths[:1]
    fixed = [{one.path for one in conditions(shape.query.filter) if one.operator == "$eq"} for shape in shapes]
    of_kind = [each for each in fixed if paths[0] in each]
    most = min((_prefix(paths, each) for each in of_kind), default=1)
    return paths[: min(most, _MOST_FIELDS)]


def _prefix(paths: Sequence[str], fixed: set[str]) -> int:
    return next((i for i, path in enumerate(paths) if path not in fixed), len(paths))


def index_name(fields: Sequence[str]) -> str:
    """The name that the adviser of `create_index` would suggest."""
    return _NOT_A_NAME.sub("_", f"{'_'.join(fields)}-index")[-255:]


def _told(spec: IndexSpec) -> str:
    hash = f"({', '.join(spec.fields)})" if spec.fields else spec.hash
    return f"{spec.name}: hash {hash}" + (f", range {spec.range}" if spec.range is not None else "")


# --- queries ----------------------------------------------------------------------------------------------------


def _wanted(shape: QueryShape, spec: CollectionSpec) -> Became | None:
    """The index for a query that scans; None if it does not scan, or no index would help."""
    try:
        keys = wanted_keys(shape.query) if isinstance(plan(shape.query.filter, spec), ScanPlan) else None
    except (TypeError, AttributeError):  # not a filter, which the report says elsewhere
        return None
    if keys is None or keys[0] == "_id" or not is_speakable(shape.query):
        return None
    range_ = keys[1] if keys[1] != "_id" else None
    made = IndexSpec(index_name([name for name in (keys[0], range_) if name is not None]), keys[0], range_)
    return Became(f"index {_told(made)}, which recorded queries ask for", spec=made)


# --- all together -----------------------------------------------------------------------------------------------


def _deduplicated(became: Sequence[Became]) -> list[Became]:
    """Removes indexes whose queries another one serves; those of the configuration stay."""
    kept: list[Became] = []
    for place, each in enumerate(became):
        better = next(
            (one for i, one in enumerate(became) if one.spec and _replaces(one, each, earlier=i < place)), None
        )
        if each.spec is None or better is None or (each.source is None and each.text == "of the configuration"):
            kept.append(each)
        elif each.source is not None:
            assert better.spec is not None
            text = f"served by {better.spec.name}"
            text = f"unique constraint {each.unique.name}, {text}" if each.unique else text
            kept.append(replace(each, text=text, spec=None))
    return kept


def _replaces(one: Became, other: Became, *, earlier: bool) -> bool:
    if one is other or one.spec is None or other.spec is None or one.spec.fields != other.spec.fields:
        return False
    if not one.spec.fields and one.spec.hash != other.spec.hash:
        return False
    if one.spec.range == other.spec.range:
        return earlier
    return other.spec.range is None


def _renamed(became: Sequence[Became], reserved: str) -> list[Became]:
    """Gives indexes and constraints different names, as the table and the configuration require. Those of the
    configuration come first and keep theirs."""
    taken: set[str] = set()
    made = []
    for each in became:
        if each.unique is not None:
            name = _untaken(each.unique.name, taken)
            if name != each.unique.name:
                text = each.text.replace(f"constraint {each.unique.name}", f"constraint {name}", 1)
                each = replace(each, unique=replace(each.unique, name=name), text=text)
        if each.spec is not None:
            name = _untaken(each.spec.name if len(each.spec.name) >= 3 else f"{each.spec.name}-index", taken)
            if name != each.spec.name:
                hash = f"{reserved}_by_{name}" if each.spec.fields else each.spec.hash
                spec = replace(each.spec, name=name, hash=hash)
                text = each.text.replace(f"index {each.spec.name}", f"index {name}")
                each = replace(each, spec=spec, text=text)
        made.append(each)
    return made


def _untaken(name: str, taken: set[str]) -> str:
    """The name, with `-2` appended until it is free; marks it as taken."""
    while name in taken:
        name = f"{name[:250]}-2"
    taken.add(name)
    return name


def pruned(made: Design, keys: Mapping[str, KeyReport], hottest: Mapping[str, tuple[int, float]]) -> Design:
    """The design without indexes that are not worthwhile: over lists, or with one value in most documents. `hottest`:
    by index, its entries and the share of the most frequent hash. Keeps at most as many as a table can have."""
    became: list[Became] = []
    for each in made.became:
        reason = "" if each.spec is None or each.text == "of the configuration" else _unworthy(each.spec, keys, hottest)
        became.append(each if not reason else _dropped(each, reason))
    count = 0
    for place, each in enumerate(became):
        count += each.spec is not None
        if each.spec is not None and count > MOST_INDEXES:
            became[place] = _dropped(each, f"a table has at most {MOST_INDEXES} indexes")
    return Design(_spec(made.spec.name, became, made.spec.reserved), tuple(became))


def _dropped(each: Became, reason: str) -> Became:
    kept = f"unique constraint {each.unique.name}" if each.unique else "nothing"
    return replace(each, text=kept, spec=None, dropped=each.spec, warning=f"no index is suggested: {reason}")


def _unworthy(spec: IndexSpec, keys: Mapping[str, KeyReport], hottest: Mapping[str, tuple[int, float]]) -> str:
    for path in spec.fields or (spec.hash,):
        report = keys[path]
        held = report.exact + report.escaped + sum(report.aside.values())
        if report.arrays > held:
            return f"{path} is mostly a list, and all lists share one partition"
    entries, share = hottest.get(spec.name, (0, 0.0))
    if entries >= _ENOUGH and share >= _HOT:
        return f"one value of {', '.join(spec.fields or (spec.hash,))} is in {share:.0%} of it"
    return ""
