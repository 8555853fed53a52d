"""Parameters: where they come from, and the version that tells cells of different ones apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.ledger import params
from gpu_token_analytics.ledger.params import LedgerParams, WorkWeights, params_of
from gpu_token_analytics.settings import load


def test_from_settings() -> None:
    found = params_of(
        load(
            work_weights={"*": {"output": 3}, "m": {"input": 2, "cached": 0}},
            sample_gap_limit_seconds=20,
        )
    )
    assert found.gap_us == 20_000_000
    assert found.weights("m") == WorkWeights(2, 0, 4)
    assert found.weights("other") == WorkWeights(1, 0.1, 3)
    assert params_of(load()).version == LedgerParams().version, "defaults are said once"


@pytest.mark.parametrize(
    "change",
    [
        {"gap_us": 1},
        {"model_loaded_mb": 1.0},
        {"silent_owned_us": 0},
        {"cell_us": 10},
        {"default_weights": WorkWeights(2, 0.1, 4)},
        {"model_weights": {"m": WorkWeights()}},
        {"model_weights": {"m": WorkWeights(cached=0.2)}},
    ],
)
def test_every_parameter_is_in_the_version(change: dict[str, Any]) -> None:
    assert replace(LedgerParams(), **change).version != LedgerParams().version


def test_a_new_computation_is_a_new_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = LedgerParams().version
    monkeypatch.setattr(params, "LEDGER_VERSION", params.LEDGER_VERSION + 1)
    assert LedgerParams().version != before


@pytest.mark.parametrize(
    "weights",
    [
        {"m": {"prompt": 1.0}},
        {"m": {"input": -1.0}},
        {"m": {"output": float("nan")}},
        {"m": {"output": float("inf")}},
        {"m": {"output": 1e-300}},
        {"m": {"input": 0.0, "cached": 1.0, "output": 0.0}},
    ],
)
def test_weights_that_cannot_be_are_refused_by_name(weights: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"WORK_WEIGHTS\['m'\]"):
        params_of(load(work_weights=weights))
