"""A real browser (Debian's chromium, headless), driven over its own debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from shadow.errors import StoreUnavailable

__all__ = ["Page", "open_page"]

_SWITCHES: Final = (
    "--headless=new",
    "--no-sandbox",  # a test machine's root may not use the sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


class Page:
    """One page. `problems`: errors and refusals by policy that the browser has reported."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self.answers: list[str] = []
        """What the page's next dialogs are answered with."""

    async def listen(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(json.dumps(said["params"]))
            elif said["method"] == "Page.javascriptDialogOpening":
                text = self.answers.pop(0)
                await self._post("Page.handleJavaScriptDialog", accept=True, promptText=text)

    async def _post(self, method: str, **parameters: Any) -> asyncio.Future[dict[str, Any]]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return self._waiting[number]

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        said = await asyncio.wait_for(await self._post(method, **parameters), 90)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def go(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Opens a page in a window of so many pixels, in light or dark colours."""
        for domain in ("Page", "Runtime", "Log"):
            await self.ask(f"{domain}.enable")
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        await self.ask("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        said = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, expression: str, seconds: float = 90.0) -> None:
        """Waits until an expression is true."""
        async with asyncio.timeout(seconds):
            while not await self.value(expression):  # noqa: ASYNC110 - the page tells of nothing by itself
                await asyncio.sleep(0.05)

    async def press(self, key: str, *, code: int = 0, text: str = "") -> None:
        """A key of the keyboard, down and up."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            await self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    async def type(self, text: str) -> None:
        await self.ask("Input.insertText", text=text)

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        """The whole page, or what the window shows of it; PNG or WebP by the name of the file."""
        kind = {"format": "webp", "quality": 70} if path.suffix == ".webp" else {"format": "png"}
        said = await self.ask("Page.captureScreenshot", **kind, captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(said["data"]))


@contextlib.asynccontextmanager
async def open_page() -> AsyncIterator[Page]:
    """A page of a browser that is gone afterwards. Raises `StoreUnavailable` where there is none."""
    program = shutil.which("chromium")
    if program is None:
        raise StoreUnavailable("there is no chromium here", hint="apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="shadow-browser-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            program,
            *_SWITCHES,
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with aiohttp.ClientSession() as session:
                port = await _port(Path(folder) / "DevToolsActivePort")
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    targets = [each for each in await answer.json() if each["type"] == "page"]
                async with session.ws_connect(targets[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    yield page
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _port(file: Path) -> int:
    """Where the browser listens; it writes that to a file when it does."""
    async with asyncio.timeout(90):
        while not (file.exists() and "\n" in file.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return int(file.read_text().split("\n")[0])
