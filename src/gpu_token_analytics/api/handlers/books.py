"""/v1/prices, /v1/rates, /v1/declarations and /v1/placements: the books that people write."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, Query

from gpu_token_analytics.api.params import BookPage, PlacementsAsked
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers import (
    AppendedPlacements,
    Declaration,
    DeclarationsResponse,
    PlacementsResponse,
    Price,
    PricesResponse,
)
from gpu_token_analytics.costs.answers.rates import RateRow, RatesResponse
from gpu_token_analytics.costs.declarations import (
    declare_gpu,
    declared_gpus,
    retire_gpu,
    withdraw_gpu,
)
from gpu_token_analytics.costs.entries import (
    NewDeclaration,
    NewPlacement,
    NewPrice,
    Retirement,
    Withdrawal,
)
from gpu_token_analytics.costs.placements import append_placements, placement_page
from gpu_token_analytics.costs.prices import append_price, price_page
from gpu_token_analytics.costs.rates import NewRate, append_rate, rate_rows

MAX_ROWS = 1_000
SOURCE = "api"


def prices(ask: AskDep, asked: Annotated[BookPage, Query()]) -> PricesResponse:
    """Every row ever written, newest valid_from first. The most specific row in force wins: gpu,
    host, name, default."""
    return price_page(ask.desk, asked.limit, asked.cursor)


def add_price(ask: AskDep, new: NewPrice) -> Price:
    """Append a row. With valid_from in the past, open cells are computed again and final ones get
    corrections, as far back as raw events are kept (RAW_RETENTION_DAYS); older cells keep their
    price."""
    return append_price(ask.desk, new, SOURCE)


def rates(ask: AskDep) -> RatesResponse:
    """Every row ever written, newest valid_from first: what a USD is worth. A row holds until the
    currency's next one."""
    return rate_rows(ask.desk)


def add_rate(ask: AskDep, new: NewRate) -> RateRow:
    """Say what a USD is worth from a time on, which may lie in the past; the ledger does not change
    by it."""
    return append_rate(ask.desk, new, SOURCE)


def declarations(ask: AskDep) -> DeclarationsResponse:
    """GPUs that operators declared; and the names that requests gave to GPUs nobody sampled or
    declared."""
    return declared_gpus(ask.desk)


def declare(ask: AskDep, new: NewDeclaration) -> Declaration:
    """Declare a GPU that sends no samples: requests that named it get their money, those stored
    before, too."""
    return declare_gpu(ask.desk, new, SOURCE)


def retire(ask: AskDep, end: Retirement) -> Declaration:
    """End a declaration: from that minute on the GPU is not known, unless samples tell of it."""
    return retire_gpu(ask.desk, end)


def withdraw(ask: AskDep, which: Withdrawal) -> Declaration:
    """Take a declaration back as if it had never been made."""
    return withdraw_gpu(ask.desk, which)


def placements(ask: AskDep, asked: Annotated[BookPage, Query()]) -> PlacementsResponse:
    """Every row ever written, newest valid_from first. Of several in force the one that took effect
    last holds."""
    return placement_page(ask.desk, asked.limit, asked.cursor)


def add_placements(
    ask: AskDep,
    new: Annotated[list[NewPlacement], Body(min_length=1, max_length=MAX_ROWS)],
    asked: Annotated[PlacementsAsked, Query()],
) -> AppendedPlacements:
    """Append rows, all or none. They hold for what sources send from then on (within 5 s), also of
    earlier times; requests that are stored already keep the GPUs they have. Sent again they change
    nothing."""
    return append_placements(ask.desk, new, SOURCE, changes_only=asked.changes_only)
