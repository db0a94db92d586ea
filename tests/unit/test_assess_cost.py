"""Units, money, time, rates, and the configuration that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadow.assess.cost import MONTH, costs, dynamo_bytes, units
from shadow.assess.measure import Meter
from shadow.assess.model import (
    Assessment,
    CollectionReport,
    Costs,
    IndexReport,
    Rates,
    Remark,
    RemarkKind,
    Severity,
    Sizes,
    Units,
)
from shadow.assess.page import page
from shadow.assess.prices import Prices
from shadow.assess.rates import parse, rates, stated
from shadow.assess.server import Asked, Counts
from shadow.assess.text import text
from shadow.assess.written import StoreSections, configuration
from shadow.config import Settings, load
from shadow.errors import ConfigurationError
from shadow.model.schema import CollationSpec, CollectionSpec, IndexSpec, UniqueSpec

SPEC = CollectionSpec("c", (IndexSpec("a-index", "a"), IndexSpec("b-index", "b")))
UNIQUE = CollectionSpec("c", SPEC.indexes, (UniqueSpec("u", ("a",)),))
EACH = Units(item=3, copy=6, insert=6, update=6, delete=6, read=1, scan=5000)


def weighed(spec: CollectionSpec) -> Meter:
    """Two documents of 3 write units, the second without `b`."""
    meter = Meter(spec)
    for document in ({"_id": 1, "a": 1, "b": 1}, {"_id": 2, "a": 2}):
        meter.add({**document, "text": "x" * 2500}, 0)
    return meter


def test_each_index_costs_a_write_as_much_as_the_item_where_it_has_an_entry() -> None:
    each = units(weighed(SPEC).weights, SPEC)
    assert (each.item, each.copy, each.update, each.read) == (3, 7.5, 7.5, 1)
    alone = CollectionSpec("c", SPEC.indexes[:1])
    assert units(weighed(SPEC).weights, alone).update == 6, "an index that was left out costs nothing"


def test_a_unique_constraint_makes_inserts_and_deletes_transactions() -> None:
    """The item twice, the item of its value twice; an update of something else stays as it is."""
    each = units(weighed(UNIQUE).weights, UNIQUE)
    assert each.insert == each.delete == each.copy == 2 * 3 + 4.5 + 2 * 1
    assert each.update == 7.5


def test_of_nothing_everything_is_nothing() -> None:
    assert units(Meter(SPEC).weights, SPEC) == Units(0, 0, 0, 0, 0, 0, 0)
    assert dynamo_bytes(Meter(SPEC).weights, SPEC, 0) == 0


def test_storage_is_billed_with_every_entry_of_every_index() -> None:
    meter = weighed(SPEC)
    table, first = meter.sizes().item_bytes + 200, meter.sizes().item_bytes + 200
    assert dynamo_bytes(meter.weights, SPEC, 2000) == 1000 * (table + first + meter.weights.index_bytes["b-index"])


def test_money_is_units_by_price() -> None:
    found = costs(EACH, 1_000_000, 2 * 2**30, Rates(1, 2, 1, 10), Prices(), 1000, 0.0)
    assert found.copy == pytest.approx(6 * 0.625)
    assert found.verify == pytest.approx(5000 / 1e6 * 0.125)
    assert found.storage_month == pytest.approx(0.5)
    writes = 4 * 6 * 0.625 / 1e6 + 3 * 1 * 0.125 / 1e6
    assert found.dual_write_month == pytest.approx(0.5 + writes * MONTH)
    assert found.full_month == pytest.approx(0.5 + (writes + 10 * 0.125 / 1e6) * MONTH)
    assert (found.write_units_second, found.read_units_second) == (24, 10)


def test_what_is_not_known_is_not_guessed() -> None:
    found = costs(EACH, 10, 100, Rates(), Prices(), 1000, 0.0)
    assert found.dual_write_month is found.full_month is found.write_units_second is None
    found = costs(EACH, 10, 100, Rates(updates=1), Prices(), 1000, 0.0)
    assert found.dual_write_month is not None
    assert found.full_month is None


@pytest.mark.parametrize(
    ("copy_rate", "hottest", "seconds", "bound"),
    [(100, 0.0, 1000, "the pace"), (10_000, 0.0, 150, "of a new table"), (10_000, 0.9, 270, "most frequent value")],
)
def test_a_copy_takes_what_its_narrowest_place_takes(
    copy_rate: float, hottest: float, seconds: float, bound: str
) -> None:
    found = costs(EACH, 100_000, 0, Rates(), Prices(), copy_rate, hottest)
    assert found.copy_seconds == pytest.approx(seconds)
    assert bound in found.copy_bound


def test_rates_are_taken_from_two_looks_and_the_greater_of_now_and_always_counts() -> None:
    before, after = Counts(100, 0, 50, 10, 1000.0), Counts(103, 0, 60, 12, 1010.0)
    found = rates(before, after, None)
    assert (found.inserts, found.updates, found.deletes, found.reads) == (0.5, 0.5, 0.2, None)
    asked = (Asked(1000, 5, 5, 5), Asked(1101, 5, 5, 5), 100.0)
    found = rates(before, after, asked)
    assert (found.inserts, found.reads) == (0.5, 11.01)
    assert rates(before, before, asked) == Rates(), "no time has passed"
    assert rates(Counts(5, moment=1), Counts(5, moment=2), None) == Rates()


def test_counters_that_went_back_are_no_negative_rates() -> None:
    """The server opened the collection anew between the looks."""
    found = rates(Counts(100, 0, 5000, 4000, 0.0), Counts(100, 0, 2, 0, 10.0), None)
    assert (found.inserts, found.updates, found.deletes) == (0, 0, 0)


def test_what_is_stated_goes_before_what_was_seen() -> None:
    seen = Rates(1, 2, 1, 7, "seen")
    assert stated(seen, "c", 0.5, [], []) is seen
    assert stated(seen, "c", 0.5, ["100"], []) == Rates(1, 2, 1, 50, "seen, as stated")
    assert stated(seen, "c", 0.5, ["100", "c=3"], ["c=8"]) == Rates(2, 4, 2, 3, "seen, as stated")
    assert stated(Rates(), "c", 0.5, [], ["10"]) == Rates(5, 0, 0, None, "as stated")
    for wrong in ("many", "c=", "-1", "c=-1", "nan", "inf"):
        with pytest.raises(ValueError):
            parse([wrong])


def test_prices_are_a_section_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "shadow.yaml"
    file.write_text("prices: {write_million: 1.5}")
    assert load(file, {}).prices == Prices(write_million=1.5)
    assert Settings().prices == Prices(write_million=0.625, read_million=0.125, storage_gb_month=0.25)
    file.write_text("prices: {write_million: -1, reads: 5}")
    with pytest.raises(ConfigurationError) as caught:
        load(file, {})
    assert {fault.field for fault in caught.value.faults} == {"prices.write_million", "prices.reads"}


# --- what is written --------------------------------------------------------------------------------------------

NO_COSTS = Costs(0, 0, 0, None, None, 0, "", None, None)
PLACE = StoreSections({"url": "mongodb://h", "database": "off"}, {"region": "eu-west-1"}, {"url": "sqlite:///var/x.db"})


def reported(spec: CollectionSpec, *indexes: IndexReport) -> CollectionReport:
    return CollectionReport(
        spec.name, 10, 10, True, 5, 5.0, 0, 0, spec, Sizes(), (), (), indexes, Rates(), EACH, NO_COSTS
    )


def assessment(*collections: CollectionReport, **more: Any) -> Assessment:
    return Assessment("off", "MongoDB 6.0.5", "2026-01-01T00:00:00+00:00", "whole", collections, {}, (), "", **more)


def test_what_is_written_is_what_was_designed(tmp_path: Path) -> None:
    """Names that YAML would read as something else, and everything that an index can be."""
    specs = [
        CollectionSpec("off"),
        CollectionSpec(
            "1e5",
            (IndexSpec("null-index", "null", "yes"),),
            (UniqueSpec("a: b", ("#x", "a.b"), True, CollationSpec("en", 2)),),
        ),
        CollectionSpec(
            "uni", (IndexSpec("no-index", "no"), IndexSpec("p-q", "_v_by_p-q", "r", ("x", "y"))), reserved="_v"
        ),
        CollectionSpec("null", (), (UniqueSpec("x" * 250, ("y" * 250,)),)),
    ]
    left = IndexReport("odd\nname", "a: 1", (), "nothing", configured=False, warning="it is: odd")
    file = tmp_path / "shadow.yaml"
    file.write_text(configuration(assessment(*(reported(spec, left) for spec in specs)), PLACE), encoding="utf-8")
    settings = load(file, {})
    assert settings.specs() == {spec.name: spec for spec in specs}
    assert {route.phase.value for route in settings.routes().values()} == {"off"}
    assert (settings.mongo.database, settings.dynamo.region, settings.journal.path) == (
        "off",
        "eu-west-1",
        Path("var/x.db"),
    )
    assert "# odd?name over a: 1: nothing (it is: odd)" in file.read_text("utf-8")


def test_without_collections_the_file_is_whole_too(tmp_path: Path) -> None:
    file = tmp_path / "shadow.yaml"
    file.write_text(configuration(assessment(), PLACE))
    assert load(file, {}).collections == {}


def test_the_reports_stand_empty_collections_and_escape_what_they_are_given() -> None:
    remark = Remark(Severity.WARNING, RemarkKind.NAME, "<b>", "<script>alert(1)</script>", "</style>")
    found = assessment(reported(CollectionSpec("<i>")), remarks=(remark,))
    html = page(found)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("</style>") == 1
    assert "<script>alert(1)</script>" in text(found)
