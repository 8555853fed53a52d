"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from door import Door, serve


@pytest.fixture
def door() -> Iterator[Door]:
    """A server that accepts everything until told otherwise."""
    with serve(Door()) as door:
        yield door
