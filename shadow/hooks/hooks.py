"""Calls the hooks. Nothing waits for one, except a flip for the answer of a hook that may veto it, before any write is
paused.

Each hook has a thread and a bounded queue of its own, so that one that does not answer delays no other one. What it did
not take is tried again with growing pauses; what finds the queue full is dropped and counted.
"""

from __future__ import annotations

import enum
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from shadow.hooks.sending import Attempt, attempt
from shadow.model.events import Reporter, Silent, noted
from shadow.model.hooks import Hook, HookEvent
from shadow.model.version import fresh_id
from shadow.observe.log import Event, scrub

__all__ = ["FIELDS", "NO_HOOKS", "TEST", "Hooks", "body_of"]

FIELDS: Final = frozenset(
    {
        "by", "collection", "collections", "figure", "finding", "flip", "forced", "gate", "guards",
        "guards_held_seconds", "kind", "look_at", "number", "paused_seconds", "reason", "said", "share", "share_before",
        "state", "step", "store", "takes_back", "test", "to", "verb", "watched_seconds", "window_seconds",
    }
)  # fmt: skip
"""The fields that a body may have, besides `id`, `event`, `at` and `host`. None of them is of a document."""

TEST: Final = "test"
"""In place of an event, for a call that an operator makes; no hook is configured for it."""

_QUEUE: Final = 100
_FIRST: Final = 1.0
_LONGEST: Final = 60.0
"""Seconds before an attempt is made again: the first pause, and the longest."""


def body_of(event: HookEvent | str, id: str, fields: Mapping[str, Any], now: float) -> bytes:
    """The JSON that a hook gets. `now`: epoch seconds. Fields that are not in `FIELDS` are dropped, and a value that is
    neither a number, a flag, a text nor a list or mapping of them is replaced by its type."""
    plain = {name: _plain(value) for name, value in fields.items() if name in FIELDS}
    head = {"id": id, "event": str(event), "at": round(now, 3), "host": socket.gethostname()}
    return json.dumps({**plain, **head}, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return f"<{type(value).__name__}>"


class Hooks:
    """Thread-safe; starts nothing before the first event that a hook wants. `send` and `ask` never raise."""

    def __init__(
        self,
        hooks: Iterable[Hook] = (),
        reporter: Reporter | None = None,
        *,
        sent: Callable[[Hook, str, str, bytes], Attempt] = attempt,
        first_pause: float = _FIRST,
    ) -> None:
        """`sent`: makes one attempt; tests replace it. `first_pause`: seconds before the second one."""
        self._reporter = reporter or Silent()
        self._sent = sent
        self._first_pause = first_pause
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._hooks: tuple[Hook, ...] = tuple(hooks)

    def replace(self, hooks: Iterable[Hook]) -> None:
        """From now on these. What waits for another one is still sent."""
        self._hooks = tuple(hooks)

    def wanted(self, event: HookEvent) -> bool:
        return any(event in hook.on for hook in self._hooks)

    def send(self, event: HookEvent, fields: Mapping[str, Any], *, id: str = "", asked: bool = False) -> None:
        """Calls every hook of this event, in the background. `id`: of the delivery, the same where it may come twice;
        `asked`: those that may veto were called already."""
        id = id or fresh_id()
        for hook in self._hooks:
            if event in hook.on and not (asked and hook.veto):
                self._line(hook).put(event, id, body_of(event, id, fields, time.time()))

    def ask(self, fields: Mapping[str, Any]) -> str:
        """Why a flip must not pause writes now; "" if it may. Blocks for the time limits of the hooks that may veto,
        and calls the others in the background. One attempt each: an operator waits for the answer."""
        event, id = HookEvent.BEFORE_PAUSE, fresh_id()
        self.send(event, fields, id=id, asked=True)
        for hook in self._hooks:
            if event not in hook.on or not hook.veto:
                continue
            found = self._sent(hook, event, id, body_of(event, id, fields, time.time()))
            if found.ok:
                self._report(Event.HOOK_DELIVERED, hook, event, found.said)
            elif found.answered or hook.unanswered:
                why = found.said if found.answered else f"it did not answer ({found.said})"
                self._report(Event.HOOK_VETOED, hook, event, why)
                return f"the hook {hook.name} has vetoed it: {why}"
            else:
                self._report(Event.HOOK_FAILED, hook, event, found.said)
        return ""

    def finish(self, patience: float) -> bool:
        """Waits until everything is delivered or given up. False: it is not within `patience` seconds."""
        end = time.monotonic() + patience
        with self._lock:
            lines = list(self._lines.values())
        return False not in [line.empty(end - time.monotonic()) for line in lines]

    def _line(self, hook: Hook) -> _Line:
        with self._lock:
            line = self._lines.get(hook.name)
            if line is None or line.pid != os.getpid() or line.hook != hook:
                line = self._lines[hook.name] = _Line(hook, self._sent, self._report, self._first_pause)
            return line

    def _report(self, name: Event, hook: Hook, event: HookEvent, said: str) -> None:
        self._reporter.publish(noted(name, hook=hook.name, on=str(event), detail=said))


class _Line:
    """The deliveries of one hook, in order."""

    def __init__(
        self,
        hook: Hook,
        sent: Callable[[Hook, str, str, bytes], Attempt],
        report: Callable[[Event, Hook, HookEvent, str], None],
        first_pause: float,
    ) -> None:
        self.hook = hook
        self.pid = os.getpid()
        self._sent = sent
        self._report = report
        self._first_pause = first_pause
        self._queue: queue.Queue[tuple[HookEvent, str, bytes]] = queue.Queue(_QUEUE)
        threading.Thread(target=self._run, name=f"shadow-hook-{hook.name}", daemon=True).start()

    def put(self, event: HookEvent, id: str, body: bytes) -> None:
        try:
            self._queue.put_nowait((event, id, body))
        except queue.Full:
            self._report(Event.HOOK_DROPPED, self.hook, event, f"{_QUEUE} others wait already")

    def empty(self, patience: float) -> bool:
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, max(0.0, patience))

    def _run(self) -> None:
        while True:
            event, id, body = self._queue.get()
            try:
                self._deliver(event, id, body)
            finally:
                self._queue.task_done()

    def _deliver(self, event: HookEvent, id: str, body: bytes) -> None:
        pause = self._first_pause
        for left in range(self.hook.retries, -1, -1):
            found = self._sent(self.hook, event, id, body)
            if found.ok:
                self._report(Event.HOOK_DELIVERED, self.hook, event, "")
                return
            if not left or found.answered:
                # An answer, whichever, will not be another one for the same body.
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        self._report(Event.HOOK_FAILED, self.hook, event, found.said)


NO_HOOKS: Final = Hooks()
