"""Kills and faults on real servers under load: nothing lost, nothing resurrected, nothing applied twice, stores equal.

A share of `chaos` in every run; `SHADOW_LONG=1`: thirty minutes. The seed is printed; `SHADOW_SEED` gives one.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import secrets
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from shadow.model.phase import StoreName
from tests.faults.chaos import FLIPS, Chaos, Plan
from tests.faults.deployments import CHOICES, Deployment
from tests.support import services
from tests.support.hammer import PARTS
from tests.support.history import History, Op
from tests.support.trail import Trail, notes
from tests.support.worker import Worker

LONG = os.environ.get("SHADOW_LONG") == "1"
SECONDS = 900.0 if LONG else 7.0
"""For each run."""
PROCESSES = 8 if LONG else 3
AWAY = 60.0 if LONG else 3.0


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.drawn_over("named", reason="what is named is drawn as the rest of a deployment is")
@pytest.mark.parametrize(
    "named",
    [
        {"primary": "mongo", "topology": "replicas", "flips": "some"},
        {"primary": "mongo", "flips": "some"},
        {"primary": "dynamo", "flips": "some"},
    ],
    ids=["mongo-replicas", "mongo", "dynamo"],
)
async def test_whatever_is_killed_or_fails_the_stores_end_equal_and_hold_what_was_acknowledged(
    named: dict[str, str], fresh_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On what it runs is drawn by the seed, but for what is named."""
    seed = int(os.environ.get("SHADOW_SEED") or secrets.randbelow(1_000_000))
    deployment = Deployment.drawn(seed, **named)
    print(f"python -m tests.faults.chaos --seed {seed} --seconds {SECONDS:g} {deployment}")
    monkeypatch.chdir(tmp_path)  # a journal on a server leaves its files beside it here
    with ExitStack() as stack:
        servers = deployment.servers(lambda make: stack.enter_context(services.start(make)))
        site = deployment.site(servers, fresh_name, str(tmp_path / "journal" / "j.db"))
        figures = await Chaos(Plan(seed, SECONDS, deployment, PROCESSES, away=AWAY), site, servers, tmp_path).run()
    print(json.dumps(vars(figures), indent=1))
    assert figures.wrong == []
    assert figures.total("acked") > 0
    assert figures.kills.total() > 0
    assert figures.troubles.total() > 0
    assert figures.operations["transfer"]["acked"] > 0
    assert all(figures.flips[f"to {store}"] >= FLIPS for store in StoreName), "there and back"
    assert any(each.startswith("clock: set by") for each in figures.troubles) == (deployment.clocks == "stepped")


def test_each_part_of_a_deployment_is_drawn_by_the_seed_and_by_itself() -> None:
    drawn = [Deployment.drawn(seed) for seed in range(400)]
    for name, values in CHOICES.items():
        assert {getattr(each, name) for each in drawn} >= set(values), name
    for seed in range(40):
        plain, named = Deployment.drawn(seed), Deployment.drawn(seed, driver="motor")
        assert named == plain.but(driver="motor")
        assert Deployment.drawn(seed) == plain


# --- the proof itself: it sees what is wrong ------------------------------------------------------------------------


def op(tag: str, kind: str, key: str, start: float, end: float | None, effect: int = 1, refused: bool = False) -> Op:
    """Without an `end` the outcome is unknown."""
    if end is None:
        return Op(tag, kind, key, start)
    return Op(tag, kind, key, start, end, "refused" if refused else "acked", effect)


COUNT = [op("a", "inc", "c", 0, 1), op("b", "inc", "c", 0, None), op("x", "inc", "c", 1, 2, refused=True)]
LIST = [op("a", "push", "l", 0, 1), op("b", "push", "l", 0, None), op("x", "push", "l", 1, 2, refused=True)]
BATCH = [op("a", "many", "a", 0, 1), op("b", "many", "b", 0, None), op("x", "many", "x", 0, 1, refused=True)]
CHURN = [
    op("one", "insert", "k", 0, 1),
    op("gone", "delete", "k", 2, 3),
    op("two", "insert", "k", 4, 5),
    op("no", "insert", "k", 6, 7, refused=True),
    op("set1", "set", "k", 8, 9),
    op("set2", "set", "k", 10, 11),
]
TWO = {"by": "two", "set": "set2"}


@pytest.mark.parametrize("n", [1, 2])
def test_a_counter_may_hold_what_was_acknowledged_and_what_is_unknown(n: int) -> None:
    assert History(COUNT).faults({"c": {"n": n}}) == []


@pytest.mark.parametrize(("n", "what"), [(0, "lost"), (3, "twice")])
def test_a_counter_that_lost_an_increment_or_has_one_twice_is_seen(n: int, what: str) -> None:
    (fault,) = History(COUNT).faults({"c": {"n": n}})
    assert what in fault


@pytest.mark.parametrize(
    ("tags", "what"), [([], "lost"), (["a", "a"], "2 times"), (["a", "x"], "refused"), (["a", "z"], "nobody")]
)
def test_a_list_with_a_push_lost_doubled_refused_or_invented_is_seen(tags: list[str], what: str) -> None:
    assert History(LIST).faults({"l": {"tags": ["a", "b"]}}) == []
    (fault,) = History(LIST).faults({"l": {"tags": tags}})
    assert what in fault


def test_a_batch_is_there_if_acknowledged_and_not_if_refused() -> None:
    there: dict[str, dict[str, object]] = {"by": {}}
    assert History(BATCH).faults({"a": there, "b": there}) == []
    assert len(History(BATCH).faults({"b": there})) == 1
    assert len(History(BATCH).faults({"a": there, "x": there})) == 1


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (None, "lost"),
        ({"by": "one", "set": "set2"}, "resurrected"),
        ({"by": "no", "set": "set2"}, "refused"),
        ({"by": "nobody"}, "nobody wrote"),
        ({"by": "two", "set": "set1"}, "resurrected"),
        ({"by": "two"}, "lost: set1"),
        ({"by": "two", "set": "never"}, "nobody set"),
    ],
)
def test_a_document_that_no_order_of_the_operations_explains_is_seen(
    document: dict[str, object] | None, what: str
) -> None:
    assert History(CHURN).faults({"k": TWO}) == []
    faults = History(CHURN).faults({} if document is None else {"k": document})
    assert any(what in fault for fault in faults)


def test_what_an_unknown_outcome_may_have_done_is_no_fault() -> None:
    late = op("late", "delete", "k", 3.5, None)
    assert History([*CHURN, late]).faults({}) == []
    assert History([*CHURN, op("three", "replace", "k", 3.5, None)]).faults({"k": {"by": "three"}}) == []


def transfer(tag: str, end: float | None, refused: bool = False) -> list[Op]:
    """From the account `a` to the account `b`."""
    parts = zip(PARTS, ("a", "b", f"{tag}.paid"), strict=True)
    return [op(f"{tag}.{part}", "transfer", key, 0, end, refused=refused) for part, key in parts]


def accounts(*moved: str, balance: int = 0) -> dict[str, dict[str, object]]:
    """What the documents hold after these parts of transfers; `balance`: what there is too much on `b`."""
    found: dict[str, dict[str, object]] = {}
    for key, part, sign in (("a", "out", -1), ("b", "in", 1)):
        tags = [each for each in moved if each.endswith(part)]
        found[key] = {"moved": tags, "balance": sign * len(tags) + (balance if key == "b" else 0)}
    return found | {each: {"moved": [each], "balance": 0} for each in moved if each.endswith("paid")}


MOVED = [*transfer("sure", 1), *transfer("open", None), *transfer("not", 1, refused=True)]
SURE, OPEN, NOT = ([f"{tag}.{part}" for part in PARTS] for tag in ("sure", "open", "not"))


def test_a_transaction_without_an_answer_is_there_as_a_whole_or_not_at_all() -> None:
    assert History(MOVED).faults(accounts(*SURE)) == []
    assert History(MOVED).faults(accounts(*SURE, *OPEN)) == []


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (accounts(), "lost: sure.out"),
        (accounts(*SURE, *OPEN[:1]), "half of a transaction, open.out"),
        (accounts(*SURE, *OPEN[:2]), "half of a transaction, open.in, open.out"),
        (accounts(*SURE, *OPEN[2:]), "half of a transaction, open.paid"),
        (accounts(*SURE, *NOT), "refused, and there: not.in"),
        (accounts(*SURE, *SURE), "applied 2 times: sure.in"),
        (accounts(*SURE, balance=1), "2 on the account, and 1 by what was moved"),
        (accounts(*SURE, balance=1), "the accounts hold 1 together"),
    ],
)
def test_a_transaction_that_is_lost_halved_refused_or_doubled_is_seen(found: dict[str, Any], what: str) -> None:
    assert any(what in fault for fault in History(MOVED).faults(found)), History(MOVED).faults(found)


def test_a_document_that_nobody_wrote_is_seen() -> None:
    assert History(COUNT).faults({"c": {"n": 1}, "other": {}}) == ["other: nobody wrote it"]


# --- the processes: none dies without a word ------------------------------------------------------------------------

PARENT = os.getpid()
AWAY_FROM_HERE = """
import os
if os.getpid() != {parent}:
    raise ImportError("not to be imported there")
def nothing(): ...
"""


def full_disk() -> None:
    """From here on, no file can be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def fails_on_a_full_disk() -> None:
    full_disk()
    raise RuntimeError("told all the same")


def crashes_hard() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


WAYS = pytest.mark.parametrize("environment", [{}, {"SHADOW_NOTHING": "1"}], ids=["forked", "begun by itself"])


@WAYS
@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        (fails_on_a_full_disk, 1, ["RuntimeError: told all the same", "fails_on_a_full_disk"]),
        (crashes_hard, -signal.SIGSEGV, ["Segmentation fault", "crashes_hard"]),
    ],
)
def test_a_process_that_dies_has_said_why(
    target: Callable[[], None], code: int, words: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    worker = Worker(tmp_path / "said", target, environment=environment)
    worker.process.join(90)
    assert worker.process.exitcode == code
    assert all(each in worker.last_words() for each in words), worker.last_words()


@WAYS
def test_a_process_that_cannot_import_its_work_has_said_so(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_at_home.py").write_text(AWAY_FROM_HERE.format(parent=PARENT))
    monkeypatch.syspath_prepend(str(tmp_path))
    target = importlib.import_module("only_at_home").nothing
    worker = Worker(tmp_path / "said", target, environment=environment)
    worker.process.join(90)
    assert worker.process.exitcode == 1
    assert "ImportError: not to be imported there" in worker.last_words()


def test_notes_are_read_as_far_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "trail"
    trail = Trail(path)
    trail("start", "a", "inc", "c", 1)
    trail("end", "a", "acked", 1, 2)
    trail._memory[trail._at : trail._at + 5] = b"start"  # killed in the middle of a line
    history = History()
    history.read(path)
    assert [words[0] for words in notes(path)] == ["start", "end"]
    assert history.ops["a"].sure
