"""Fixtures of the browser tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from tests.e2e.dashboard_support import Watched, launched, watched
from tests.e2e.fake_api import FakeApi
from tests.serving import Serving


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
    """The dashboard over `fake` on a desktop; checked for console errors and foreign requests when the test ends."""
    with Serving(fake.app) as url, watched(browser, url) as found:
        yield found
