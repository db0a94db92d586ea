"""What the admin router does for a Shadow: dry runs do nothing, values show only where allowed, all is logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from shadow.compare.diff import Hasher
from shadow.config import AdminSettings, CollectionSettings, Settings, parse
from shadow.fleet.health_gates import Gate, Readiness
from shadow.fleet.status import CollectionRoute, ProcessStatus
from shadow.model.operation import Verb
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Difference, Healing, Kind, Mismatch
from shadow.model.version import ABSENT, Image, Key, Version
from shadow.observe.findings import Findings
from shadow.observe.findings_file import SharedFindings
from shadow.observe.log_lines import LogLines
from shadow.observe.metrics import Metrics
from shadow.observe.pulse import KEPT, PeriodicTasks, Sample, Samples
from shadow.observe.report import Report
from shadow.web.desk import AdminService, Refused
from shadow.web.plot import plot
from tests.support.cases import each_of

HASHER: Final = Hasher(b"secret")
LEFT: Final = {"_id": 1, "name": "hunter2", "address": {"street": "Elm"}, "items": [{"price": 1}]}
RIGHT: Final = {"_id": 1, "name": "hunter3", "address": {"street": "Oak"}, "items": [{"price": 2}]}


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info


class Operated:
    """A Shadow with one document that differs; it keeps what was done."""

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self.settings = Settings(
            collections={"users": CollectionSettings(reveal_fields=allowed)},
            admin=AdminSettings(token="a-token-of-some-length"),
        )
        self.log = Log()
        findings = Findings(HASHER)
        self.shared_findings = SharedFindings(findings, None, lambda error: None)
        lines = LogLines(findings, HASHER, logger=self.log)  # type: ignore[arg-type]
        self.report = Report(Metrics(["users"]), findings, lines, hasher=HASHER)
        self.pulse = PeriodicTasks(self.report.metrics, self.shared_findings)
        self.pair = Image(Version("b", 1), LEFT), Image(Version("b", 1), RIGHT)
        self.phase = Phase.SHADOW
        self.healed: list[Key] = []
        self.flipped: list[tuple[str, StoreName, str]] = []
        self.flips = True
        differences = (Difference(Kind.VALUE, "name", "string", "string", "aa", "bb"),)
        self.id = findings.add(Mismatch("users", Verb.FIND, Kind.VALUE, 1, differences))
        self.whole = findings.add(Mismatch("users", Verb.FIND, Kind.ORDER, None, (Difference(Kind.ORDER, "$order"),)))

    async def health(self) -> ProcessStatus:
        return ProcessStatus()

    async def ready(self) -> tuple[bool, dict[str, str]]:
        return True, {}

    def metrics(self) -> tuple[bytes, str]:
        return b"", ""

    def routes(self) -> dict[str, Route]:
        return {"users": Route(StoreName.MONGO, self.phase)}

    async def heal(self, collection: str, key: Key) -> Healing:
        self.healed.append(key)
        return Healing.COPIED

    async def flip(self, collection: str, to: StoreName, reason: str) -> dict[str, Any]:
        self.flipped.append((collection, to, reason))
        return {"done": self.flips, "said": "", "held": 0.01}

    async def images(self, collection: str, key: Key) -> tuple[Image, Image]:
        return self.pair

    def events(self) -> list[str]:
        return [event for event, _ in self.log.lines]


async def test_a_dry_run_says_what_would_be_done_and_does_nothing() -> None:
    operated = Operated()
    desk = AdminService(operated)
    assert (await desk.heal([operated.id], dry_run=True))["results"][0]["result"] == "copied"
    operated.pair = Image(ABSENT), operated.pair[1]
    assert (await desk.heal([operated.id], dry_run=True))["results"][0]["result"] == "tombstoned"
    operated.pair = operated.pair[1], operated.pair[1]
    assert (await desk.heal([operated.id], dry_run=True))["results"][0]["result"] == "equal"
    operated.phase = Phase.OFF
    assert (await desk.heal([operated.id], dry_run=True))["results"][0]["result"] == "failed: NotFollowed"
    assert operated.healed == []
    assert operated.events() == []


async def test_a_finding_of_a_collection_that_is_not_configured_any_more_is_not_healed() -> None:
    operated = Operated()
    missing = (Difference(Kind.MISSING, "_id"),)
    found = operated.shared_findings.own.add(Mismatch("gone", Verb.FIND, Kind.MISSING, 1, missing))
    for dry_run in (True, False):
        said = await AdminService(operated).heal([found], dry_run=dry_run)
        assert [each["result"] for each in said["results"]] == ["failed: NotFollowed"]
    with pytest.raises(Refused, match="no longer configured"):
        await AdminService(operated).reveal(found, "looking")
    assert operated.healed == []


async def test_a_heal_is_done_and_logged_and_one_that_cannot_be_says_why() -> None:
    operated = Operated()
    said = await AdminService(operated).heal([operated.id, operated.whole, "gone"], dry_run=False)
    assert [each["result"] for each in said["results"]] == ["copied", "unknown_finding", "unknown_finding"]
    assert operated.healed == [1]
    ((event, fields),) = operated.log.lines
    assert (event, fields["finding"], fields["result"]) == ("admin.healed", operated.id, "copied")


async def test_an_error_in_a_heal_is_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    operated = Operated()

    async def broken(collection: str, key: Key) -> Healing:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(operated, "heal", broken)
    said = await AdminService(operated).heal([operated.id], dry_run=False)
    assert said["results"][0]["result"] == "failed: RuntimeError"


@pytest.mark.parametrize("count", [0, 101])
async def test_heals_at_once_are_bounded(count: int) -> None:
    with pytest.raises(Refused):
        await AdminService(Operated()).heal(["x"] * count, dry_run=True)


@each_of(
    ("allowed", "paths"),
    [
        ((), []),
        (("name",), ["name"]),
        (("address",), ["address.street"]),
        (("items.0.price",), ["items.0.price"]),
        (("items.7.price",), ["items.0.price"]),
        (("nam", "address.str"), []),
    ],
)
async def test_only_values_that_the_collection_allows_are_revealed_and_that_is_logged(
    allowed: tuple[str, ...], paths: list[str]
) -> None:
    operated = Operated(allowed)
    said = await AdminService(operated).reveal(operated.id, "ticket 7")
    assert [each["path"] for each in said["values"]] == paths
    assert said["hidden"] == 3 - len(paths)
    assert ("hunter2" in str(said)) == ("name" in allowed)
    ((event, fields),) = operated.log.lines
    assert (event, fields["reason"], fields["values"]) == ("admin.revealed", "ticket 7", len(paths))
    assert "hunter" not in str(fields)


async def test_nothing_is_revealed_without_a_reason_or_of_a_whole_answer() -> None:
    operated = Operated(("name",))
    for id, reason in ((operated.id, " "), (operated.whole, "because"), ("gone", "because")):
        with pytest.raises(Refused):
            await AdminService(operated).reveal(id, reason)


def test_rates_are_those_between_samples_and_are_bounded() -> None:
    samples = Samples()
    for i in range(2 * KEPT):
        samples.add(Sample(5.0 * i, {"match": 10 * i}))
    rates = samples.rates("match", points=100)
    assert len(rates) <= 100
    assert {rate for _, rate in rates} == {2.0}
    assert samples.rates("shed")[0][1] == 0.0
    samples.add(Sample(1e6, {"match": 0}))
    assert samples.rates("match") == [], "sums that went back are another series"


async def test_a_beat_takes_a_sample_now_and_then() -> None:
    operated = Operated()
    for _ in range(3):
        await operated.pulse.beat()
    assert operated.pulse.samples.rates("match") == []
    assert AdminService(operated).rates().keys() >= {"match", "mismatch"}


def test_a_plot_says_its_figures_and_stays_inside() -> None:
    drawn = plot("match", [(0.0, 1.0), (5.0, 40.0), (10.0, 0.0)])
    assert "match: 0/s now, at most 40/s" in drawn
    assert "160.0,18.0" in drawn
    assert "not enough samples" in plot("match", [])


def status_of(*, ok: bool) -> ProcessStatus:
    gates = (Gate("users", "findings", ok, ""), Gate("other", "x", ok=False, said=""))
    route = CollectionRoute(StoreName.MONGO, Phase.SHADOW, "background", 1.0)
    return ProcessStatus({"users": route}, readiness=Readiness(gates))


async def flip(folder: Path, operated: Operated, *, ok: bool = True, reason: str = "ticket 7") -> str:
    """Asks for a flip; the file afterwards."""

    async def health() -> ProcessStatus:
        return status_of(ok=ok)

    operated.health = health  # type: ignore[method-assign]
    file = folder / "shadow.yaml"
    file.write_text("collections:\n  users: {phase: shadow}\n", encoding="utf-8")
    try:
        await AdminService(operated, file).flip("users", "dynamo", reason)
    except Refused:
        operated.log.lines.append(("refused", {}))
    return file.read_text("utf-8")


async def test_a_flip_with_every_gate_open_is_written_into_the_file_and_logged(tmp_path: Path) -> None:
    operated = Operated()
    settings = parse(await flip(tmp_path, operated), {})
    assert settings.route("users").primary is StoreName.DYNAMO
    assert operated.events() == ["admin.flipped"]
    assert operated.flipped == [("users", StoreName.DYNAMO, "ticket 7")]


async def test_a_flip_that_could_not_be_made_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    operated = Operated()
    operated.flips = False
    assert "dynamo" not in await flip(tmp_path, operated)


@pytest.mark.parametrize("how", [{"ok": False}, {"reason": " "}], ids=str)
async def test_a_flip_past_a_closed_gate_or_without_a_reason_changes_nothing(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    operated = Operated()
    assert "dynamo" not in await flip(tmp_path, operated, **how)
    assert operated.events() == ["refused"]
    assert operated.flipped == []


async def test_a_flip_needs_no_file(tmp_path: Path) -> None:
    operated = Operated()

    async def health() -> ProcessStatus:
        return status_of(ok=True)

    operated.health = health  # type: ignore[method-assign]
    said = await AdminService(operated).flip("users", "dynamo", "ticket 7")
    assert (said["done"], said["file"]) == (True, "")
