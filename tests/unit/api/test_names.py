"""Query parameters that nobody reads, or of which only one would be read, are refused: no other question is answered."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import pytest
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.names import known_parameters
from gpu_token_analytics.api.params import CostsAsked

RANGE = [("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-02T00:00:00Z")]


def ask(*more: tuple[str, str]) -> tuple[int, str]:
    """Status and text of an answer."""
    app = FastAPI()

    @app.exception_handler(ApiProblem)
    async def refused(_request: Request, problem: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(problem), 422)

    @app.get("/v1/costs", dependencies=[Depends(known_parameters)])
    async def costs(asked: Annotated[CostsAsked, Query()]) -> str:
        return ",".join(asked.tenants)

    answer = TestClient(app).get("/v1/costs?" + urlencode([*RANGE, *more]))
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("groupby", "group_by"), ("tenants", "tenant"), ("Tenant", "tenant"), ("group_by[]", "group_by"), ("from ", "from")],
)
def test_a_parameter_that_nobody_reads_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    status, text = ask((name, "x"))
    assert (status, f"did you mean `{nearest}`?" in text) == (422, True)


@pytest.mark.parametrize("name", ["from", "limit", "bucket", "time_zone", "cursor"])
@pytest.mark.parametrize("value", ["", "x"])
def test_a_second_value_is_refused_where_one_is_read(name: str, value: str) -> None:
    status, text = ask((name, value), (name, value))
    assert status == 422
    assert f"{name} is given {3 if name == 'from' else 2} times" in text


def test_what_may_be_repeated_is_all_read() -> None:
    assert ask(("tenant", "a"), ("tenant", "b")) == (200, '"a,b"')


@pytest.mark.parametrize("name", ["group_by", "tenant", "limit", "gpu", "class", "bucket", "from"])
def test_an_empty_value_is_refused(name: str) -> None:
    assert ask((name, ""))[0] == 422
