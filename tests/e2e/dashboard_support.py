"""A real Chromium for the dashboard's tests, and what every page is watched for while a test runs.

Chromium is the system's (`apt-get install chromium`), driven by Playwright from PyPI: its own
browser downloads are not used. Every launch has a fresh profile in a temporary folder and no
background traffic of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    sync_playwright,
)
from tests.conftest import LOGS

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHOTS = LOGS / "dashboard"
DESKTOP = (1440, 900)
PHONE = (375, 812)
ZONE = "Europe/Berlin"
PATIENCE_MS = 30_000  # two cores, shared


def chromium() -> str:
    """Path of the browser. Skips with the reason; under CI=true it fails, since a skip there hides
    a missing step."""
    found = (
        os.environ.get("TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    if found is None:
        reason = "no Chromium: apt-get install chromium, or name one in TEST_CHROMIUM"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"needed in CI: {reason}", pytrace=False)
        pytest.skip(reason)
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser of its own."""
    path = chromium()
    playwright: Playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of the dashboard at `url`; `check()` fails on console errors, uncaught ones and
    requests to anywhere else."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.troubles: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"uncaught: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.url, f"blob:{self.url}", "data:")):
            self.troubles.append(f"request to elsewhere: {request.url}")

    def open(self, path: str = "/") -> Page:
        """Go there and wait until its figures stand."""
        self.page.goto(self.url + path)
        self.settled()
        return self.page

    def settled(self) -> None:
        """Wait until nothing is loading."""
        self.page.wait_for_selector("main[aria-busy=false]")

    def follow(self, selector: str) -> None:
        """Click something that loads, and wait."""
        self.page.click(selector)
        self.settled()

    def text(self, selector: str) -> str:
        """What the reader sees there."""
        return " ".join(self.page.inner_text(selector).split())

    def expect(self, *allowed: str) -> None:
        """Forget troubles that contain one of `allowed`: the browser itself logs each failed
        request."""
        self.troubles = [
            trouble for trouble in self.troubles if not any(part in trouble for part in allowed)
        ]

    def check(self) -> None:
        """Nothing went wrong so far."""
        assert self.troubles == []


@contextmanager
def watched(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, **options: Any
) -> Iterator[Watched]:
    """A fresh profile (no storage of other tests) with one page; it is checked at the end. A
    failure leaves a screenshot."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        timezone_id=ZONE,
        locale="en-US",
        accept_downloads=True,
        **options,
    )
    found = Watched(context, url)
    try:
        yield found
        found.check()
    except BaseException:
        SHOTS.mkdir(parents=True, exist_ok=True)
        name = (
            os.environ.get("PYTEST_CURRENT_TEST", "page")
            .split("::")[-1]
            .split(" ")[0]
            .replace("/", "_")
        )
        found.page.screenshot(path=SHOTS / f"failed-{name}.png")
        raise
    finally:
        context.close()


def saved(page: Page, name: str, *, full_page: bool = True) -> Path:
    """A screenshot under test-logs/dashboard/."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=full_page, timeout=60_000)
    return path
