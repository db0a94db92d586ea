"""What was compared in some time: the figures of evidence, with their denominators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shadow.model.verdict import Verdict

__all__ = ["Compared", "together"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Counts of one collection. `verdicts`: comparisons by verdict; `rules`: those that a comparison rule made equal,
    by its name; `noise`: comparisons of the primary with itself, by verdict."""

    verdicts: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    noise: Mapping[str, int] = field(default_factory=dict)

    @property
    def decided(self) -> int:
        """Comparisons that came to equal or not equal: the denominator of every rate."""
        return sum(self.verdicts.get(each, 0) for each in (Verdict.MATCH, Verdict.EXCUSED, Verdict.MISMATCH))

    @property
    def differing(self) -> int:
        return self.verdicts.get(Verdict.MISMATCH, 0)

    @property
    def measured(self) -> int:
        """Comparisons of the primary with itself that came to equal or not equal."""
        return sum(self.noise.get(each, 0) for each in (Verdict.MATCH, Verdict.EXCUSED, Verdict.MISMATCH))

    @property
    def noisy(self) -> int:
        return self.noise.get(Verdict.MISMATCH, 0)


def together(several: Iterable[Compared]) -> Compared:
    """The sum of them."""
    verdicts, rules, noise = Counter[str](), Counter[str](), Counter[str]()
    for each in several:
        verdicts.update(each.verdicts)
        rules.update(each.rules)
        noise.update(each.noise)
    return Compared(dict(verdicts), dict(rules), dict(noise))
