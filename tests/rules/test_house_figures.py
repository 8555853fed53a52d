"""The house's figures are measured rightly, and its imports get no deeper unnoticed."""

from __future__ import annotations

import pytest
from scripts.house_figures import deepest, figures, files_here, imports_of, p90, rooms_of

FILES = {
    "__init__.py": "",
    "errors.py": "import sys\n",
    "wire/__init__.py": "",
    "wire/events.py": "from gpu_token_analytics.errors import X\n",
    "costs/__init__.py": "",
    "costs/read.py": (
        "from gpu_token_analytics.costs import rows\nfrom gpu_token_analytics import errors\n"
    ),
    "costs/rows.py": (
        "from gpu_token_analytics.wire.events import Y\n\n\ndef f():\n    import "
        "gpu_token_analytics.api\n"
    ),
}


def test_the_deepest_chain_of_modules_and_of_rooms() -> None:
    graph = imports_of(FILES)
    assert deepest(graph) == ["costs.read", "costs.rows", "wire.events", "errors"]
    assert deepest(rooms_of(graph)) == ["costs", "wire", "errors"]


def test_imports_inside_of_functions_make_no_chain() -> None:
    assert imports_of(FILES)["costs.rows"] == {"wire.events"}


@pytest.mark.parametrize(
    ("lengths", "most_of_nine_in_ten"),
    [([5], 5), ([1, 2, 3], 3), (list(range(1, 11)), 9), ([7] * 20, 7)],
)
def test_nine_of_ten_are_at_most(lengths: list[int], most_of_nine_in_ten: int) -> None:
    assert p90(lengths) == most_of_nine_in_ten


def test_the_figures_of_a_small_house() -> None:
    measured = figures(FILES)
    assert measured["files"] == "7"
    assert measured["lines"] == "9"
    assert measured["rooms"] == "2"
    assert measured["lines of a function, median / p90 / most"] == "2 / 2 / 2"
    assert measured["largest room"] == "costs: 3 files, 7 lines"


def test_imports_get_no_deeper() -> None:
    """From a process down to the last shared word. Lower it when the chain is shorter; it is not
    meant to grow."""
    chain = deepest(imports_of(files_here()))
    assert len(chain) <= 10, " > ".join(chain)
