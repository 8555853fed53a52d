"""Idle money shared out: every rule gives all of it away, once, whatever there was of use; an owner
is found in one order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_token_analytics.books.owners import NOBODY, Owner, OwnerBook
from gpu_token_analytics.costs.choices import ShareRule
from gpu_token_analytics.costs.owners import shares

AT = datetime(2026, 3, 1, tzinfo=UTC)
UUID = "GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"
TEAMS = st.dictionaries(st.one_of(st.none(), st.sampled_from("abcdefg")), st.integers(0, 10**18))


@settings(deadline=None)
@given(rule=st.sampled_from(ShareRule), used=TEAMS, owned=TEAMS)
def test_all_idle_money_is_given_away_once(
    rule: ShareRule, used: dict[str | None, int], owned: dict[str | None, int]
) -> None:
    idle = sum(owned.values())
    parts = shares(rule, idle, used, owned)
    assert sum(parts.values()) == idle
    assert all(nusd >= 0 for nusd in parts.values())


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        (ShareRule.BY_USE, {"a": 3, "b": 6, None: 2}),
        (ShareRule.EVENLY, {"a": 6, "b": 5}),
        (ShareRule.TO_OWNER, {"c": 10, None: 1}),
    ],
)
def test_what_each_rule_gives(rule: ShareRule, parts: dict[str | None, int]) -> None:
    assert shares(rule, 11, {"b": 6, "a": 3, None: 2, "unused": 0}, {"c": 10, None: 1}) == parts


@pytest.mark.parametrize("rule", [ShareRule.BY_USE, ShareRule.EVENLY])
def test_without_use_idle_money_stays_with_nobody(rule: ShareRule) -> None:
    assert shares(rule, 7, {"a": 0}, {"c": 7}) == {None: 7}


def row(
    scope: str, key: str | None, team: str | None, day: int = 0, centre: str | None = None
) -> dict[str, Any]:
    at = AT + timedelta(days=day)
    return {
        "_id": f"{scope}{key}{day}",
        "scope": scope,
        "key": key,
        "team": team,
        "cost_centre": centre,
        "valid_from": at,
        "created_at": AT,
    }


def test_the_owner_is_that_of_the_model_then_the_gpu_then_the_host_then_the_default() -> None:
    book = OwnerBook(
        [
            row("default", None, "rest"),
            row("host", "Node-1.", "platform", centre="CC"),
            row("gpu", UUID.upper(), "vision"),
            row("model", "m", "search"),
            row("model", "m", None, day=2),
        ]
    )
    assert book.owner_of("m", UUID, "node-1", AT) == Owner("search", None)
    assert book.owner_of("m", UUID, "node-1", AT + timedelta(days=2)) == Owner("vision", None), (
        "a row that names nobody ends"
    )
    assert book.owner_of("other", "GPU-x", "node-1", AT) == Owner("platform", "CC")
    assert book.owner_of(None, "GPU-x", "node-2", AT) == Owner("rest", None)
    assert book.owner_of(None, None, None, AT - timedelta(minutes=1)) == NOBODY
