"""Who a process is, and when another one is known to be dead: without a wall clock, and never by guessing."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from shadow.host import liveness, process
from shadow.host.process import Owner, boot_id, hold_lock, this_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's ticks and namespaces are Linux's")

SLEEPER: Final = "import sys; print('ready', flush=True); sys.stdin.readline()"


@contextlib.contextmanager
def sleeper() -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.communicate()


def owner_of(pid: int) -> Owner:
    found = process._seen(pid)
    assert found is not None
    return Owner(this_process().place, pid, found[1])


@pytest.mark.parametrize("step", [-3600.0, -3.0, 3.0, 3600.0])
def test_a_step_of_the_clock_makes_nobody_another_one(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel shifts the moment of its boot with the clock, and psutil every start time with that."""
    with sleeper() as other:
        before = this_process(), owner_of(other.pid)
        process._process.cache_clear()
        now, boot = time.time, psutil.boot_time
        monkeypatch.setattr(time, "time", lambda: now() + step)
        monkeypatch.setattr(psutil, "boot_time", lambda: boot() + step)
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot() + step)
        assert not any(each.known_dead() for each in before)
        assert this_process().started == before[0].started
        assert this_process()._name() == before[0]._name()
        other.kill()
        other.communicate()
        assert before[1].known_dead()
    process._process.cache_clear()


def test_a_process_is_the_same_for_as_long_as_it_lives_and_another_one_after_a_fork() -> None:
    assert this_process() == this_process()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(this_process()))
    child.start()
    forked = ours.recv()
    child.join(30)
    assert forked.pid == child.pid
    assert forked.id != this_process().id
    assert forked.known_dead()


def test_a_later_process_with_the_same_pid_is_not_the_one_that_died() -> None:
    own = this_process()
    assert Owner(own.place, own.pid, own.started - 0.01).known_dead()
    assert not own.known_dead()


def test_a_killed_process_is_dead_before_its_parent_has_asked_for_it_and_a_stopped_one_is_not() -> None:
    with sleeper() as other:
        owner = owner_of(other.pid)
        os.kill(other.pid, signal.SIGSTOP)
        assert not owner.known_dead()
        os.kill(other.pid, signal.SIGKILL)
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert owner.known_dead()


def test_a_process_that_proc_hides_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    own = this_process()

    def hidden(self: Path, *arguments: Any, **options: Any) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not Owner(own.place, own.pid, own.started).known_dead()
    assert Owner(own.place, 2**22 + 1, own.started).known_dead(), "no process has it"


def test_where_proc_is_another_namespaces_no_pid_means_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "1" if path == "/proc/self" else read(path))
    assert process._namespace() == "-"
    unknown = Owner(process._place(), 2**22 + 1, 1.0)
    assert not unknown.known_dead()


def test_what_another_boot_of_this_host_left_is_dead_and_known_to_have_ended_with_its_system() -> None:
    host, _, rest = this_process().place.split("/", 2)
    old = Owner(f"{host}/another-boot/{rest}", os.getpid(), this_process().started)
    assert old.known_dead()
    assert old.ended_with_its_system()
    assert not this_process().ended_with_its_system()


def test_what_runs_on_another_host_is_never_known_dead() -> None:
    _, _, rest = this_process().place.split("/", 2)
    assert not Owner(f"other-host/another-boot/{rest}", 1, 1.0).known_dead()


def test_what_an_earlier_version_wrote_is_judged_by_its_pid_alone() -> None:
    """It wrote start times in epoch seconds, which the clock may have moved since."""
    host, boot, namespaces, _ = this_process().place.split("/")
    place = f"{host}/{boot}/{namespaces.partition(',')[0]}"
    born = psutil.Process().create_time()
    assert not Owner(place, os.getpid(), born).known_dead()
    assert not Owner(place, os.getpid(), born - 5000).known_dead(), "its clock was stepped, perhaps"
    assert Owner(place, 2**22 + 1, born).known_dead()
    assert Owner(place, os.getpid(), born).since == born


def test_an_earlier_version_takes_no_process_of_this_one_for_dead() -> None:
    """It compares the whole place, and is certain of no other but its own."""
    host, boot, namespaces, _ = this_process().place.split("/")
    assert this_process().place != f"{host}/{boot}/{namespaces.partition(',')[0]}"


# --- containers: the same pid, the same hostname, one kernel, one volume ----------------------------------------------


def contained(folder: Path, number: int, pipe: Any) -> None:
    """What a container's only process does: it is pid 1 of a namespace of its own."""
    real = os.getpid()
    process._process.cache_clear()
    process._namespace = lambda: f"pid:[{number}]"
    started = process._seen(real)
    assert started is not None
    process._process = lambda pid: Owner(f"{process._place()}/0", 1, started[1])  # type: ignore[assignment]
    hold_lock(folder)
    pipe.send(this_process())
    pipe.recv()


Start = Callable[[int], tuple[Any, Owner]]


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Start]:
    started: list[Any] = []

    def start(number: int) -> tuple[Any, Owner]:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=contained, args=(tmp_path, number, theirs))
        child.start()
        started.append(child)
        assert ours.poll(60)
        return child, ours.recv()

    yield start
    for each in started:
        each.kill()
        each.join(30)
    liveness._folders.pop(tmp_path, None)


def test_the_death_of_another_container_is_known_at_once_where_a_folder_is_shared(
    container: Start, tmp_path: Path
) -> None:
    first, one = container(4001)
    second, two = container(4002)
    assert (one.pid, one.host) == (two.pid, two.host)
    first.kill()
    first.join(30)
    assert not one.known_dead(), "nothing is shared with it yet"
    process.share_locks(tmp_path)
    assert one.known_dead()
    assert not two.known_dead()
    os.kill(second.pid, signal.SIGSTOP)
    assert not two.known_dead(), "a stopped process lives"
    second.kill()
    second.join(30)
    assert two.known_dead()


def test_a_lock_file_that_was_cleaned_away_proves_nothing_and_is_made_again(container: Start, tmp_path: Path) -> None:
    _, one = container(4001)
    process.share_locks(tmp_path)
    hold_lock(tmp_path)
    for each in tmp_path.glob("*.lives"):
        each.unlink()
    assert not one.known_dead()
    hold_lock(tmp_path)
    assert liveness.held(this_process()._name()) is True


def test_a_lock_outweighs_what_the_pid_says(container: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This container comes to have the namespace's number of another one that lives."""
    _, one = container(4001)
    process.share_locks(tmp_path)
    monkeypatch.setattr(process, "_namespace", lambda: "pid:[4001]")
    assert not one.known_dead()


def test_a_child_keeps_no_lock_of_its_parent_alive(tmp_path: Path) -> None:
    """The parent dies; the child, which inherited its descriptors, lives on."""
    program = f"""
import os, sys, time
from pathlib import Path
from shadow.host.process import hold_lock, this_process
hold_lock(Path({str(tmp_path)!r}))
own = this_process()
print(own.place, own.started, flush=True)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], text=True, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    place, started = parent.stdout.readline().split()
    child = int(parent.stdout.readline())
    try:
        process.share_locks(tmp_path)
        owner = Owner(place, parent.pid, float(started))
        assert liveness.held(owner._name()) is True
        parent.kill()
        parent.wait(30)
        assert liveness.held(owner._name()) is False
    finally:
        os.kill(child, signal.SIGKILL)
        liveness._folders.pop(tmp_path, None)


def test_the_files_of_the_dead_are_bounded_and_those_of_the_living_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_KEPT", 3)
    for number in range(10):
        (tmp_path / f"{number}.lives").touch()
    hold_lock(tmp_path)
    assert len(list(tmp_path.glob("*.lives"))) == 4
    assert liveness.held(this_process()._name()) is True
    liveness._folders.pop(tmp_path, None)


def test_the_boot_has_a_name() -> None:
    assert boot_id()
