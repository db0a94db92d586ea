"""The suggested configuration file: ready to be loaded, after a review."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from shadow.assess.model import Assessment, CollectionReport
from shadow.model.schema import RESERVED

__all__ = ["StoreSections", "configuration"]

_WIDTH: Final = 4096


@dataclasses.dataclass(frozen=True)
class StoreSections:
    """Where the stores are: the sections `mongo`, `dynamo` and `journal`, without secrets."""

    mongo: Mapping[str, Any]
    dynamo: Mapping[str, Any]
    journal: Mapping[str, Any]
    left_out: str = ""
    """What must come from the environment."""


def configuration(found: Assessment, place: StoreSections) -> str:
    """YAML. Every collection starts in phase `off`, which changes nothing for the application."""
    return "\n".join([*_head(found, place), *_sections(place), *_collections(found)]) + "\n"


def _head(found: Assessment, place: StoreSections) -> Iterator[str]:
    yield f"# Suggested by `shadow assess` on {found.taken[:10]}, from {found.server}. Other keys have"
    yield "# defaults: config/shadow.yaml of the package lists them all. Review this file before you use it."
    if place.left_out:
        yield f"# {place.left_out}"
    if found.blockers:
        yield f"# {found.blockers} problems must be fixed before the migration; `shadow assess` names them."
    yield ""


def _sections(place: StoreSections) -> Iterator[str]:
    for name, section in (("mongo", place.mongo), ("dynamo", place.dynamo), ("journal", place.journal)):
        yield f"{name}:"
        yield from (f"  {key}: {_flow(value)}" for key, value in section.items())
        yield ""
    yield "defaults:"
    yield "  primary: mongo"
    yield "  phase: off    # nothing changes yet; for the next steps see `shadow docs runbook`"
    yield ""


def _collections(found: Assessment) -> Iterator[str]:
    if not found.collections:
        yield "collections: {}"
        return
    yield "collections:"
    for name, reason in found.left_out.items():
        yield f"  # {_comment(name)}: {_comment(reason)}"
    for each in found.collections:
        yield from _collection(each)


def _collection(each: CollectionReport) -> Iterator[str]:
    spec = each.spec
    yield f"  {_flow(each.name)}:{'' if _is_said(each) else ' {}'}    # {each.documents} documents"
    for index in each.indexes:
        if not index.configured:
            reason = f" ({index.warning})" if index.warning else ""
            yield f"    # {_comment(index.name)} over {_comment(index.keys)}: {_comment(index.becomes + reason)}"
    if spec.reserved != RESERVED:
        yield f"    reserved: {_flow(spec.reserved)}    # the documents have a field {RESERVED} of their own"
    if spec.indexes:
        yield "    indexes:"
        for made in spec.indexes:
            entry: dict[str, Any] = {"name": made.name, "hash": list(made.fields) if made.fields else made.hash}
            if made.range is not None:
                entry["range"] = made.range
            yield f"      - {_flow(entry)}"
    if spec.unique:
        yield "    unique:"
        for unique in spec.unique:
            entry = {"name": unique.name, "fields": list(unique.fields), **({"sparse": True} if unique.sparse else {})}
            if unique.collation is not None:
                entry["collation"] = dataclasses.asdict(unique.collation)
            yield f"      - {_flow(entry)}"


def _is_said(each: CollectionReport) -> bool:
    return bool(each.spec.indexes or each.spec.unique or each.spec.reserved != RESERVED)


def _flow(value: Any) -> str:
    """On one line, quoted where YAML would read something else."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=_WIDTH)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)
