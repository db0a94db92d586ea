"""The harness of the benchmarks: turns, ratios, budgets, and what spoils a figure. No server and no stopwatch."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.bench.__main__ import arguments, wanted
from tests.bench.harness import METRICS, Bench, Block, Closed, Contender, Line, Paced, Result, run
from tests.bench.migration import Figure, plot
from tests.bench.table import as_json, missed, table

LINE = Line("a call", "p50", "ours", "theirs", 1.5)


def result(ratios: Sequence[float], line: Line = LINE, shed: int = 0) -> Result:
    return Result("trivial", line, ratios, (2e-6, 1e-6), shed)


def bench(load: Closed | Paced, calls: list[str], shed: list[int] | None = None) -> Bench:
    """Two contenders that write down who was called."""

    def contender(name: str) -> Contender:
        async def call(number: int) -> None:
            calls.append(name)

        return Contender(name, call, shed=lambda: shed.pop(0) if shed and name == "ours" else 0)

    return Bench("trivial", [contender("theirs"), contender("ours")], load, [LINE])


async def test_contenders_take_turns_and_the_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    (found,) = await run(bench(Closed(3), calls), 2, warm_up=1)
    blocks = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [set(each) for each in blocks] == [{"ours"}, {"theirs"}, {"theirs"}, {"ours"}, {"ours"}, {"theirs"}]
    assert len(found.ratios) == 2


@pytest.mark.parametrize("load", [Closed(7), Closed(7, 3), Paced(7, 10_000.0)])
async def test_every_call_is_made_once_with_its_own_number(load: Closed | Paced) -> None:
    seen: list[int] = []

    async def call(number: int) -> None:
        seen.append(number)

    latencies = await load.drive(call, 1.0)
    assert sorted(seen) == list(range(7))
    assert len(latencies) == 7


async def test_what_was_shed_spoils_a_ratio_that_would_be_met() -> None:
    (found,) = await run(bench(Closed(2), [], shed=[0, 3, 5]), 1, warm_up=1)
    assert found.shed == 2
    assert result([1.0], shed=2).met is False
    assert result([1.0]).met is True


def test_a_result_is_the_median_of_its_rounds() -> None:
    assert result([9.0, 1.0, 2.0]).ratio == 2.0
    assert result([9.0, 1.0, 2.0]).met is False


def test_a_budget_may_be_a_least_and_may_be_missing() -> None:
    at_least = Line("a call", "p50", "ours", "theirs", 50, at_least=True)
    assert result([60.0], at_least).met is True
    assert result([40.0], at_least).met is False
    assert result([40.0], Line("a call", "p50", "ours", "theirs")).met is None


def test_the_figures_of_a_block() -> None:
    block = Block([0.001] * 98 + [0.5, 0.9], cpu=0.2, wall=1.0)
    assert METRICS["p50"](block) == 0.001
    assert METRICS["p99"](block) == 0.9
    assert METRICS["cpu"](block) == pytest.approx(0.002)
    assert METRICS["seconds"](block) == pytest.approx(0.01)


def test_the_table_says_what_was_not_met() -> None:
    text = table([result([1.0, 2.0, 1.8])])
    assert "| 1.80 [1.00..2.00] |" in text
    assert text.endswith("| <= 1.5 | NO |")
    assert missed([result([1.8]), result([1.2])]) == ["trivial: a call"]


def test_the_json_holds_every_round_and_the_command() -> None:
    written = json.loads(as_json([result([1.0, 2.0, 1.8])], command="python -m tests.bench"))
    assert written["command"] == "python -m tests.bench"
    assert written["lines"][0]["ratios"] == [1.0, 2.0, 1.8]
    assert written["lines"][0]["met"] is False


def test_quick_means_fewer_rounds_and_names_choose_benches() -> None:
    quick, whole = arguments(["--quick", "--only", "triv"]), arguments([])
    assert quick.rounds < whole.rounds
    assert quick.calls < whole.calls
    chosen = bench(Closed(1), [])
    assert wanted([chosen], quick.only) == [chosen]
    assert wanted([chosen], ["other"]) == []


def test_quick_by_itself_looks_at_the_budget_alone() -> None:
    assert "find_one off" in arguments(["--quick"]).only
    assert not arguments([]).only


async def test_a_contender_may_make_its_blocks_in_other_processes() -> None:
    async def block() -> Block:
        return Block([0.003, 0.003], cpu=0.1, wall=0.2)

    async def base() -> Block:
        return Block([0.002, 0.002], cpu=0.1, wall=0.2)

    async def call(number: int) -> None:
        raise AssertionError("it makes no calls here")

    contenders = [Contender("theirs", call, block=base), Contender("ours", call, block=block)]
    (found,) = await run(Bench("trivial", contenders, Closed(2), [LINE]), 1)
    assert found.ratio == pytest.approx(1.5)


def test_a_plot_has_a_bar_for_every_job_and_number_of_documents() -> None:
    figures = [Figure("backfill", count, count / 1000, 100) for count in (10_000, 100_000)]
    bars = [line.split("|")[1].split(" ") for line in plot(figures).splitlines() if "|" in line]
    assert [(len(bar), said) for bar, said in bars] == [(12, "10.0"), (24, "100.0"), (20, "100"), (20, "100")]
