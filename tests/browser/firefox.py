"""Firefox by Marionette, the protocol that it speaks itself: lines of JSON through a socket.

Playwright drives only a Firefox of its own, which has to be downloaded.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds, for Firefox to start and to answer
PREFERENCES = {
    "marionette.port": 0,  # a free one, told in the profile
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.proxy.type": 1,  # a proxy that is not there: nothing gets out
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}
ERRORS = """
  const [page] = arguments;
  return Services.console.getMessageArray()
    .filter((one) => one instanceof Ci.nsIScriptError && one.sourceName.startsWith(page))
    .map((one) => one.errorMessage);
"""


def find_firefox() -> str | None:
    return os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """One window of it."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.lines, self.asked = self.socket.makefile("rb"), 0
        self.read()  # who it is
        self.ask("WebDriver:NewSession")

    def open(self, url: str) -> None:
        self.ask("WebDriver:Navigate", url=url)
        self.wait("return document.body.dataset.ready")

    def enter_frame(self) -> None:
        """Into the first frame of the page, where all that follows is done."""
        self.ask("WebDriver:SwitchToFrame", id=0)
        self.wait("return document.body?.dataset.ready")

    def run(self, script: str, *given: Any) -> Any:
        """What a function with this body returns, in the page."""
        return self.ask("WebDriver:ExecuteScript", script=script, args=given)["value"]

    def wait(self, script: str) -> None:
        """Until it returns what is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key as the keyboard gives it, by its code point in WebDriver."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.ask(
            "WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": keys}]
        )

    def errors(self, url: str) -> list[str]:
        """What the console holds against the page: faults of scripts, refusals of its policy."""
        self.ask("Marionette:SetContext", value="chrome")
        told = self.run(ERRORS, url)
        self.ask("Marionette:SetContext", value="content")
        return told

    def ask(self, command: str, **how: Any) -> Any:
        self.asked += 1
        said = json.dumps([0, self.asked, command, how]).encode()
        self.socket.sendall(b"%d:%s" % (len(said), said))
        _, number, error, found = self.read()
        assert number == self.asked and error is None, f"{command}: {error}"
        return found

    def read(self) -> Any:
        length = b""
        while (digit := self.lines.read(1)) != b":":
            assert digit, "Firefox has closed"
            length += digit
        return json.loads(self.lines.read(int(length)))


@contextmanager
def started(path: str, profile: Path) -> Iterator[Firefox]:
    """A Firefox without a window, with a profile of its own, until the end."""
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(v)});" for name, v in PREFERENCES.items())
    (profile / "user.js").write_text("\n".join(lines))
    how = ["--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([path, *how, "--profile", str(profile)], **quiet) as process:
        try:
            firefox = Firefox(port_in(profile))
            yield firefox
            firefox.lines.close()
            firefox.socket.close()
        finally:
            process.terminate()


def port_in(profile: Path) -> int:
    """Where it listens, as soon as it has told."""
    told, end = profile / "MarionetteActivePort", time.monotonic() + PATIENCE
    while not (told.is_file() and told.read_text().strip()):
        assert time.monotonic() < end, "Firefox does not start"
        time.sleep(0.1)
    return int(told.read_text())
