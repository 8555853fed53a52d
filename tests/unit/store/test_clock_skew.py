"""How far this machine's clock may be from MongoDB's."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.store.client import check_skew


@pytest.mark.parametrize(("seconds", "side"), [(301, "behind"), (-301, "ahead of"), (40 * 86_400, "behind")])
def test_a_large_skew_is_refused(seconds: int, side: str) -> None:
    with pytest.raises(StoreRefused, match=f"is [0-9,]+ s {side} MongoDB's: set both by NTP"):
        check_skew(timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "warnings"), [(0, 0), (4.9, 0), (-4.9, 0), (6, 1), (-299, 1)])
def test_a_smaller_one_is_told(seconds: float, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_skew(timedelta(seconds=seconds))
    assert len(caplog.records) == warnings
