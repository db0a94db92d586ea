"""The Grafana boards. `python -m tests.support.boards` writes them anew into config/grafana/dashboards.

A board is rows of panels, a panel is a title, a sentence, and queries; `grafana` makes the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.support.grafana import Board, Panel, made

__all__ = ["FOLDER", "boards"]

FOLDER: Final = Path(__file__).parents[2] / "config" / "grafana" / "dashboards"
_OF: Final = 'collection=~"$collection"'
_MISMATCHED: Final = f'{_OF},verdict="mismatch"'
_NOISY: Final = f'{_OF},verdict!="match"'
_FAILED: Final = f'{_OF},role="secondary",outcome!="acked"'
_DECIDED: Final = 'verdict=~"match|excused|mismatch"'
_DECIDED_OR_SHED: Final = 'verdict=~"match|excused|mismatch|shed"'
_READS: Final = 'verb=~"get_item|batch_get_item|query|scan|transact_get_items"'
_WRITES: Final = 'verb=~"put_item|update_item|delete_item|batch_write_item|transact_write_items"'
_MONTH: Final = 30 * 86_400

BAD_IF_ANY: Final = (("text", None), ("red", 1e-9))
"""Zero is not green: it may rest on nothing."""
GOOD_IS_HIGH: Final = (("red", None), ("green", 1.0))


def _rate(metric: str, by: str, where: str = _OF) -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str, where: str = "") -> str:
    selected = f"{metric}_bucket{{{where}}}" if where else f"{metric}_bucket"
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({selected}[$__rate_interval])))"


def _p95(role: str) -> str:
    return _quantile(0.95, "shadow_operation_seconds", "collection, family", f'{_OF},role="{role}"')


_DECISIONS: Final = f"sum by (collection) (rate(shadow_comparisons_total{{{_OF},{_DECIDED}}}[$__rate_interval]))"
_WRITE_DECISIONS: Final = _rate("shadow_write_comparisons_total", "collection", f"{_OF},{_DECIDED}")
_SAFE: Final = (
    f"(sum by (collection) (increase(shadow_mismatches_total{{{_OF}}}[1h])) == bool 0)"
    f" * min by (collection) (shadow_comparison_working{{{_OF}}})"
    f" * (sum by (collection) (increase(shadow_comparisons_total{{{_OF},{_DECIDED}}}[1h])) >= bool 1000)"
    f' * (sum by (collection) (increase(shadow_comparisons_total{{{_OF},verdict="shed"}}[1h]))'
    f" / sum by (collection) (increase(shadow_comparisons_total{{{_OF},{_DECIDED_OR_SHED}}}[1h])) <= bool 0.1)"
    f" * (sum by (collection) (increase(shadow_out_of_band_writes_total{{{_OF}}}[1h])) == bool 0)"
    f' * (sum by (collection) (increase(shadow_flips_total{{{_OF},result="done"}}[1h])) == bool 0)'
    " * scalar(max(shadow_journal_oldest_intent_seconds) < bool 60) * scalar(min(shadow_secondary_up))"
)

OVERVIEW: Final = Board(
    "overview",
    "overview",
    "Is it safe to flip? What is the one thing to look at?",
    [
        (
            "Is it safe to flip?",
            [
                Panel(
                    "Safe to flip, as far as figures say",
                    "No mismatch, no write past shadow and no flip in the last hour, at least 1,000 comparisons in it, "
                    "at most a tenth of them shed, planted differences are found, the journal is not behind, the "
                    "secondary is up. No data is not a yes. `shadow status` knows the findings too, which outlive an "
                    "hour.",
                    [(_SAFE, "{{collection}}")],
                    kind="stat",
                    steps=GOOD_IS_HIGH,
                    words={"0": "no", "1": "yes"},
                ),
                Panel(
                    "What to look at",
                    "The alerts that fire. Each has a section in the manual: shadow docs alerts.",
                    [('max by (severity, alertname, collection, store) (ALERTS{alertstate="firing"})', "")],
                    kind="table",
                ),
            ],
        ),
        (
            "The figures behind it",
            [
                Panel(
                    "Mismatch rate",
                    "Confirmed mismatches among the comparisons that came to a verdict. No comparisons: no figure, "
                    "which is not the same as zero.",
                    [
                        (
                            f"{_rate('shadow_comparisons_total', '', _MISMATCHED)}"
                            f" / ({_rate('shadow_comparisons_total', '', f'{_OF},{_DECIDED}')} > 0)",
                            "",
                        )
                    ],
                    kind="stat",
                    unit="percentunit",
                    width=4,
                    height=5,
                    steps=BAD_IF_ANY,
                ),
                Panel(
                    "Comparisons per second",
                    "The denominator: how many comparisons the mismatch rate rests on.",
                    [(_rate("shadow_comparisons_total", "", f"{_OF},{_DECIDED}"), "")],
                    kind="stat",
                    unit="cps",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Mismatches, 24 hours",
                    "Confirmed mismatches of the last day.",
                    [(f"sum(increase(shadow_mismatches_total{{{_OF}}}[24h]))", "")],
                    kind="stat",
                    width=4,
                    height=5,
                    steps=BAD_IF_ANY,
                ),
                Panel(
                    "Comparison works",
                    "Whether planted differences are found in time.",
                    [(f"min by (collection) (shadow_comparison_working{{{_OF}}})", "{{collection}}")],
                    kind="stat",
                    width=4,
                    height=5,
                    steps=GOOD_IS_HIGH,
                    words={"0": "no", "1": "yes"},
                ),
                Panel(
                    "Oldest intent",
                    "How long the oldest write under way has waited for the secondary.",
                    [("max(shadow_journal_oldest_intent_seconds)", "")],
                    kind="stat",
                    unit="s",
                    width=4,
                    height=5,
                    steps=(("green", None), ("red", 60)),
                ),
                Panel(
                    "Secondary",
                    "Whether each store, as a secondary, answers.",
                    [("min by (store) (shadow_secondary_up)", "{{store}}")],
                    kind="stat",
                    width=4,
                    height=5,
                    steps=GOOD_IS_HIGH,
                    words={"0": "down", "1": "up"},
                ),
                Panel(
                    "Comparisons by verdict",
                    "Only match and excused say that both stores agree.",
                    [(_rate("shadow_comparisons_total", "verdict"), "{{verdict}}")],
                    unit="cps",
                ),
                Panel(
                    "Writes by verdict",
                    "Whether the write came to the same on the secondary, made from the same version.",
                    [(_rate("shadow_write_comparisons_total", "verdict"), "{{verdict}}")],
                    unit="wps",
                ),
                Panel(
                    "Operations",
                    "What the stores have answered, in their roles.",
                    [
                        (
                            f"{_rate('shadow_operations_total', 'store, role, outcome')} > 0",
                            "{{role}} {{store}} {{outcome}}",
                        )
                    ],
                    unit="ops",
                ),
            ],
        ),
        (
            "shadow itself",
            [
                Panel(
                    "Internal failures",
                    "What failed inside shadow and was kept from the application.",
                    [("sum by (part) (rate(shadow_internal_failures_total[$__rate_interval])) > 0", "{{part}}")],
                    unit="ops",
                    width=8,
                    height=7,
                ),
                Panel(
                    "Background tasks that are down",
                    "Long-lived tasks and threads that have failed and have not worked since.",
                    [("1 - min by (task) (shadow_background_up)", "{{task}}")],
                    width=8,
                    height=7,
                ),
                Panel(
                    "Failures of background tasks",
                    "How often each of them has failed.",
                    [("sum by (task) (increase(shadow_background_failures_total[$__rate_interval]))", "{{task}}")],
                    width=8,
                    height=7,
                ),
                Panel(
                    "Configuration reloads",
                    "How often the file was read again, and refused.",
                    [("sum by (result) (increase(shadow_config_reloads_total[$__rate_interval]))", "{{result}}")],
                    width=8,
                    height=7,
                ),
                Panel(
                    "Build",
                    "The versions that run.",
                    [("count by (version, python, metrics) (shadow_build_info)", "")],
                    kind="table",
                    width=8,
                    height=7,
                ),
            ],
        ),
    ],
)

DIVERGENCE: Final = Board(
    "divergence",
    "divergence",
    "Where and in what way the stores differ, beside what the comparison itself gets wrong.",
    [
        (
            "Rates, with their denominators",
            [
                Panel(
                    "Mismatch rate by collection",
                    "Confirmed mismatches among the comparisons that came to a verdict.",
                    [
                        (
                            f'sum by (collection) (rate(shadow_comparisons_total{{{_OF},verdict="mismatch"}}'
                            f"[$__rate_interval])) / ({_DECISIONS} > 0)",
                            "{{collection}}",
                        )
                    ],
                    unit="percentunit",
                    width=8,
                ),
                Panel(
                    "Noise floor",
                    "The same comparison of the primary with itself: a rate that is not above this says nothing.",
                    [
                        (
                            f"{_rate('shadow_noise_comparisons_total', 'collection', _NOISY)}"
                            f" / ({_rate('shadow_noise_comparisons_total', 'collection')} > 0)",
                            "{{collection}}",
                        )
                    ],
                    unit="percentunit",
                    width=8,
                ),
                Panel(
                    "Comparisons with a verdict",
                    "The denominator.",
                    [(_DECISIONS, "{{collection}}"), (_WRITE_DECISIONS, "{{collection}}, writes")],
                    unit="cps",
                    width=8,
                ),
            ],
        ),
        (
            "What differs",
            [
                Panel(
                    "Mismatches by kind",
                    "Confirmed mismatches by collection and kind.",
                    [(f"{_rate('shadow_mismatches_total', 'collection, kind')} > 0", "{{collection}} {{kind}}")],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "Mismatches by verb",
                    "Comparisons that came to a mismatch, of reads and of writes, by collection and verb.",
                    [
                        (f"{_rate(metric, 'collection, verb', _MISMATCHED)} > 0", "{{collection}} {{verb}}")
                        for metric in ("shadow_comparisons_total", "shadow_write_comparisons_total")
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "Mismatches by path",
                    "Where most confirmed mismatches were since the start; a path without documents is a whole one.",
                    [(f"topk(20, sum by (collection, kind, path) (shadow_mismatches_by_path{{{_OF}}}))", "")],
                    kind="table",
                    width=8,
                ),
                Panel(
                    "Not yet, or not, decided",
                    "Transient and lagging came right by themselves; incomparable and shed were never decided.",
                    [
                        (
                            _rate(
                                "shadow_comparisons_total",
                                "collection, verdict",
                                f'{_OF},verdict=~"transient|lagging|incomparable|shed"',
                            ),
                            "{{collection}} {{verdict}}",
                        )
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "Incomparable, by reason",
                    "What a comparison could not decide, and why: MongoDB leaves it open, an answer was cut, or only "
                    "MongoDB can do it (by operator); and, with DynamoDB as primary, what is refused for that.",
                    [
                        (
                            _rate("shadow_incomparable_total", "collection, reason") + " > 0",
                            "{{collection}} {{reason}}",
                        ),
                        (
                            _rate("shadow_not_portable_total", "collection, operator") + " > 0",
                            "{{collection}} only MongoDB: {{operator}}",
                        ),
                        (
                            _rate("shadow_refused_calls_total", "collection, operator") + " > 0",
                            "{{collection}} refused: {{operator}}",
                        ),
                    ],
                    unit="cps",
                    width=8,
                ),
                Panel(
                    "Shed reads",
                    "Shadow reads that were not done or not finished, by reason.",
                    [(_rate("shadow_shed_total", "reason"), "{{reason}}")],
                    unit="cps",
                    width=8,
                ),
            ],
        ),
        (
            "Excuses, planted differences, other writers",
            [
                Panel(
                    "Excused differences",
                    "By named rule: an excuse that grows hides something.",
                    [(_rate("shadow_excused_total", "collection, rule"), "{{collection}} {{rule}}")],
                    unit="cps",
                    width=6,
                ),
                Panel(
                    "Planted differences",
                    "Given to the comparison, and found by it: the lines are one line if it works.",
                    [
                        (_rate("shadow_canary_injected_total", "collection"), "{{collection}} injected"),
                        (_rate("shadow_canary_found_total", "collection"), "{{collection}} found"),
                    ],
                    unit="cps",
                    width=6,
                ),
                Panel(
                    "Since one was found",
                    "How long ago a planted difference was last found.",
                    [
                        (
                            f"time() - max by (collection) (shadow_canary_last_found_timestamp_seconds{{{_OF}}} > 0)",
                            "{{collection}}",
                        )
                    ],
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Writes past shadow",
                    "By collection and kind, as shadow reads came upon them.",
                    [
                        (
                            f"{_rate('shadow_out_of_band_writes_total', 'collection, kind')} > 0",
                            "{{collection}} {{kind}}",
                        )
                    ],
                    unit="wps",
                    width=6,
                ),
                Panel(
                    "Out-of-band writes that are relayed",
                    "By collection and kind, as the stream of the primary shows them.",
                    [
                        (
                            f"{_rate('shadow_relayed_writes_total', 'collection, kind')} > 0",
                            "{{collection}} {{kind}}",
                        )
                    ],
                    unit="wps",
                    width=6,
                ),
                Panel(
                    "Relay behind",
                    "How far the relay of such writes is behind; rises where no process relays.",
                    [("max by (store) (shadow_relay_lag_seconds)", "{{store}}")],
                    unit="s",
                    width=6,
                ),
            ],
        ),
    ],
)

LATENCY: Final = Board(
    "latency",
    "latency",
    "How fast each store answers, and what shadowing costs the application.",
    [
        (
            "The stores",
            [
                Panel(
                    "Store against store, 95th percentile",
                    "Of each collection: what the application gets from the primary, and the same operations on the "
                    "secondary. Key reads that are asked for together count with the time of their request.",
                    [
                        (
                            _quantile(0.95, "shadow_operation_seconds", "collection, family, store, role", _OF),
                            "{{collection}}: {{family}}, {{role}} {{store}}",
                        )
                    ],
                    unit="s",
                    width=12,
                ),
                Panel(
                    "The secondary's 95th percentile, as a multiple of the primary's",
                    "Above 1 the store that follows is the slower one. The gate `fast enough` measures reads in pairs, "
                    "so it can say something else.",
                    [
                        (
                            f"{_p95('secondary')} / {_p95('primary')}",
                            "{{collection}}: {{family}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    "Median by store",
                    "Of all operations.",
                    [(_quantile(0.5, "shadow_operation_seconds", "store", _OF), "{{store}}")],
                    unit="s",
                ),
                Panel(
                    "99th percentile by store",
                    "Of all operations.",
                    [(_quantile(0.99, "shadow_operation_seconds", "store", _OF), "{{store}}")],
                    unit="s",
                ),
                Panel(
                    "Calls that nobody waits for any more",
                    "Their caller's time was over, or it was cancelled; they end by the client's own time limits.",
                    [("sum by (store) (rate(shadow_calls_abandoned_total[$__rate_interval]))", "{{store}}")],
                    unit="ops",
                ),
                Panel(
                    "Clients that answered nothing any more",
                    "Not even a ping with a time limit of its own. Those that shadow made were replaced.",
                    [("sum by (store) (increase(shadow_clients_stuck_total[$__rate_interval]))", "{{store}}")],
                ),
            ],
        ),
        (
            "The cost of shadowing",
            [
                Panel(
                    "Reads as the application sees them, median",
                    "left_out is a random slice of reads that were not shadowed: the distance is the cost.",
                    [(_quantile(0.5, "shadow_read_seconds", "slice"), "{{slice}}")],
                    unit="s",
                ),
                Panel(
                    "The same, 99th percentile",
                    "left_out is small, so its percentile moves more.",
                    [(_quantile(0.99, "shadow_read_seconds", "slice"), "{{slice}}")],
                    unit="s",
                ),
                Panel(
                    "Reads measured",
                    "How many reads each line rests on.",
                    [("sum by (slice) (rate(shadow_read_seconds_count[$__rate_interval]))", "{{slice}}")],
                    unit="ops",
                ),
                Panel(
                    "Reads that the secondary answers a share of",
                    "Where reads is set: the store that answered, and why.",
                    [(_rate("shadow_routed_reads_total", "store, reason"), "{{store}} {{reason}}")],
                    unit="ops",
                ),
                Panel(
                    "Operations by store and role",
                    "How many operations the latencies rest on.",
                    [(_rate("shadow_operations_total", "store, role"), "{{role}} {{store}}")],
                    unit="ops",
                ),
            ],
        ),
    ],
)

JOURNAL: Final = Board(
    "journal",
    "journal and lane",
    "What is under way to the secondary, what was left for later, and what was repaired.",
    [
        (
            "Under way",
            [
                Panel(
                    "Open intents",
                    "Writes that the secondary is not known to have.",
                    [(f"max by (collection) (shadow_journal_open_intents{{{_OF}}})", "{{collection}}")],
                    width=8,
                ),
                Panel(
                    "Age of the oldest",
                    "It rises by a second a second if nothing moves.",
                    [("max(shadow_journal_oldest_intent_seconds)", "oldest")],
                    unit="s",
                    width=8,
                ),
                Panel(
                    "Lane",
                    "Work off the application's path, beside what the lane can hold.",
                    [("sum(shadow_queue_depth)", "depth"), ("sum(shadow_queue_capacity)", "capacity")],
                    width=8,
                ),
            ],
        ),
        (
            "Left for later, and repaired",
            [
                Panel(
                    "Deferred writes",
                    "Writes that were left to their intent, by reason.",
                    [(_rate("shadow_deferred_writes_total", "reason"), "{{reason}}")],
                    unit="wps",
                    width=8,
                ),
                Panel(
                    "Heals",
                    "By what they found or did.",
                    [(_rate("shadow_heals_total", "result"), "{{result}}")],
                    unit="ops",
                    width=8,
                ),
                Panel(
                    "Writes without an intent",
                    "Made while the journal could not be written (journal.on_failure).",
                    [
                        (
                            f"{_rate('shadow_unjournaled_writes_total', 'collection, result')} > 0",
                            "{{collection}} {{result}}",
                        )
                    ],
                    unit="wps",
                    width=8,
                ),
                Panel(
                    "Failures of the secondary",
                    "Its answers that were refusals, and requests without an answer.",
                    [
                        (
                            f"{_rate('shadow_operations_total', 'store, outcome', _FAILED)} > 0",
                            "{{store}} {{outcome}}",
                        )
                    ],
                    unit="ops",
                ),
                Panel(
                    "Damaged journals",
                    "Files of which not all could be read again.",
                    [("sum(increase(shadow_journal_damaged_total[24h]))", "in a day")],
                ),
            ],
        ),
    ],
)

DYNAMO: Final = Board(
    "dynamo",
    "DynamoDB capacity and cost",
    "What is consumed, by what, and what it would cost on demand.",
    [
        (
            "Capacity",
            [
                Panel(
                    "Units by table and index",
                    "Capacity units a second; an empty index is the table itself.",
                    [
                        (
                            "sum by (table, index) (rate(shadow_dynamo_capacity_units_total[$__rate_interval])) > 0",
                            "{{table}} {{index}}",
                        )
                    ],
                ),
                Panel(
                    "Units by call",
                    "Capacity units a second by call of the API.",
                    [("sum by (verb) (rate(shadow_dynamo_capacity_units_total[$__rate_interval])) > 0", "{{verb}}")],
                ),
                Panel(
                    "Throttled requests",
                    "Requests that were told to come again, repeated ones too.",
                    [("sum(rate(shadow_dynamo_throttled_requests_total[$__rate_interval]))", "throttled")],
                    unit="reqps",
                ),
                Panel(
                    "Cost of a month at this rate",
                    "On demand, at the prices given above, in their currency; storage is not in it.",
                    [
                        (
                            f"sum(rate(shadow_dynamo_capacity_units_total{{{_READS}}}[$__rate_interval]))"
                            f" * {_MONTH} / 1000000 * $read_price",
                            "reads",
                        ),
                        (
                            f"sum(rate(shadow_dynamo_capacity_units_total{{{_WRITES}}}[$__rate_interval]))"
                            f" * {_MONTH} / 1000000 * $write_price",
                            "writes",
                        ),
                    ],
                ),
            ],
        ),
        (
            "Scans",
            [
                Panel(
                    "Scans",
                    "Queries that no key or index serves; `shadow status --indexes` names them.",
                    [("sum by (table) (rate(shadow_dynamo_scans_total[$__rate_interval])) > 0", "{{table}}")],
                    unit="ops",
                ),
                Panel(
                    "Items read and returned by scans",
                    "The distance is what an index would save.",
                    [
                        (
                            "sum by (table) (rate(shadow_dynamo_scan_items_read_total[$__rate_interval])) > 0",
                            "{{table}} read",
                        ),
                        (
                            "sum by (table) (rate(shadow_dynamo_scan_items_returned_total[$__rate_interval])) > 0",
                            "{{table}} returned",
                        ),
                    ],
                ),
            ],
        ),
    ],
    texts=[
        ("read_price", "Price of a million read units", "0.125"),
        ("write_price", "Price of a million write units", "0.625"),
    ],
)

FLIP: Final = Board(
    "flip",
    "flip",
    "Who answers, and what happens while that changes.",
    [
        (
            "Routes",
            [
                Panel(
                    "Primary and phase",
                    "How many processes have each. Two primaries of one collection must never be seen for longer than "
                    "a flip takes.",
                    [(f"sum by (collection, primary, phase) (shadow_route_info{{{_OF}}}) > 0", "")],
                    kind="table",
                ),
                Panel(
                    "The fleet",
                    "Processes of the application, whether the control store answers, and whether they disagree.",
                    [
                        ("max(shadow_fleet_members)", "processes"),
                        ("min(shadow_control_up)", "control store answers"),
                        (f"max by (collection) (shadow_fleet_disagreements{{{_OF}}})", "{{collection}}: disagree"),
                    ],
                    width=8,
                ),
                Panel(
                    "Processes by primary",
                    "A flip is a step; anything else is not one.",
                    [
                        (
                            f"sum by (collection, primary) (shadow_route_info{{{_OF}}}) > 0",
                            "{{collection}} on {{primary}}",
                        )
                    ],
                ),
            ],
        ),
        (
            "Ramps of reads and watched flips",
            [
                Panel(
                    "Reads that the secondary answers",
                    "The share of each collection's reads: a fixed one, or that which its ramp has reached.",
                    [(f"max by (collection) (shadow_secondary_reads_share{{{_OF}}})", "{{collection}}")],
                    unit="percentunit",
                    width=12,
                ),
                Panel(
                    "Steps",
                    "A step back is a guard that broke: the receipt has its figures (shadow fleet receipts).",
                    [
                        (
                            "sum by (collection, direction) "
                            f"(increase(shadow_ramp_steps_total{{{_OF}}}[$__rate_interval]))",
                            "{{collection}} {{direction}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    "Watched flips",
                    "Windows that were opened and have ended, guards that have broken, and flips that were taken back.",
                    [
                        (
                            "sum by (collection, step) "
                            f"(increase(shadow_flip_watches_total{{{_OF}}}[$__rate_interval]))",
                            "{{collection}} {{step}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    "Hooks",
                    "Calls of commands and webhooks, by what they were called for and how they ended.",
                    [
                        (
                            "sum by (event, result) (increase(shadow_hooks_total[$__rate_interval]))",
                            "{{event}} {{result}}",
                        )
                    ],
                    width=12,
                ),
            ],
        ),
        (
            "The change",
            [
                Panel(
                    "Writes held",
                    "For how long the last flip held the writes of each collection.",
                    [(f"max by (collection) (shadow_flip_held_seconds{{{_OF}}})", "{{collection}}")],
                    unit="s",
                    width=8,
                ),
                Panel(
                    "Flips",
                    "Begun, done, refused because the secondary was not level.",
                    [
                        (
                            f"sum by (collection, result) (increase(shadow_flips_total{{{_OF}}}[$__rate_interval]))",
                            "{{collection}} {{result}}",
                        )
                    ],
                    width=8,
                ),
                Panel(
                    "Answers of the primary",
                    "By store: the lines change places in a flip, and nothing else should happen to them.",
                    [
                        (
                            _rate("shadow_operations_total", "store, outcome", f'{_OF},role="primary"') + " > 0",
                            "{{store}} {{outcome}}",
                        )
                    ],
                    unit="ops",
                    width=8,
                ),
                Panel(
                    "Verdicts of the other direction",
                    "After a flip the old primary is the secondary: it is compared just the same.",
                    [(_rate("shadow_comparisons_total", "collection, verdict") + " > 0", "{{collection}} {{verdict}}")],
                    unit="cps",
                    width=8,
                ),
            ],
        ),
    ],
)

BOARDS: Final = (OVERVIEW, DIVERGENCE, LATENCY, JOURNAL, DYNAMO, FLIP)


def boards() -> dict[str, str]:
    """File name to the text of each board."""
    return {f"{board.name}.json": json.dumps(made(board), indent=2) + "\n" for board in BOARDS}


if __name__ == "__main__":
    for file, text in boards().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
