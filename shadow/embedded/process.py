"""Starting a server as a child process, waiting until it answers, and never leaving it behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from shadow.embedded import watchdog
from shadow.errors import StoreUnavailable

__all__ = ["ServerProcess", "free_port"]

_PORTS = range(20000, 32000)
_PORT_TRIES = 3
_POLL_SECONDS = 0.02
_STOP_SECONDS = 10.0
_TAIL_BYTES = 2000


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on at the moment.

    It lies below the range from which systems take the ports of outgoing connections (32768 and up on Linux, 49152
    elsewhere): a client that tries again and again while a server restarts could otherwise be given the server's port
    as its own, and connect to itself.
    """
    for _ in range(100):
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise StoreUnavailable("no free port on 127.0.0.1", hint=f"free one in {_PORTS.start}-{_PORTS.stop - 1}")


class ServerProcess:
    """The base of the embedded servers: a process, its port on 127.0.0.1, its folder (removed at `stop`), its log.

    Use it as a context manager, plain or async, or call `start` and `stop`. All methods block; from async code call
    them through `asyncio.to_thread`, or use `async with`. `start` raises `StoreUnavailable` when the server cannot be
    had or does not answer in `start_seconds`.
    """

    name = "server"

    def __init__(self, *, port: int | None = None, start_seconds: float = 120.0) -> None:
        self.port = port or 0
        self._port_is_fixed = port is not None
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    # What a kind of server says about itself.

    @property
    def url(self) -> str:
        """Where clients connect."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """The program and its arguments. Raises `StoreUnavailable` if it is not installed."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """The child's whole environment; None to inherit ours."""
        return None

    def ready(self) -> bool:
        """Whether the server does its work. Called until it says True; an `OSError` counts as not yet."""
        raise NotImplementedError

    def advice(self, returncode: int | None, log: str) -> str:
        """What to do about a start that failed, from the exit code and the end of the log."""
        return ""

    # What it does.

    @property
    def folder(self) -> Path:
        """The server's own temporary folder: data and log."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"shadow-{self.name}-"))
        return self._folder

    @property
    def log_path(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The process id while the server runs."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Starts the server and returns when it answers."""
        if self.running:
            return self
        for left in reversed(range(_PORT_TRIES)):
            if not self._port_is_fixed:
                self.port = free_port()
            try:
                self._launch()
                self._wait_until_ready()
                self._port_is_fixed = True  # a restart keeps the address that clients have
                return self
            except StoreUnavailable as error:
                taken = "in use" in error.message and not self._port_is_fixed
                self.stop()
                if not (taken and left):
                    raise
            except BaseException:
                self.stop()
                raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Ends the server, at once since its data goes too, and removes its folder. Idempotent."""
        self._end(gently=False)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """Ends the server at once, as a crash would. Its folder stays until `stop`, for `restart`."""
        self._end(gently=False)

    def restart(self) -> None:
        """Ends the server if it runs, in the ordinary way, and starts it again on the same port and folder."""
        self._end(gently=True)
        try:
            self._launch()
            self._wait_until_ready()
        except BaseException:
            self._end(gently=False)
            raise

    def pause(self) -> None:
        """Freezes the server: connections stay open and nothing answers. Returns when it stands still."""
        process = psutil.Process(self._alive().pid)
        process.suspend()
        deadline = time.monotonic() + _STOP_SECONDS
        while process.status() != psutil.STATUS_STOPPED:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.name} could not be paused")
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """Lets a paused server go on."""
        psutil.Process(self._alive().pid).resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreUnavailable):
                await starting
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self.stop))

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise StoreUnavailable(f"{self.name} is not running")
        return self._process

    def _launch(self) -> None:
        command = list(self.command())
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", str(watchdog.__file__), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with self.log_path.open("wb") as log:  # a log for each start: what it holds can only be about starting
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )
        self._tell_watchdog(f"{self._process.pid}\n")

    def _tell_watchdog(self, line: str) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()

    def _wait_until_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self._start_seconds
        while process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ready():
                    return
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {self._start_seconds:g} s", None)
            time.sleep(_POLL_SECONDS)
        raise self._failure(f"ended with code {process.returncode} while starting", process.returncode)

    def _failure(self, what: str, returncode: int | None) -> StoreUnavailable:
        log = self.log_path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        message = f"{self.name} {what}" + (f"; the end of its log:\n{log}" if log else "")
        return StoreUnavailable(message, hint=self.advice(returncode, log))

    def _end(self, *, gently: bool) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(process.pid).resume()  # a paused process would not see a request to end
            if gently:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
            _kill(process)
            process.wait()
        self._dismiss_watchdog()

    def _dismiss_watchdog(self) -> None:
        guard, self._watchdog = self._watchdog, None
        if guard is None:
            return
        with contextlib.suppress(BrokenPipeError):
            guard.communicate(b"done\n")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started: its process group is its own. Nothing happens to one that has ended, whose number
    may be another's by now."""
    if process.poll() is None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
