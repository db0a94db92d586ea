"""When MongoDB is asked for its indexes again."""

from __future__ import annotations

from shadow.surface.indexing.index_report import IndexReport


class Nobody:
    def publish(self, event: object) -> None:
        """Hears nothing."""


def test_a_look_without_an_answer_is_repeated_soon_and_no_other() -> None:
    """A gate that is not known stays closed: a server that is busy for a moment must not keep it so for long."""
    now = 1000.0
    report = IndexReport(Nobody(), lambda name: (), lambda: now)
    assert report.is_due("things", 30.0)
    assert not report.is_due("things", 30.0)
    report.missed("things")
    now += 1.9
    assert not report.is_due("things", 30.0)
    now += 0.2
    assert report.is_due("things", 30.0)
    report.failed("things", TimeoutError())
    assert not report.health("things").indexes_known
    now += 2.1
    assert report.is_due("things", 30.0)
    report.looked("things", [])
    assert report.health("things").indexes_known
    now += 29.0
    assert not report.is_due("things", 30.0)
    now += 1.1
    assert report.is_due("things", 30.0)
