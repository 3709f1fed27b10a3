"""Headless Chromium for tests, spoken to through chromedriver in plain W3C WebDriver: JSON over HTTP."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def installed() -> bool:
    return bool(shutil.which("chromedriver") and shutil.which("chromium"))


class Page:
    """One browser window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, file: Path, width: int, height: int, dark: bool) -> None:
        """Show a local file as a screen of this size and colour scheme shows it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        for log in ("browser", "performance"):
            self._log(log)  # reading a log empties it
        _call(f"{self._session}/url", {"url": file.as_uri()})

    def run(self, script: str) -> Any:
        """The JSON-able value that the script's `return` gives. A page with an open alert raises here."""
        return _call(f"{self._session}/execute/sync", {"script": script, "args": []})

    def devtools(self, method: str, params: dict[str, Any]) -> Any:
        return _call(f"{self._session}/goog/cdp/execute", {"cmd": method, "params": params})

    def messages(self) -> list[str]:
        """What the console has said since `open`: errors, and what the content security policy refused."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page has asked for since `open`, itself among them."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        shot = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        file.write_bytes(base64.b64decode(shot["data"]))

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = _call(f"{self._session}/se/log", {"type": kind})
        return entries


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile folder, gone at the end."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        port = next(m[1] for line in driver.stdout if (m := re.search(r"started successfully on port (\d+)", line)))
        sessions = f"http://127.0.0.1:{port}/session"
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = f"{sessions}/{_call(sessions, {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
        try:
            yield Page(session)
        finally:
            _call(session, None)
    finally:
        driver.terminate()
        driver.wait(timeout=20)


def _call(url: str, body: dict[str, Any] | None) -> Any:
    """POST the body, or DELETE for none."""
    data, method = (None, "DELETE") if body is None else (json.dumps(body).encode(), "POST")
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=60) as answer:
        return json.load(answer)["value"]
