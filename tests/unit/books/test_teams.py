"""Who belonged where: a row holds until the tenant's next one, whatever the order they were written
in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

from gpu_token_analytics.books.teams import TeamBook

AT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def row(tenant: str, team: str | None, day: int, written: int = 0) -> dict[str, Any]:
    moments = {"valid_from": AT + day * DAY, "created_at": AT + written * DAY}
    return {"_id": f"{tenant}{day}{written}", "tenant": tenant, "team": team, **moments}


ROWS = [row("a", "red", 0), row("a", "blue", 2), row("a", None, 4), row("b", "red", 1)]


def test_a_row_holds_until_the_next_one_of_its_tenant() -> None:
    for rows in permutations(ROWS):
        book = TeamBook(rows)
        assert [book.team_of("a", AT + day * DAY) for day in range(-1, 6)] == [
            None,
            "red",
            "red",
            "blue",
            "blue",
            None,
            None,
        ]
        assert book.team_of("a", AT + 2 * DAY - timedelta(minutes=1)) == "red"
        assert book.team_of("nobody", AT) is None
        assert book.members("red", AT + DAY) == {"a", "b"}
        assert book.members("red", AT + 2 * DAY) == {"b"}


def test_of_rows_that_begin_at_once_the_one_written_last_holds() -> None:
    for rows in permutations([row("a", "red", 0, 1), row("a", "blue", 0, 2)]):
        assert TeamBook(rows).team_of("a", AT) == "blue"


def test_a_time_is_cut_where_somebody_changes() -> None:
    book = TeamBook(ROWS)
    days = [
        (int((low - AT) / DAY), int((high - AT) / DAY))
        for low, high in book.pieces(AT, AT + 4 * DAY)
    ]
    assert days == [(0, 1), (1, 2), (2, 4)]
    assert book.pieces(AT, AT) == []
