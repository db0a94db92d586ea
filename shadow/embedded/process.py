"""Starts a server as a child process, waits until it answers, and makes sure that it never outlives its parent."""

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
    """A TCP port on 127.0.0.1 that is free at the moment.

    It is below the range that systems use for outgoing connections (32768 and up on Linux, 49152 elsewhere). Otherwise
    a client that retries while a server restarts could get the server's port as its own, and connect to itself.
    """
    for _ in range(100):
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise StoreUnavailable("no free port on 127.0.0.1", hint=f"free one in {_PORTS.start}-{_PORTS.stop - 1}")


class ServerProcess:
    """The base class of the embedded servers: a process, its port on 127.0.0.1, its folder (removed by `stop`), its
    log.

    Use it as a context manager, plain or async, or call `start` and `stop`. All methods block; from async code call
    them through `asyncio.to_thread`, or use `async with`. `start` raises `StoreUnavailable` if the server is not
    installed or does not answer within `start_seconds`.
    """

    name = "server"

    def __init__(self, *, port: int | None = None, start_seconds: float = 120.0) -> None:
        self.port = port or 0
        self._port_is_fixed = port is not None
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    # Defined by each kind of server.

    @property
    def url(self) -> str:
        """The address for clients."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """The program and its arguments. Raises `StoreUnavailable` if it is not installed."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """The child's whole environment; None to inherit this process's."""
        return None

    def ready(self) -> bool:
        """Whether the server is ready. Called until it returns True; an `OSError` means not yet."""
        raise NotImplementedError

    def advice(self, returncode: int | None, log: str) -> str:
        """What to do about a failed start, from the exit code and the end of the log."""
        return ""

    # Common to all servers.

    @property
    def folder(self) -> Path:
        """The server's own temporary folder, for data and log."""
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
                self._port_is_fixed = True  # a restart keeps the address of the clients
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
        """Kills the server, since its data is deleted too, and removes its folder. Idempotent."""
        self._end(gently=False)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """Kills the server, like a crash. Its folder stays until `stop`, for `restart`."""
        self._end(gently=False)

    def restart(self) -> None:
        """Stops the server regularly if it runs, and starts it again with the same port and folder."""
        self._end(gently=True)
        try:
            self._launch()
            self._wait_until_ready()
        except BaseException:
            self._end(gently=False)
            raise

    def pause(self) -> None:
        """Suspends the server: connections stay open and nothing answers. Returns once it is suspended."""
        process = psutil.Process(self._alive().pid)
        process.suspend()
        deadline = time.monotonic() + _STOP_SECONDS
        while process.status() != psutil.STATUS_STOPPED:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.name} could not be paused")
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """Resumes a suspended server."""
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
        with self.log_path.open("wb") as log:  # a new log for each start, so that it can only be about the start
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
                psutil.Process(process.pid).resume()  # a suspended process would not receive the signal
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
    """With everything it has started: it has its own process group. Does nothing if the process has ended, because its
    id may belong to another one by now."""
    if process.poll() is None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
