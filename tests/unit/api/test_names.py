"""Query parameters that nobody reads, or of which only one would be read, are refused: no other
question is answered. Nor is a number taken for a time, or the last of two values of one key for
what was meant."""

from __future__ import annotations

from typing import Annotated, get_args, get_type_hints
from urllib.parse import urlencode

import pytest
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from pydantic import ValidationError

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.names import keys_given_once, known_parameters
from gpu_token_analytics.api.params import CostsAsked
from gpu_token_analytics.api.routes import ROUTES
from gpu_token_analytics.costs.entries import Model, NewPrice

RANGE = [("from", "2026-01-01T00:00:00Z"), ("to", "2026-01-02T00:00:00Z")]


def ask(*more: tuple[str, str], to: str = RANGE[1][1]) -> tuple[int, str]:
    """Status and text of an answer."""
    app = FastAPI()

    @app.exception_handler(ApiProblem)
    async def refused(_request: Request, problem: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(problem), 422)

    @app.get("/v1/costs", dependencies=[Depends(known_parameters)])
    async def costs(asked: Annotated[CostsAsked, Query()]) -> str:
        return ",".join(asked.tenants)

    answer = TestClient(app).get("/v1/costs?" + urlencode([RANGE[0], ("to", to), *more]))
    return answer.status_code, answer.text


def write(body: str, content_type: str = "application/json") -> tuple[int, str]:
    """Status and text of the answer to a price row."""
    app = FastAPI()

    @app.exception_handler(ApiProblem)
    async def refused(_request: Request, problem: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(problem), 422)

    @app.post("/v1/prices", dependencies=[Depends(keys_given_once)])
    async def add(new: NewPrice) -> str:
        return f"{new.scope} {new.key} {new.valid_from:%Y-%m-%d}"

    answer = TestClient(app).post(
        "/v1/prices", content=body, headers={"content-type": content_type}
    )
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("groupby", "group_by"),
        ("tenants", "tenant"),
        ("Tenant", "tenant"),
        ("group_by[]", "group_by"),
        ("from ", "from"),
    ],
)
def test_a_parameter_that_nobody_reads_is_refused_with_the_nearest_name(
    name: str, nearest: str
) -> None:
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


ROW = '"key": "GPU-a", "usd_per_hour": "1", "valid_from": "2026-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (f'{{"scope": "gpu", {ROW}}}', 200, "gpu GPU-a 2026-01-01"),
        (f'\ufeff{{"scope": "gpu", {ROW}}}', 200, "gpu GPU-a 2026-01-01"),
        (f'{{"scope": "gpu", "scope": "host", {ROW}}}', 422, "key scope is given twice"),
        (f'{{"scope": "gpu", {ROW}, "usd_per_hour": "1"}}', 422, "key usd_per_hour is given twice"),
        (
            f'{{"scope": "gpu", {ROW}, "x": [{{"a": 1, "\\u0061": 2}}]}}',
            422,
            "key a is given twice",
        ),
        ("{", 422, "JSON decode error"),
        ("", 422, "Field required"),
        ("[" * 60_000, 400, "error parsing the body"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(body: str, status: int, said: str) -> None:
    answered, text = write(body)
    assert (answered, said in text) == (status, True), text


def test_a_body_that_is_no_json_is_refused_as_such() -> None:
    assert write("scope=gpu", "text/plain")[0] == 422


@pytest.mark.parametrize(
    "value", ["20260101", "1767225600", "1767225600000", "2026", "1.5", "-5", " 20260101"]
)
def test_a_number_is_no_time(value: str) -> None:
    """Read as seconds since 1970, a price from 20260101 on would hold since August 1970."""
    assert "a number is no time" in ask(to=value)[1]
    for written in (f'"{value}"', value.strip()):
        row = ROW.replace('"2026-01-01T00:00:00Z"', written)
        status, text = write(f'{{"scope": "gpu", {row}}}')
        assert (status, "a number is no time" in text) == (422, True), written


WRITTEN = {
    entry
    for route in ROUTES
    for kind in get_type_hints(route.answer).values()
    for entry in get_args(kind) or (kind,)
    if isinstance(entry, type) and issubclass(entry, Model)
}


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (entry, field)
        for entry in sorted(WRITTEN, key=lambda entry: entry.__name__)
        for field, schema in entry.model_json_schema()["properties"].items()
        if "date-time" in str(schema)
    ],
)
def test_a_number_is_no_time_of_any_entry(entry: type[Model], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        entry.model_validate({field: 1767225600})
    said = {fault["loc"][0]: fault["msg"] for fault in refused.value.errors()}
    assert "a number is no time" in said[field]
