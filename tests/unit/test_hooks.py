"""Hooks: each call ends within its limit, nothing waits for one that must not, and no body has a document's value."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from typer.testing import CliRunner

from shadow.cli import app
from shadow.compare.diff import Hasher
from shadow.config import parse
from shadow.errors import ConfigurationError
from shadow.hooks.hooks import FIELDS, Hooks, body_of
from shadow.hooks.sending import Attempt, attempt, signature
from shadow.model.events import Event, MismatchConfirmed
from shadow.model.hooks import Hook, HookEvent
from shadow.model.operation import Verb
from shadow.model.verdict import Difference, Kind, Mismatch
from shadow.observe.findings import Findings
from shadow.observe.log_lines import LogLines
from shadow.observe.metrics import Metrics
from shadow.observe.report import Report
from tests.support.cases import each_of
from tests.support.processes import gone, until

EVERY = frozenset(HookEvent)
SECRET = "hunter2-hunter2-hunter2"


class Told:
    """A reporter that counts what became of each hook's calls."""

    def __init__(self) -> None:
        self.names: Counter[tuple[str, str]] = Counter()
        self.details: list[str] = []

    def publish(self, event: Event) -> None:
        name, fields = event.name, event.fields  # type: ignore[union-attr]
        self.names[str(name), fields["hook"]] += 1
        self.details.append(fields["detail"])


def command(text: str, **options: Any) -> Hook:
    return Hook("a command", EVERY, command=(sys.executable, "-c", text), **{"timeout": 20.0, **options})


@pytest.fixture
def server() -> Iterator[Any]:
    """An address that answers as `server.answer` says, and keeps what it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((dict(self.headers), body))
            made.answer(self)

        def log_message(self, *_: Any) -> None: ...

    made: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.handle_error = lambda *_: None  # a hook that was given up has closed its end
    made.got, made.answer = [], lambda handler: reply(handler, 200, b"")
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_address[1]}/hook?token=abc"
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def reply(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


# --- one attempt -------------------------------------------------------------------------------------------------


def test_a_command_gets_the_body_and_answers_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOW_MONGO_URL", "mongodb://user:password@host")
    kept = tmp_path / "got"
    text = f"import os, sys; open({str(kept)!r}, 'w').write(sys.stdin.read() + repr(dict(os.environ)))"
    assert attempt(command(text), "after_commit", "an id", b'{"a":1}').ok
    got = kept.read_text()
    assert got.startswith('{"a":1}')
    assert "after_commit" in got
    assert "an id" in got
    assert "password" not in got
    no = attempt(command("print(); print('a freeze\\x1b[2J'); raise SystemExit(3)"), "before_pause", "i", b"")
    assert (no.ok, no.answered) == (False, True)
    assert no.said == "a freeze?[2J"
    assert attempt(Hook("h", EVERY, command=("/no/such/program",)), "x", "i", b"") == Attempt(
        False, False, "FileNotFoundError"
    )


def test_a_command_that_hangs_ends_with_what_it_has_started(tmp_path: Path) -> None:
    """Given longer, on a busy machine, until it comes to start anything."""
    mark = tmp_path / "mark"
    for timeout in (0.2, 1.0, 5.0, 20.0):
        hook = Hook("h", EVERY, command=("/bin/sh", "-c", f"sleep 60 & echo $! > {mark}; sleep 60"), timeout=timeout)
        began = time.monotonic()
        found = attempt(hook, "x", "i", b"x" * 2**20)
        assert (found.ok, found.answered) == (False, False)
        assert time.monotonic() - began < timeout + 30
        if mark.exists() and (started := mark.read_text()):
            break
    until(lambda: gone(int(started)), 20)


def test_a_webhook_is_signed_and_says_what_it_is_called_for(server: Any) -> None:
    hook = Hook("w", EVERY, url=server.url, secret=SECRET, timeout=20.0)
    assert attempt(hook, "gate_closed", "an id", b'{"a":1}').ok
    ((headers, body),) = server.got
    assert body == b'{"a":1}'
    assert (headers["X-Shadow-Event"], headers["X-Shadow-Delivery"]) == ("gate_closed", "an id")
    at, digest = headers["X-Shadow-Signature"].split(",")
    expected = hmac.new(SECRET.encode(), at[2:].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert digest == f"v1={expected}"
    assert abs(int(at[2:]) - time.time()) < 60
    assert signature(SECRET, 5, body) != signature(SECRET, 6, body)
    server.got.clear()
    attempt(Hook("w", EVERY, url=server.url, timeout=20.0), "x", "i", b"")
    assert "X-Shadow-Signature" not in server.got[0][0]


@pytest.mark.parametrize(
    ("status", "ok", "answered"),
    [
        (204, True, True),
        (302, False, True),
        (403, False, True),
        (409, False, True),
        (429, False, False),
        (503, False, False),
    ],
)
def test_the_status_of_a_webhook_is_its_answer_and_nothing_is_redirected(
    status: int, ok: bool, answered: bool, server: Any
) -> None:
    server.answer = lambda handler: reply(handler, status, b"" if ok else b"not now\n", Location=server.url)
    found = attempt(Hook("w", EVERY, url=server.url, secret=SECRET, timeout=20.0), "before_pause", "i", b"{}")
    assert (found.ok, found.answered) == (ok, answered)
    assert ok or found.said == f"status {status}: not now"
    assert len(server.got) == 1


def test_a_webhook_that_drips_or_is_not_there_ends_within_its_limit(server: Any) -> None:
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.1)

    server.answer = drip
    began = time.monotonic()
    found = attempt(Hook("w", EVERY, url=server.url, timeout=0.5), "x", "i", b"")
    assert (found.ok, found.answered) == (False, False)
    assert time.monotonic() - began < 8
    gone = attempt(Hook("w", EVERY, url="http://127.0.0.1:9/", timeout=20.0), "x", "i", b"")
    assert (gone.ok, gone.answered) == (False, False)
    assert "127.0.0.1" not in gone.said


# --- all of them -------------------------------------------------------------------------------------------------


class Scripted:
    """Answers attempts in order; the last answer stays."""

    def __init__(self, *answers: Attempt) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, str, bytes]] = []

    def __call__(self, hook: Hook, event: str, id: str, body: bytes) -> Attempt:
        self.got.append((hook.name, id, body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


YES, NO, SILENT = Attempt(True, True), Attempt(False, True, "a freeze"), Attempt(False, False, "URLError")


def made(sent: Any, *hooks: Hook) -> tuple[Hooks, Told]:
    told = Told()
    return Hooks(hooks, told, sent=sent, first_pause=0.001), told


def test_what_gets_no_answer_is_repeated_with_one_id_and_an_answer_is_final() -> None:
    hook = Hook("w", EVERY, command=("x",), retries=3)
    for answers, attempts, end in (
        ([SILENT, SILENT, YES], 3, "hook.delivered"),
        ([SILENT], 4, "hook.failed"),
        ([NO], 1, "hook.failed"),
    ):
        sent = Scripted(*answers)
        hooks, told = made(sent, hook)
        hooks.send(HookEvent.AFTER_ABORT, {"said": "why"})
        assert hooks.finish(60)
        assert len(sent.got) == attempts
        assert len({id for _, id, _ in sent.got}) == 1
        assert told.names == {(end, "w"): 1}


def test_one_that_hangs_delays_nobody_and_its_queue_has_an_end() -> None:
    inside, go = threading.Event(), threading.Event()
    got: list[str] = []

    def sent(hook: Hook, event: str, id: str, body: bytes) -> Attempt:
        if hook.name == "hangs":
            inside.set()
            go.wait(60)
        got.append(hook.name)
        return YES

    hooks, told = made(sent, Hook("hangs", EVERY, command=("x",)), Hook("works", EVERY, command=("x",)))
    hooks.send(HookEvent.NEW_FINDING, {})
    assert inside.wait(60)
    for _ in range(150):
        hooks.send(HookEvent.NEW_FINDING, {})
    assert not hooks.finish(0.01)
    assert told.names["hook.dropped", "hangs"] == 50
    end = time.monotonic() + 60
    while got.count("works") < 100 and time.monotonic() < end:
        time.sleep(0.01)
    assert "hangs" not in got
    go.set()
    assert hooks.finish(60)
    assert got.count("hangs") == 101


def test_a_veto_is_an_answer_that_is_no_or_none_and_the_others_are_not_asked() -> None:
    ask, rest = Hook("asks", EVERY, command=("x",), veto=True), Hook("rest", EVERY, command=("x",))
    lenient = Hook("asks", EVERY, command=("x",), veto=True, unanswered=False)
    for hook, answer, said in (
        (ask, YES, ""),
        (ask, NO, "the hook asks has vetoed it: a freeze"),
        (ask, SILENT, "the hook asks has vetoed it: it did not answer (URLError)"),
        (lenient, NO, "the hook asks has vetoed it: a freeze"),
        (lenient, SILENT, ""),
        (rest, NO, ""),
    ):
        sent = Scripted(answer)
        hooks, told = made(sent, hook)
        assert hooks.ask({"kind": "flip"}) == said
        assert hooks.finish(60)
        assert len(sent.got) == 1
        assert bool(told.names["hook.vetoed", "asks"]) is bool(said)


def test_a_hook_is_called_for_its_own_events_and_as_the_configuration_says_now() -> None:
    sent = Scripted(YES)
    hooks, _ = made(sent, Hook("w", frozenset({HookEvent.AFTER_ABORT}), command=("x",)))
    hooks.send(HookEvent.AFTER_COMMIT, {})
    assert hooks.ask({}) == ""
    hooks.replace([Hook("v", frozenset({HookEvent.AFTER_COMMIT}), command=("x",))])
    hooks.send(HookEvent.AFTER_COMMIT, {})
    assert hooks.finish(60)
    assert [name for name, _, _ in sent.got] == ["v"]
    assert hooks.wanted(HookEvent.AFTER_COMMIT)
    assert not hooks.wanted(HookEvent.AFTER_ABORT)


# --- bodies ------------------------------------------------------------------------------------------------------


def test_a_body_has_the_fields_that_it_may_have_and_plain_values() -> None:
    odd = {name: {"a": [ObjectId(), b"hunter2", {"b": {"hunter2"}}], "c": 1.5} for name in FIELDS}
    found = json.loads(body_of(HookEvent.AFTER_COMMIT, "i", {**odd, "key": "hunter2", "document": {"a": 1}}, 5.0))
    assert found.keys() == FIELDS | {"id", "event", "at", "host"}
    assert "hunter2" not in json.dumps(found)
    assert found["reason"] == {"a": ["<ObjectId>", "<bytes>", {"b": "<set>"}], "c": 1.5}
    scrubbed = body_of(HookEvent.AFTER_ABORT, "i", {"said": "mongodb://user:hunter2@host failed"}, 5.0)
    assert b"hunter2" not in scrubbed


def test_a_finding_is_reported_once_and_without_its_key_and_values() -> None:
    hasher = Hasher(b"a secret")
    findings = Findings(hasher, reveal_keys=True)
    report = Report(Metrics(["users"]), findings, LogLines(findings, hasher), hasher=hasher)
    seen: list[tuple[Mismatch, str]] = []
    report.on_finding = lambda found, id: seen.append((found, id))
    for key in ("hunter2", "hunter2", "another"):
        difference = Difference(Kind.VALUE, "name", "string", "string", "h1", "h2")
        report.publish(MismatchConfirmed(Mismatch("users", Verb.FIND_ONE, Kind.VALUE, key, (difference,))))
    assert [found.key for found, _ in seen] == ["hunter2", "another"]
    assert all("hunter2" not in id for _, id in seen)


# --- settings ----------------------------------------------------------------------------------------------------


def test_a_hook_is_read_from_the_file_and_the_environment_and_its_secrets_are_hidden() -> None:
    text = f"""
    hooks:
      - {{name: pager, events: [after_abort], url: "https://x/y?t=hunter2", secret: {SECRET}}}
      - {{name: freeze, events: [before_pause], command: [/bin/true], veto: true, timeout: 2}}
    """
    settings = parse(text, {})
    first, second = settings.hook_list()
    assert (first.url, first.secret, first.on) == ("https://x/y?t=hunter2", SECRET, {HookEvent.AFTER_ABORT})
    assert (second.command, second.veto, second.timeout) == (("/bin/true",), True, 2.0)
    assert "hunter2" not in repr(settings) + settings.model_dump_json() + repr(first)
    given = '[{"name": "a", "events": ["new_finding"], "command": ["x"]}]'
    assert parse("", {"SHADOW_HOOKS": given}).hook_list()[0].name == "a"


@each_of(
    ("entry", "field", "said"),
    [
        ("{name: a, events: [after_abort]}", "hooks.0", "either command or url"),
        ("{name: a, events: [after_abort], command: [x], url: 'http://x'}", "hooks.0", "either command or url"),
        ("{name: a, events: [], command: [x]}", "hooks.0.events", "at least 1"),
        ("{name: a, events: [after_lunch], command: [x]}", "hooks.0.events.0", "before_pause"),
        ("{name: a, events: [after_abort], url: 'ftp://x'}", "hooks.0.url", "http"),
        ("{name: a, events: [after_abort], url: 'http://x', secret: short-one}", "hooks.0.secret", "16 characters"),
        (f"{{name: a, events: [after_abort], command: [x], secret: {SECRET}}}", "hooks.0", "needs url"),
        ("{name: a, events: [after_abort], command: [x], veto: true}", "hooks.0", "before_pause"),
        ("{name: a, events: [after_abort], comand: [x]}", "hooks.0.comand", "command"),
        (
            "{name: a, events: [new_finding], command: [x]}, {name: a, events: [new_finding], command: [x]}",
            "hooks",
            "twice",
        ),
    ],
)
def test_a_hook_that_cannot_work_is_refused_by_field(entry: str, field: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(f"hooks: [{entry}]", {})
    assert any(fault.field == field and said in fault.expected for fault in caught.value.faults), caught.value.faults
    assert SECRET not in str(caught.value)


# --- `shadow hooks send` ------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, server: Any) -> Path:
    kept = tmp_path / "kept.json"
    script = f"import os, sys; open({str(kept)!r}, 'w').write(os.environ['HOOK_EVENT'] + sys.stdin.read())"
    hooks = [
        {"name": "pager", "events": ["after_abort"], "url": server.url, "secret": SECRET, "timeout": 20},
        {"name": "script", "events": ["before_pause"], "command": [sys.executable, "-c", script], "timeout": 20},
        {"name": "never", "events": ["gate_closed"], "url": "http://127.0.0.1:1/x", "timeout": 20},
    ]
    content = {"mongo": {"url": "mongodb://127.0.0.1:1", "database": "none"}, "hooks": hooks}
    path = tmp_path / "shadow.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(config: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["hooks", "send", "--config", str(config), *words])
    return done.exit_code, done.output


def test_an_operator_sees_which_hooks_work(config: Path, server: Any, tmp_path: Path) -> None:
    code, text = run(config, "--json")
    pager, script, never = json.loads(text)
    assert code == 1
    assert (pager["ok"], script["ok"], never["ok"], never["answered"]) == (True, True, False, False)
    assert (never["said"], never["event"]) == ("ConnectionRefusedError", "test")
    ((headers, body),) = server.got
    at = int(headers["X-Shadow-Signature"].partition(",")[0][2:])
    assert headers["X-Shadow-Signature"] == signature(SECRET, at, body)
    assert headers["X-Shadow-Event"] == "test"
    told = json.loads(body)
    assert (told["event"], told["test"], told["id"]) == ("test", True, headers["X-Shadow-Delivery"])
    kept = (tmp_path / "kept.json").read_text()
    assert kept.startswith("test{")
    assert SECRET not in text
    assert "token=abc" not in text


def test_hooks_are_chosen_by_name_and_by_event(config: Path, server: Any, tmp_path: Path) -> None:
    server.answer = lambda handler: reply(handler, 403, b"not today")
    code, text = run(config, "pager")
    assert code == 1
    assert "said no" in text
    assert "not today" in text
    assert len(server.got) == 1
    assert run(config, "script")[0] == 0
    code, text = run(config, "--event", "before_pause", "--json")
    (only,) = json.loads(text)
    assert (code, only["hook"], only["event"]) == (0, "script", "before_pause")
    kept = (tmp_path / "kept.json").read_text()
    assert kept.startswith("before_pause{")
    assert json.loads(kept.removeprefix("before_pause"))["test"] is True
    assert run(config, "--event", "new_finding") == (0, "no hook is configured for it\n")
    code, text = run(config, "nobody")
    assert code == 2
    assert "pager" in text
