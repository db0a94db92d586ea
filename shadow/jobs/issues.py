"""The issues of a job: the keys that it could not bring to an end, each a record of its own, with the reason.

    issue/<job>/<digest>   one key, and by whose claim it was found

They are written before the checkpoint that counts them: a process that dies in between leaves some that are not counted
yet. They are as true as when they were found, and the count at the end of a job goes by the records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shadow.control.records import Records
from shadow.model.order import key_digest
from shadow.model.version import Key

__all__ = ["Issue", "Issues", "Reasons", "add_reasons", "copied", "tally"]

_PAGE: Final = 500

Reasons = dict[str, dict[str, int]]
"""Kind of issue to reason to count."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One key that needs attention: `kind` is a kind of difference or "failed", `reason` a short text without any
    value; the states are those seen, as JSON."""

    key: Key
    kind: str
    reason: str = ""
    primary_state: str = ""
    secondary_state: str = ""


class Issues:
    """The records of issues. Synchronous; raises `ControlError`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def write(self, job: int, issues: Sequence[Issue], by: str = "") -> None:
        """`by`: the token of the claim that found them; "" for those that nobody takes back."""
        self._records.put_many({_name(job, each.key): _packed(each, by) for each in issues})

    def take_back(self, job: int, issues: Sequence[Issue], by: str) -> None:
        """Deletes the issues of a batch that did not count, unless another claim has found them too."""
        for each in issues:
            found = self._records.get(_name(job, each.key))
            if found is not None and found.value["by"] == by:
                self._records.delete(found.key, expected=found.revision)

    def resolve(self, job: int, keys: Sequence[Key], left: Sequence[Issue]) -> None:
        """Deletes the issues of these keys, except those that are `left`."""
        still = {key_digest(each.key) for each in left}
        for key in keys:
            if key_digest(key) not in still:
                self._records.delete(_name(job, key))

    def delete_all(self, job: int) -> None:
        self._records.delete_all(_prefix(job))

    def pages(self, job: int) -> Iterator[list[Issue]]:
        """The issues of a job, some at a time."""
        after = ""
        while page := self._records.scan(_prefix(job), after=after, limit=_PAGE):
            after = page[-1].key
            yield [_unpacked(each.value) for each in page]


def _prefix(job: int) -> str:
    return f"issue/{job:010}/"


def _name(job: int, key: Key) -> str:
    return f"{_prefix(job)}{key_digest(key)}"


def _packed(issue: Issue, by: str) -> dict[str, Any]:
    states = {"primary": issue.primary_state, "secondary": issue.secondary_state}
    return {"key": issue.key, "kind": issue.kind, "reason": issue.reason, "by": by, **states}


def _unpacked(value: Mapping[str, Any]) -> Issue:
    return Issue(value["key"], value["kind"], value["reason"], value["primary"], value["secondary"])


# --- counts -----------------------------------------------------------------------------------------------------


def tally(issues: Sequence[Issue]) -> Reasons:
    found: Reasons = {}
    for each in issues:
        add_reasons(found, {each.kind: {each.reason: 1}})
    return found


def add_reasons(to: Reasons, more: Mapping[str, Mapping[str, int]]) -> None:
    for kind, reasons in more.items():
        counts = to.setdefault(kind, {})
        for reason, count in reasons.items():
            counts[reason] = counts.get(reason, 0) + count


def copied(reasons: Mapping[str, Mapping[str, int]]) -> Reasons:
    return {kind: dict(each) for kind, each in reasons.items()}
