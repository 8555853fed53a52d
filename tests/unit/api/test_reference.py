"""docs/api.md says what the application says."""

from __future__ import annotations

from pathlib import Path

from gpu_token_analytics.api.app import document
from gpu_token_analytics.api.handlers import HANDLERS
from gpu_token_analytics.api.reference import replaced
from gpu_token_analytics.api.routes import ROUTES

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_page_is_current() -> None:
    text = PAGE.read_text()
    assert text == replaced(text, document()), "run `python -m gpu_token_analytics.api.reference`"


def test_every_route_has_a_handler_and_every_handler_a_route() -> None:
    assert {route.handler for route in ROUTES} == set(HANDLERS)


def test_every_parameter_says_what_it_means() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            for parameter in operation.get("parameters", []):
                assert parameter.get("description"), (path, parameter["name"])
