"""The demo as a user runs it: exit code 0, all damage found, both stores equal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import drawn, services
from tests.support.browser import open_page
from tests.support.documents import FOLDER

SHADOW = Path(sys.executable).with_name("shadow")


def run(*arguments: str, **environment: str) -> tuple[int, dict, str]:
    command = [str(SHADOW), "demo", "--json", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout.count("\n") == 1, f"one object and nothing else on standard output:\n{done.stdout}{done.stderr}"
    return done.returncode, json.loads(done.stdout), done.stderr


def check(code: int, report: dict) -> None:
    assert report["faults"] == []
    assert code == 0
    assert report["damaged"] == report["found"] >= 7
    assert report["journal_open"] == 0
    assert report["stores_equal"] is True
    assert report["unexplained"] == 0
    assert report["flips"] == 1
    assert report["verdicts"]["match"] > 0
    assert report["comparisons"] == sum(report["verdicts"].values())
    assert report["operations"] > 100


def live(addresses: dict[str, str]) -> None:
    """What somebody sees who only looks: new damage is found, and a ramp of reads steps on."""
    end = time.monotonic() + 120
    while True:
        with urllib.request.urlopen(addresses["status"], timeout=60) as answer:
            status = json.load(answer)
        steps = [each for each in status["fleet"].get("ramps", ()) if each["share"] > 0]
        with urllib.request.urlopen(addresses["findings"], timeout=60) as answer:
            watched = [one for one in json.load(answer)["findings"] if one["collection"] == "generated_content"]
        # The first one of this collection was damaged by the story of the demo itself.
        if steps and len(watched) > 1:
            break
        assert time.monotonic() < end, (status["fleet"].get("ramps"), watched)
        time.sleep(0.5)
    if "SHADOW_PICTURES" in os.environ:
        asyncio.run(picture(addresses["console"], Path(os.environ["SHADOW_PICTURES"]) / "console.webp"))


async def picture(console: str, file: Path) -> None:
    """That of the README: `SHADOW_PICTURES=docs pytest tests/e2e/test_demo.py -k motor`."""
    async with open_page() as page:
        await page.go(console, width=1100, height=760)
        await page.until("document.getElementById('verdict') !== null")
        await page.picture(file, whole=False)


@pytest.mark.timeout(450)
@pytest.mark.drawn_over("how", reason="the same demo; the suites hold with either driver, and with the ODM")
@pytest.mark.parametrize("how", ["--driver motor", "--driver pymongo", "--backend beanie"])
def test_it_passes_stays_up_on_request_and_ends_on_ctrl_c_without_leaving_a_process(how: str) -> None:
    if "beanie" in how and find_spec("beanie") is None:
        services.missing("beanie", "it is not installed")
    command = [str(SHADOW), "demo", "--json", "--seconds", "10", "--serve", *how.split()]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stderr is not None
    try:
        addresses = {}
        for line in program.stderr:
            name, _, address = line.strip().partition(" ")
            addresses[name] = address.strip()
            if "Ctrl-C" in line:
                break
        with urllib.request.urlopen(addresses["metrics"], timeout=60) as answer:
            assert b"shadow_comparisons_total" in answer.read()
        with urllib.request.urlopen(addresses["status"], timeout=60) as answer:
            status = json.load(answer)
        assert status["collections"]["documents"]["primary"] == "dynamo"
        assert next(iter(addresses)) == "console"
        live(addresses)
    finally:
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=100)
    assert said.count("\n") == 1, f"one object and nothing else on standard output:\n{said}"
    check(program.returncode, json.loads(said))
    with pytest.raises(OSError):
        urllib.request.urlopen(addresses["metrics"], timeout=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "beanie", "--driver", "motor"), "--driver"),
        (("--backend", "django"), "driver or beanie"),
    ],
)
def test_a_backend_that_there_is_not_is_refused_before_anything_starts(arguments: tuple[str, ...], said: str) -> None:
    if find_spec("beanie") is None:
        services.missing("beanie", "it is not installed")
    done = subprocess.run([str(SHADOW), "demo", *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_beanie_its_backend_names_the_package() -> None:
    """As where the extra is not installed: the program finds no module of this name."""
    program = (
        "import importlib.util, sys; real = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *more: None if name == 'beanie' else real(name, *more);"
        "from shadow.cli import main; sys.argv = ['shadow', 'demo', '--backend', 'beanie']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "pip install 'shadow[demo,beanie]'" in done.stderr
    assert "Traceback" not in done.stderr


def some_of(folder: Path, every: int, into: Path) -> int:
    """Copies each `every`th document of each file; their number."""
    count = 0
    for file in folder.glob("*.json"):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)[::every]
        (into / file.name).write_text("".join(lines), encoding="utf-8")
        count += len(lines)
    return count


@pytest.mark.takes_turns
@pytest.mark.timeout(450)
def test_the_demo_passes_on_dynamodb_local_with_real_documents(
    dynamodb_local_url: str, tmp_path: Path, real_documents: object
) -> None:
    """With some of them: that each one comes back to the byte is shown by `test_real_documents.py`."""
    count = some_of(FOLDER, 1 if drawn.is_long() else 10, tmp_path)
    code, report, _ = run("--seconds", "10", "--dynamo", dynamodb_local_url, "--data", str(tmp_path))
    check(code, report)
    assert report["documents_loaded"] == count > 400


def test_it_says_what_is_wrong_with_its_data_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text('{"_id": 1}\n{"_id": \n')
    done = subprocess.run([str(SHADOW), "demo", "--data", str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "users.json, line 2" in done.stderr


@pytest.mark.takes_turns
@pytest.mark.parametrize("at", ["the start", "traffic"])
def test_ctrl_c_before_the_proof_is_no_success_and_leaves_nothing(tmp_path: Path, at: str) -> None:
    """With a profile in the environment too, which is nothing to the demo's own servers."""
    command = [str(SHADOW), "demo", "--seconds", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "AWS_PROFILE": "none-of-this-name"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stderr is not None
        if at == "traffic":
            for line in program.stderr:
                if at in line:
                    break
        else:
            while not list(tmp_path.glob("shadow-demo-*")) and program.poll() is None:
                time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        rest = program.stderr.read()
        assert program.wait(100) == 130, rest
    assert "Traceback" not in rest
    assert not list(tmp_path.glob("shadow-*")), "its folders go, and with them the servers that have them"
    assert not [each for each in Path("/proc").iterdir() if str(tmp_path) in _command_of(each)]


def _command_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""
