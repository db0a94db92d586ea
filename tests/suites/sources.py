"""Fetches the archives that have the suites: `python -m tests.suites.sources` prints the folder that holds them.

The wheels have no tests, the source archives of these packages have. pip fetches them by the hashes of `sources.txt`;
they stay in `.cache`, outside the tree.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from shadow.errors import StoreUnavailable

__all__ = ["home", "versions"]

_LIST: Final = Path(__file__).with_name("sources.txt")
_CACHE: Final = Path(__file__).parents[2] / ".cache"


def versions() -> dict[str, str]:
    """Package to the version of its archive."""
    lines = [line.split()[0] for line in _LIST.read_text("utf-8").splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)


def home(archive: str) -> Path:
    """The unpacked archive whose folder begins with this name. Raises `StoreUnavailable` if it cannot be fetched."""
    (found,) = _fetched().glob(f"{archive}-*")
    return found


def _fetched() -> Path:
    digest = hashlib.sha256(_LIST.read_bytes()).hexdigest()[:12]
    made = _CACHE / f"suites-{digest}"
    if not made.exists():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as work:
            _fetch(Path(work))
            for each in Path(work).glob("*.tar.gz"):
                _unpack(each)
            if not made.exists():
                shutil.copytree(work, made, ignore=shutil.ignore_patterns("*.tar.gz"))
    return made


def _fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", ":all:"]
    command.append("--no-build-isolation")  # pip looks at their metadata; what builds it is in requirements.lock
    ended = subprocess.run(
        [*command, "--require-hashes", "-r", str(_LIST), "-d", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if ended.returncode != 0:
        raise StoreUnavailable(f"pip download -r {_LIST.name} failed:\n{ended.stderr[-1000:]}")


def _unpack(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        # Debian's Python 3.11.2 does not know the argument `filter` of `extractall` yet.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(archive.parent)


if __name__ == "__main__":
    print(_fetched())
