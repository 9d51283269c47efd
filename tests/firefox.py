"""Firefox by WebDriver BiDi, the protocol that browsers share: as little of it as the tests of the page need.

Playwright drives builds of Firefox of its own, and not Debian's.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60
"""Seconds for an answer, or for what is waited for on the page."""


class Tab:
    """A tab of Firefox, and what went wrong in it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._sent = socket, 0
        self.wrong: list[str] = []
        self.send("session.new", capabilities={})
        self._context = self.send("browsingContext.getTree")["contexts"][0]["context"]
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.send("browsingContext.setViewport", context=self._context, viewport={"width": 1360, "height": 900})

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command; events that come before it are noted."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(timeout=PATIENCE))
            if told["type"] == "event":
                self._note(told["method"], told["params"])
            elif told["id"] == self._sent:
                if told["type"] == "error":
                    raise RuntimeError(f"{method}: {told['message']}")
                return told["result"]

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "log.entryAdded":
            self.wrong.append(str(params["text"]))
        elif not params["request"]["url"].startswith(("file:", "blob:", "data:")):
            self.wrong.append(params["request"]["url"])

    def goto(self, url: str) -> None:
        self.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, function: str, *arguments: Any) -> Any:
        """What a JavaScript function returns, in JSON types."""
        code = (
            f"Promise.resolve(({function})(...{json.dumps(arguments)})).then((found) => JSON.stringify(found ?? null))"
        )
        done = self.send("script.evaluate", expression=code, target={"context": self._context}, awaitPromise=True)
        if done["type"] == "exception":
            raise RuntimeError(done["exceptionDetails"]["text"])
        return json.loads(done["result"]["value"])

    def to_screen_of(self, density: float) -> None:
        """As the window is moved to a screen of so many pixels for one of the page."""
        self.send("browsingContext.setViewport", context=self._context, devicePixelRatio=density)

    def wait_for(self, condition: str) -> None:
        """Until this JavaScript expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"() => {condition}"):
            if time.monotonic() > end:
                raise RuntimeError(f"this never came true: {condition}")
            time.sleep(0.05)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """With the mouse, at this share of an element's width and height."""
        at = self.evaluate(
            """(selector, x, y) => {
              const element = document.querySelector(selector);
              element.scrollIntoView({ block: "center" });
              const box = element.getBoundingClientRect();
              return { x: Math.round(box.left + x * box.width), y: Math.round(box.top + y * box.height) };
            }""",
            selector, x, y,
        )  # fmt: skip
        buttons = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._act({"type": "pointer", "id": "mouse", "actions": [{"type": "pointerMove", **at}, *buttons]})

    def type(self, keys: str) -> None:
        """On the keyboard, where the focus is."""
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": pressed})

    def print(self) -> bytes:
        """The page as PDF, on A4."""
        done = self.send("browsingContext.print", context=self._context, page={"width": 21.0, "height": 29.7})
        return base64.b64decode(done["data"])

    def _act(self, source: dict[str, Any]) -> None:
        self.send("input.performActions", context=self._context, actions=[source])


@contextmanager
def firefox(program: str, folder: Path) -> Iterator[Tab]:
    """A Firefox of its own, without a window, that saves downloads in `folder / "saved"` without asking."""
    (folder / "saved").mkdir()
    (folder / "profile").mkdir()
    wanted = {"browser.download.folderList": 2, "browser.download.dir": str(folder / "saved")}
    prefs = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items()]
    (folder / "profile" / "user.js").write_text("".join(prefs))
    command = [program, "--headless", "--remote-debugging-port=0", "--profile", str(folder / "profile")]
    place = folder / "profile" / "WebDriverBiDiServer.json"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not place.is_file() or not place.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{program} did not start")
            time.sleep(0.05)
        at = json.loads(place.read_text())
        with connect(f"ws://{at['ws_host']}:{at['ws_port']}/session", max_size=None, open_timeout=PATIENCE) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait()
