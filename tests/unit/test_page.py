"""The console's page: what it says of gates, and in what form."""

from __future__ import annotations

import datetime as dt
from typing import Any

from shadow.control.guard_record import Ramp, RampState, WatchState, WatchWindow
from shadow.fleet.ramp import described as described_ramp
from shadow.fleet.status import of_json
from shadow.fleet.watch_window import described as described_window
from shadow.model.guards import RampPlan, WatchPlan
from shadow.model.phase import StoreName
from shadow.web.page import HELP, live


def status(*gates: dict[str, Any]) -> dict[str, Any]:
    return {
        "verdict": {"gates": list(gates)},
        "collections": {},
        "totals": {},
        "journal": {"open": {}, "deferred": {}, "verify_since": {}, "oldest_seconds": 0.0},
        "lanes": {},
        "indexes": [],
    }


def shown(status: dict[str, Any]) -> str:
    found = {"findings": [], "groups": [], "summary": {"open": 0, "kept": 0, "seen": 0}}
    return live(of_json(status), found, {}, acts=False)


def gate(name: str, ok: bool, look_at: str = "") -> dict[str, Any]:
    return {"collection": "users", "name": name, "ok": ok, "said": "a figure", "look_at": look_at}


def test_closed_gates_are_seen_at_once_and_open_ones_behind_their_number() -> None:
    page = shown(status(gate("findings", False), gate("shed", True), gate("journal", True)))
    before, _, behind = page.partition('<details id="open-gates">')
    assert "2 of 3 gates are open" in behind
    assert "findings</td>" in before
    assert "findings</td>" not in behind.partition("</details>")[0]
    assert "shed</td>" not in before
    assert "shed</td>" in behind


def test_a_command_to_type_stands_by_itself_and_its_words_are_not_parted() -> None:
    look = "open findings in users: 3; shadow findings list --collection users"
    page = shown(status(gate("findings", False, look)))
    command = " ".join(
        f'<span class="word">{word}</span>' for word in ["shadow", "findings", "list", "--collection", "users"]
    )
    assert page.count(f"open findings in users: 3; <code>{command}</code>") == 2


def test_a_sentence_about_shadow_is_no_command_and_no_markup() -> None:
    page = shown(status(gate("writers", False, "users is written past shadow itself: find <the> writer")))
    assert "users is written past shadow itself: find &lt;the&gt; writer" in page
    assert "<code>shadow itself" not in page


def test_it_is_said_to_be_safe_only_where_it_is() -> None:
    assert "Not safe to flip" in shown(status(gate("findings", False)))
    assert "Not safe to flip" not in shown(status(gate("findings", True)))


def member(name: str, primary: str, *, tool: bool = False) -> dict[str, Any]:
    standing = {"users": {"primary": primary, "phase": "shadow", "file": "mongo"}}
    return {"name": name, "tool": tool, "standing": standing}


def test_processes_that_stand_apart_are_marked_and_a_tool_beside_them_is_not() -> None:
    apart = {"users": {"mongo, shadow": ["host pid 1"], "dynamo, shadow": ["host pid 2"]}}
    members = [member("host pid 1", "mongo"), member("host pid 2", "dynamo"), member("host pid 3", "mongo", tool=True)]
    page = shown({**status(), "fleet": {"state": "ok", "members": members, "disagreements": apart, "flip": None}})
    fleet = page.partition('id="fleet-title"')[2].partition("</section>")[0]
    assert fleet.count("mark bad") == 2
    assert fleet.count("mark good") == 1
    assert "host pid 3 (tool)" in fleet


def test_a_control_store_that_cannot_be_asked_is_said_to_be_so() -> None:
    page = shown({**status(), "fleet": {"control": "x", "state": "it did not <answer>"}})
    assert "does not answer: it did not &lt;answer&gt;" in page


def test_the_last_flip_says_what_became_of_it() -> None:
    flip = {"state": "aborted", "by": "somebody", "said": "not level"}
    page = shown({**status(), "fleet": {"state": "ok", "members": [], "disagreements": {}, "flip": flip}})
    assert "The last flip is aborted, by somebody: not level" in page


def fleet(**more: Any) -> dict[str, Any]:
    return {"state": "ok", "members": [], "disagreements": {}, "flip": None, **more}


def test_a_ramp_shows_its_share_its_next_step_with_the_time_and_what_it_waits_for() -> None:
    plan, now = RampPlan((0.01, 0.05), every=600.0), 1_000_000.0
    going = Ramp("users", StoreName.DYNAMO, 0.01, 3, held=540.0, since=now)
    stopped = Ramp("orders", StoreName.DYNAMO, 0.05, 4, RampState.STOPPED, waits="errors: 9 <failed>")
    page = shown({**status(), "fleet": fleet(ramps=[described_ramp(each, plan, now) for each in (going, stopped)])})
    table = page.partition("Ramps of reads</caption>")[2].partition("</table>")[0]
    next_at = dt.datetime.fromtimestamp(now + 60.0, dt.UTC).strftime("%H:%M")
    for wanted in ("users", "0.01", "0.05 at", next_at, "orders", "stopped", "errors: 9 &lt;failed&gt;"):
        assert wanted in table, wanted
    assert "Ramps of reads" not in shown({**status(), "fleet": fleet()})


def test_a_watch_window_shows_its_state_its_end_and_which_guard_says_what() -> None:
    plan = WatchPlan(600.0, take_back=False)
    refused = "9 of 609 calls (1.48%) are not supported, at most 1.00%: $where 9"
    open_ = WatchWindow("f", StoreName.DYNAMO, {"users": 3, "a.b": 5}, plan, figures={"refused": refused})
    over = WatchWindow(
        "g",
        StoreName.DYNAMO,
        {"c": 1},
        plan,
        WatchState.TAKEN_BACK,
        ended=1_000_000.0,
        reason=f"refused of c: {refused}",
    )
    page = shown({**status(), "fleet": fleet(watches=[described_window(each, 1.0) for each in (open_, over)])})
    table = page.partition("Watch windows of flips</caption>")[2].partition("</table>")[0]
    for wanted in (
        "users, a.b",
        "watching, only reported",
        f"refused: {refused}",
        "taken back",
        f"refused of c: {refused}",
    ):
        assert wanted in table, wanted
    assert "Watch windows" not in shown({**status(), "fleet": fleet()})


def test_who_relays_and_what_a_store_does_not_tell_is_on_the_page_and_nothing_without_a_relay() -> None:
    well = {"holder": "web-1 pid 7", "behind": 0.25, "fault": "", "collections": {"users": {"count": 3}}, "unread": {}}
    fault = {"holder": "", "behind": 9.0, "fault": "this <MongoDB> is no replica set", "collections": {}, "unread": {}}
    unread = {**well, "collections": {}, "unread": {"users": "the table has no stream: `shadow tables create`"}}
    for relay, wanted in (
        ({"mongo": well}, ["web-1 pid 7", "0.2 s", "users 3", "-</td>"]),
        ({"mongo": fault}, ["nobody", "this &lt;MongoDB&gt; is no replica set"]),
        ({"mongo": well, "dynamo": unread}, ["dynamo", "none yet", "users: the table has no stream"]),
    ):
        page = shown({**status(), "fleet": fleet(), "relay": relay})
        table = page.partition("Relay of out-of-band writes</caption>")[2].partition("</table>")[0]
        for each in wanted:
            assert each in table, each
    assert "Relay of out-of-band writes" not in shown({**status(), "fleet": fleet()})


def test_every_section_leads_to_the_manual_by_address_or_by_command() -> None:
    found = {"findings": [], "groups": [], "summary": {"open": 0, "kept": 0, "seen": 0}}
    with_address = live(of_json(status()), found, {}, acts=False, docs_url="https://d.example.com/{topic}.html?a=1&b=2")
    for topic, anchor in HELP.values():
        assert f'href="https://d.example.com/{topic}.html?a=1&amp;b=2#{anchor}"' in with_address
        assert f"<code>shadow docs {topic} {anchor}</code>" in shown(status())
    assert "shadow docs" not in with_address
    assert "href" not in shown(status())
