"""docs/api.md says what the application says."""

from __future__ import annotations

from pathlib import Path

from gpu_token_analytics.api.app import document
from gpu_token_analytics.api.reference import replaced
from gpu_token_analytics.api.routes import ROUTES

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_page_is_current() -> None:
    text = PAGE.read_text()
    assert text == replaced(text, document()), "run `python -m gpu_token_analytics.api.reference`"


def test_every_answer_is_a_struct_or_says_what_else_it_is() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    plain = {route.name for route in ROUTES if route.struct is None}
    assert plain == {"export", "traces", "stream", "openapi"}


def test_every_parameter_says_what_it_means() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            for parameter in operation.get("parameters", []):
                assert parameter.get("description"), (path, parameter["name"])
