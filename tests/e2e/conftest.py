"""Fixtures of the browser tests."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.e2e.dashboard_support import Watched, launched, watched
from tests.e2e.fake_api import FakeApi
from tests.serving import serving

from gpu_token_analytics.demo.commands import DASHBOARD_PORT


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def fake() -> FakeApi:
    """Eight GPUs, no key needed."""
    return FakeApi()


@pytest.fixture
def dashboard(browser: Browser, fake: FakeApi) -> Iterator[Watched]:
    """The dashboard over `fake` on a desktop; checked for console errors and foreign requests when
    the test ends."""
    with serving(fake.app) as url, watched(browser, url) as found:
        yield found


@pytest.fixture
def demos_port() -> Iterator[int]:
    """The port of a demo's dashboard, for one test at a time on this machine: files of tests run
    side by side."""
    with (Path(tempfile.gettempdir()) / f"gpu-tokens-tests-port-{DASHBOARD_PORT}.lock").open(
        "w"
    ) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield DASHBOARD_PORT
