"""The fleet as shown to people, JSON-able."""

from __future__ import annotations

from typing import Any

from shadow.control import members
from shadow.control.flip_record import FlipState, RouteRecord, Routing
from shadow.control.members import Member

__all__ = ["described"]


def described(seen: Routing, rows: list[Member]) -> dict[str, Any]:
    """Members, routes and the last flip. JSON-able."""
    flip = seen.flip
    return {
        "members": [_member(row) for row in rows],
        "disagreements": members.disagreements(row for row in rows if not row.tool),
        "misplaced": members.misplaced(row for row in rows if not row.tool),
        "routing": {name: _placed(each) for name, each in seen.placed.items()},
        "flip": None
        if flip is None or flip.state is FlipState.RELEASED
        else {
            "id": flip.id,
            "kind": str(flip.kind),
            "state": str(flip.state),
            "to": {name: str(to) for name, to in flip.to.items()},
            "by": flip.by,
            "said": flip.said,
        },
    }


def _member(row: Member) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tool": row.tool,
        "journal": row.journal,
        "dead": row.owner.known_dead(),
        "beat": row.beat,
        "where": dict(row.where),
        "standing": {
            name: {"primary": str(each.primary), "phase": str(each.phase), "file": str(each.wanted)}
            for name, each in row.standing.items()
        },
    }


def _placed(each: RouteRecord) -> dict[str, Any]:
    return {
        "primary": str(each.primary),
        "epoch": each.epoch,
        "since": each.since,
        "way_back": each.previous is not None,
        "completed": each.completed,
        "files_behind": each.spent,
    }
