"""A real browser for tests: opens files, presses keys, and tells of every error and every request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

WINDOW = Path(__file__).with_name("window.py")
SECONDS = 30
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
        "ArrowDown": 40}  # fmt: skip


class Browser:
    """One page. Keeps what its console says, what it throws and what it asks for, since `open` was called."""

    def __init__(self, port: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = threading.Event()
        self._do(self._connect(port))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(SECONDS)

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = await answer.json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
                continue
            name, given = said["method"], said["params"]
            if name == "Page.loadEventFired":
                self._loaded.set()
            elif name == "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            elif name == "Runtime.exceptionThrown":
                self.errors.append(str(given["exceptionDetails"]))
            elif name == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
                self.errors.append(given["entry"]["text"])
            elif name == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
                self.errors.append(str(given["args"]))

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """One command of the DevTools protocol; gives what it answers."""

        async def asked() -> Any:
            self._next += 1
            future = self._waiting[self._next] = self._loop.create_future()
            await self._socket.send_json({"id": self._next, "method": method, "params": given})
            return await asyncio.wait_for(future, SECONDS)

        said = self._do(asked())
        assert "error" not in said, said
        return dict(said["result"])

    def size(
        self, width: int, height: int, *, dark: bool = False, still: bool = True, ratio: float = 1
    ) -> None:
        """The window's size, and what its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=ratio, mobile=width < 500,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def open(self, file: Path) -> None:
        """Load a file and wait until it is there."""
        self.errors.clear()
        self.requests.clear()
        self._loaded.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        assert self._loaded.wait(SECONDS), "the page did not load"

    def get(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait, a frame at a time, until an expression is true; gives its value."""
        value = self.get(
            "new Promise(done => { const end = performance.now() + 5000; const look = () => {"
            f" const value = ({expression}); value || performance.now() > end ? done(value)"
            " : requestAnimationFrame(look); }; look(); })"
        )
        assert value, f"never came to be: {expression}"
        return value

    def press(self, key: str) -> None:
        """Press a key of the keyboard and let it go."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        code = KEYS.get(key, ord(key[0].upper()))
        given = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text: str) -> None:
        """Type text where the focus is."""
        for char in text:
            self.press(char)

    def click(self, selector: str, *, press: bool = True) -> None:
        """Move the mouse to the middle of an element, and click there."""
        self.get(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        frame = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        self.get(frame)  # what is clicked is what is drawn
        place = self.get(
            f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        given = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", **{**given, "type": "mouseMoved", "button": "none"})
        if press:
            self.call("Input.dispatchMouseEvent", type="mousePressed", **given)
            self.call("Input.dispatchMouseEvent", type="mouseReleased", **given)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """What can be seen, as a PNG; with `whole` all of the page."""
        said = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(said["data"]))

    def close(self) -> None:
        """Let go of it."""

        async def shut() -> None:
            self._reading.cancel()
            await self._socket.close()
            await self._session.close()

        with contextlib.suppress(Exception):
            self._do(shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)


@contextlib.contextmanager
def browsing(python: str = sys.executable) -> Iterator[Browser]:
    """A browser, for as long as it is wanted."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [python, str(WINDOW), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if str(port) in line and "started successfully" in line:
                break
        else:
            raise AssertionError(f"the browser did not start: {''.join(said)}")
        rest = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        rest.start()
        browser = Browser(port)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
